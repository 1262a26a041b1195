"""The lists of what there is, against the conf/ files and papers known from elsewhere."""

import sys

import pytest

from fedrobust.aggregators import RULES
from fedrobust.cli import main
from fedrobust.config import config_folder
from fedrobust.registry import AttackEntry, aggregator_entries, attack_entries


@pytest.fixture(scope="module")
def attacks() -> dict[str, AttackEntry]:
    return {entry.name: entry for entry in attack_entries()}


def test_every_config_is_listed(attacks):
    assert sorted(attacks) == sorted(path.stem for path in (config_folder() / "attack").glob("*.yaml"))
    rules = aggregator_entries()
    assert [rule.name for rule in rules] == sorted(
        path.stem for path in (config_folder() / "aggregator").glob("*.yaml")
    )
    assert len(rules) == len(RULES)


def test_every_attack_names_its_paper_and_its_stage(attacks):
    for name, entry in attacks.items():
        if name != "none":
            assert entry.stages, name
            assert any("https://" in paper for paper in entry.papers), name
            assert entry.knowledge.split(";")[0] in ("own", "benign", "server"), name
    assert all("https://" in rule.paper for rule in aggregator_entries())
    assert attacks["none"] == AttackEntry("none", (), "", ())


@pytest.mark.parametrize(
    ("name", "stages", "knowledge", "papers"),
    [
        ("alie", ("update",), "own; uses benign", ["1902.06156"]),
        ("mimic", ("update",), "benign", ["2006.09365"]),
        ("optimised_ipm", ("update",), "server", ["2302.01772"]),
        ("neurotoxin", ("data", "update"), "server", ["1708.06733", "2206.10341"]),
        ("projected_gradient", ("data", "update"), "benign", ["1708.06733", "2007.05084"]),
        ("badnets", ("data",), "own", ["1708.06733"]),
        ("model_replacement", ("data", "loss", "update"), "own", ["1708.06733", "1807.00459"]),
    ],
)
def test_stages_knowledge_and_papers(attacks, name, stages, knowledge, papers):
    """arXiv numbers: ALIE 1902.06156, mimic 2006.09365, optimal IPM 2302.01772, BadNets 1708.06733, ..."""
    entry = attacks[name]
    assert (entry.stages, entry.knowledge) == (stages, knowledge)
    assert len(entry.papers) == len(papers)
    for paper, number in zip(entry.papers, papers, strict=True):
        assert number in paper
        assert "Departs" not in paper


@pytest.mark.parametrize("kind", ["attack", "aggregator"])
def test_the_command_prints_every_name(kind, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["fedrobust"])
    main(["list", f"{kind}s"])
    captured = capsys.readouterr()
    assert captured.err == ""
    first_words = {line.split()[0] for line in captured.out.splitlines() if line and not line.startswith(" ")}
    assert {path.stem for path in (config_folder() / kind).glob("*.yaml")} <= first_words
