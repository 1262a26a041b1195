"""Commands that cannot run: the one line quotes the keys of the options that were chosen, and says what would do."""

import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from folders import SCENARIO, assert_one_line, command

from fedrobust.audit_command.command import main as audit
from fedrobust.commands import cli
from fedrobust.config.building import ConfigError
from fedrobust.config.compose import compose_config
from fedrobust.records.report import main as report
from fedrobust.scenario import build_scenario

SAID = {
    "attack/trigger=image_file attack.data.trigger.path=x": "path: unknown key; allowed: file, height, left, opacity",
    "attack/trigger=image_file attack.data.trigger.gap=3": "gap: unknown key; allowed: file, height, left, opacity",
    "aggregator=mean aggregator.assumed_fraction=0.1": "aggregator.assumed_fraction: unknown key; allowed: none",
    "aggregator=krum aggregator.num_iterations=3": "num_iterations: unknown key; did you mean assumed_fraction?",
    "-m aggregator=krum,mean aggregator.assumed_fraction=0.1,0.2": "allowed: none (under aggregator=mean)",
    "-m aggregator=mean,krum aggregator.assumed_fraction=0.1": "allowed: none (under aggregator=mean)",
    "-m aggregator=krum,sever,median aggregator.assumed_fraction=0.1": "aggregator=median: unknown choice",
    "-m attack=badnets,sign_flip attack.data.target_label=1": "(under attack=sign_flip)",
    "server_optimizer=momentum server_optimizer.beta1=0.5": "allowed: beta",
    "model=logistic model.hidden_sizes=[3]": "model.hidden_sizes: unknown key; allowed: none",
    "preaggregator=bucketing,clipping": "or the list preaggregator=[bucketing,clipping]",
    "aggregator=krum,mean": "names several values; allowed: one, or a sweep",
    "control=2": "control: must be 'auto' or a valid boolean, got 2",
    "control=maybe": "control: must be 'auto' or a valid boolean, got 'maybe'",
    "control=null": "control: must be 'auto' or a valid boolean, got None",
    "attack.malicious_fraction=0.2 attack.num_malicious=4": "exactly one",
    "attack.malicious_fraction=2": "attack.malicious_fraction: must be",
    "nonsense=1": "nonsense: unknown key",
    "attack=dbaa": "did you mean dba?",
}


@pytest.mark.fault("Commands", "a key that an option does not have, or a wrong value", "one line with what it has")
@pytest.mark.parametrize("typed", SAID)
def test_one_line(typed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.chdir(tmp_path)
    code, said = command(typed.split(), capsys)
    assert_one_line(code, said)
    assert SAID[typed] in said
    assert not list(tmp_path.rglob("rounds.jsonl"))


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("attack.malicious_fraction=0.25", (None, 0.25, None)),
        ("attack.malicious_clients=[3,5]", (None, None, [3, 5])),
        ("attack.num_malicious=2", (2, None, None)),
        ("attack=badnets attack.malicious_fraction=0.1", (None, 0.1, None)),
        ("+attack.malicious_fraction=0.1", (None, 0.1, None)),
    ],
)
def test_one_way_to_count_attackers_is_enough(given: str, expected: tuple[Any, ...]) -> None:
    attack = build_scenario(compose_config(given.split())[0]).attack
    assert (attack.num_malicious, attack.malicious_fraction, attack.malicious_clients) == expected


def test_two_ways_are_refused() -> None:
    with pytest.raises(ConfigError, match="exactly one"):
        build_scenario(compose_config(["attack.malicious_fraction=0.1", "attack.malicious_clients=[1]"])[0])


@pytest.mark.parametrize("main", [cli.main, report, audit])
def test_the_version_is_ours(main: Callable[[list[str]], Any], capsys: pytest.CaptureFixture[str]) -> None:
    with contextlib.suppress(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out.startswith("fedrobust 0.")


def test_the_lines_of_the_twin_are_labelled(whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    short = [one for one in SCENARIO if not one.startswith(("control", "num_rounds"))]
    assert command([*short, "control=true", "num_rounds=1", f"hydra.run.dir={tmp_path / 'run'}"], capsys)[0] == 0
    lines = (tmp_path / "run" / "fedrobust.log").read_text().splitlines()
    assert [("benign twin: " in line) for line in lines if "round " in line] == [False, False, True, True]


@pytest.mark.parametrize("key", ["data_root", "watermark.trigger_set.folder"])
def test_paths_are_absolute(key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    choose = ["watermark=abstract"] if key.startswith("watermark") else []
    values: Any = compose_config([*choose, f"{key}=my/data"])[0]
    for part in key.split("."):
        values = values[part]
    assert values == str(tmp_path / "my" / "data")


def test_a_run_goes_on_from_another_folder(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    arguments = [*SCENARIO, "num_rounds=1", "data_root=data", "hydra.run.dir=run"]
    assert command([one for one in arguments if one != "num_rounds=4"], capsys)[0] == 0
    monkeypatch.chdir(tmp_path / "elsewhere")
    code, said = command([f"resume={tmp_path / 'run'}", "num_rounds=2", f"data_root={tmp_path}"], capsys)
    assert code == 0, said
    (noted,) = [json.loads(line) for line in (tmp_path / "run" / "changes.jsonl").read_text().splitlines()]
    assert noted["changes"]["data_root"] == [str(tmp_path / "data"), str(tmp_path)]


def test_nothing_is_made_where_nothing_is_downloaded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "no" / "data"
    code, said = command(["dataset=mnist", f"data_root={root}", f"hydra.run.dir={tmp_path / 'run'}"], capsys)
    assert_one_line(code, said)
    assert "is not there and could not be downloaded" in said
    assert not (tmp_path / "no").exists()
