"""What a run calls its control: a benign twin's figures, and nothing where none was played."""

import io
import json
import logging
from pathlib import Path
from typing import Any

import pytest
from chosen_seeds import first_of
from rich.console import Console

from fedrobust.config.compose import compose_config
from fedrobust.records.console import print_summary
from fedrobust.records.report import write_report
from fedrobust.records.run_folder import RunFolder
from fedrobust.runs import run as run_module
from fedrobust.runs.run import run_config
from fedrobust.study import play_scenario

SMALL = [
    "num_clients=8",
    "num_rounds=6",
    "attack.num_malicious=2",
    "aggregator=mean",
    "verbose=false",
    "plot_formats=[]",
]
WITHOUT = [
    ["attack=badnets"],
    ["attack=dba"],
    ["attack=coalition"],
    ["attack=sign_flip"],
    ["attack=edge_case", "control=false"],
    ["attack=label_flip", "attack.data.flip=random"],
]
WITH = [
    ["attack=edge_case"],
    ["attack=label_flip"],
    ["attack=badnets", "attack/trigger=blend"],
    ["attack=dba", "control=true"],
]


def run(folder: Path, *overrides: str, resume: bool = False) -> dict[str, Any]:
    values, choices = compose_config([*SMALL, *overrides])
    return dict(run_config(values, folder, choices, resume=resume))


def shown(summary: dict[str, Any]) -> str:
    stream = io.StringIO()
    print_summary(summary, console=Console(file=stream, width=100))
    return stream.getvalue()


def named(overrides: list[str]) -> str:
    return " ".join(overrides)


@pytest.mark.parametrize("overrides", WITHOUT, ids=named)
def test_without_a_twin_nothing_is_called_a_control(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, overrides: list[str]
) -> None:
    """With seed 23 the untrained model takes 95 % of the stamped digits for the target: that is a constant guess."""
    caplog.set_level(logging.INFO)
    summary = run(tmp_path / "run", *overrides, "seed=23")
    written = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert not [name for name in {**summary, **written} if "control" in name]
    assert "control" not in shown(summary)
    assert "twin" not in caplog.text
    assert not (tmp_path / "run" / "control").exists()
    first = json.loads((tmp_path / "run" / "rounds.jsonl").read_text().splitlines()[0])
    assert summary["initial_attack_success_rate"] == first["attack_success_rate"]
    write_report(tmp_path, console=Console(file=io.StringIO()))
    assert "control" not in (tmp_path / "report" / "report.csv").read_text().lower()


@pytest.mark.parametrize(("overrides", "seed"), [(one, seed) for seed, one in enumerate(WITH, start=22)], ids=str)
def test_the_control_is_the_run_without_attackers(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, overrides: list[str], seed: int
) -> None:
    """The same scenario with `attack.num_malicious=0`, played by itself, has the control's figures to the last bit."""
    caplog.set_level(logging.INFO)
    summary = run(tmp_path / "run", *overrides, f"seed={seed}")
    alone = play_scenario([*SMALL, *overrides, f"seed={seed}", "attack.num_malicious=0"])[-1]
    assert summary["control"] == "benign_twin"
    assert summary["control_attack_success_rate"] == alone["attack_success_rate"]
    assert summary["control_clean_accuracy"] == alone["clean_accuracy"]
    assert "control attack success rate" in shown(summary)
    lines = [record.getMessage() for record in caplog.records if "doubles" in record.getMessage()]
    assert len(lines) == 1
    assert "a benign twin is played" in lines[0]
    stream = io.StringIO()
    write_report(tmp_path, console=Console(file=stream, width=120))
    assert "control attack success rate" in stream.getvalue()
    assert f"{100 * alone['attack_success_rate']:.1f} % (n=1)" in stream.getvalue()


@pytest.mark.parametrize("seed", first_of((101, 102, 103)))
def test_what_a_clean_model_makes_of_edge_cases_is_seen_in_a_default_run(tmp_path: Path, seed: int) -> None:
    """Sevens turned by 30 degrees look like ones: an untrained model's 0 % is not what an attack is read against."""
    overrides = ["num_rounds=20", "attack=edge_case", "attack.data.rotation=30", f"seed={seed}"]
    summary = run(tmp_path, *overrides, "evaluate_every=20")
    assert summary["initial_attack_success_rate"] <= 0.05
    assert summary["control_attack_success_rate"] >= 0.2


def test_a_twin_that_was_stopped_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The message names the run's own folder, and the summary is that of a run which was never stopped."""
    overrides = ["attack=edge_case", "checkpoint_every=2"]
    whole = run(tmp_path / "whole", *overrides)
    keep = run_module.Keeper.keep

    def stop(self: Any, row: Any) -> None:
        keep(self, row)
        if self.records.path.name == "control" and row["round"] == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(run_module.Keeper, "keep", stop)
    caplog.set_level(logging.INFO)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "parts", *overrides)
    assert f"resume={tmp_path / 'parts'}\n" in caplog.text + "\n"
    assert not (tmp_path / "parts" / "summary.json").exists()
    monkeypatch.undo()
    resumed = run(tmp_path / "parts", *overrides, resume=True)
    for name, value in whole.items():
        assert name.startswith(("seconds", "milliseconds")) or resumed[name] == value, name
    rows = RunFolder(tmp_path / "parts" / "control").read_rounds()
    assert [row["round"] for row in rows] == list(range(7))
