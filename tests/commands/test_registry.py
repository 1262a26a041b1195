"""The lists of what there is, against the conf/ files and papers known from elsewhere."""

import sys

import pytest

from fedrobust.aggregators import RULES
from fedrobust.commands.cli import main
from fedrobust.commands.registry import (
    AttackEntry,
    aggregator_entries,
    attack_entries,
    audit_entries,
    watermark_entries,
)
from fedrobust.config.building import config_folder


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
        ("neurotoxin", ("data", "update"), "own", ["1708.06733", "2206.10341"]),
        ("projected_gradient", ("data", "update"), "benign", ["1708.06733", "2007.05084"]),
        ("badnets", ("data",), "own", ["1708.06733"]),
        ("poison_frogs", ("data",), "own", ["1804.00792"]),
        ("blind_backdoor", ("loss",), "own", ["2005.03823"]),
        ("pretrained_backdoor", ("initial_model", "data"), "own", ["1708.06733", "1708.06733"]),
        ("bfa", ("deployed_model",), "own; the trained model", ["1903.12269"]),
        ("tbt", ("deployed_model",), "own; the trained model", ["1909.05193"]),
        ("tba", ("deployed_model",), "own; the trained model", ["2308.07934"]),
        ("weight_tamper", ("deployed_model",), "own; the trained model", ["ICCAD.2017.8203770"]),
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


def test_every_watermark_is_listed_with_its_paper_and_how_it_labels():
    """Adi et al. label at random, Zhang et al. with one label (but noise, see there), Gu et al. with one."""
    entries = {entry.name: entry for entry in watermark_entries()}
    assert set(entries) == {path.stem for path in (config_folder() / "watermark").glob("*.yaml")} - {"none"}
    labels = {name: entry.labels for name, entry in entries.items()}
    assert labels == {
        "abstract": "random",
        "content": "one for all",
        "noise": "random",
        "rare_words": "one for all",
        "unrelated": "one for all",
    }
    papers = {"abstract": "usenixsecurity18/presentation/adi", "rare_words": "2210.07543"}
    for name, entry in entries.items():
        assert papers.get(name, "10.1145/3196494.3196550") in entry.paper


def test_every_audit_is_listed_with_what_it_looks_at_and_its_paper():
    """arXiv numbers of Chen et al., Zeng et al., Wang et al. (by its DOI), Tran et al., Gao et al."""
    entries = {entry.name: entry for entry in audit_entries()}
    assert set(entries) == {path.stem for path in (config_folder() / "audit").glob("*.yaml")} - {"none"}
    kinds = {name: entry.kind for name, entry in entries.items()}
    assert kinds == {
        "activation_clustering": "data",
        "frequency_detector": "data",
        "neural_cleanse": "model",
        "reputation": "clients",
        "spectral_signatures": "data",
        "strip": "data",
        "update_clustering": "clients",
    }
    papers = {
        "activation_clustering": "1811.03728",
        "frequency_detector": "2104.03413",
        "neural_cleanse": "SP.2019.00031",
        "spectral_signatures": "1811.00636",
        "strip": "1902.06531",
    }
    for name, number in papers.items():
        assert number in entries[name].paper
    assert all("https://" in entry.paper for entry in entries.values())


@pytest.mark.parametrize("kind", ["attack", "aggregator"])
def test_the_command_prints_every_name(kind, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["fedrobust"])
    main(["list", f"{kind}s"])
    captured = capsys.readouterr()
    assert captured.err == ""
    first_words = {line.split()[0] for line in captured.out.splitlines() if line and not line.startswith(" ")}
    assert {path.stem for path in (config_folder() / kind).glob("*.yaml")} <= first_words
