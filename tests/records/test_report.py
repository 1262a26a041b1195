"""The report over runs laid out by hand; the expected figures come from NumPy or are worked out in the docstrings."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from fedrobust.records.grid import arrange
from fedrobust.records.report import main, write_report
from fedrobust.records.run_folder import RunFolder
from fedrobust.records.runs import find_runs


def _run(
    folder: Path,
    *,
    attack: str = "dba",
    aggregator: str = "mean",
    seed: int = 0,
    settings: str = "",
    summary: dict[str, Any] | None = None,
    failure: str | None = None,
    dataset: str | None = None,
) -> None:
    run = RunFolder(folder)
    run.create()
    run.write_config(f"seed: {seed}\noutput_dir: {folder}\nlogger:\n  name: {folder.name}\n{settings}")
    choices = {"attack": attack, "aggregator": aggregator, "logger": folder.name}
    run.write_choices(choices if dataset is None else {**choices, "dataset": dataset})
    if summary is not None:
        run.write_summary(summary)
    if failure is not None:
        run.write_failure(failure)


def _figures(attack_success_rate: float | None, clean_accuracy: float = 0.9) -> dict[str, Any]:
    return {"attack_success_rate": attack_success_rate, "clean_accuracy": clean_accuracy, "model": "cnn"}


def _table(folder: Path) -> dict[tuple[str, str], dict[str, str]]:
    rows = csv.DictReader(io.StringIO((folder / "report" / "report.csv").read_text()))
    return {(row["attack"], row["aggregator"]): row for row in rows}


def _cells(root: Path, rows: str = "attack", columns: str = "aggregator") -> dict[tuple[str, str], list[int]]:
    grid = arrange(find_runs(root)[0], rows, columns)
    return {key: [run.seed for run in cell.runs] for key, cell in grid.cells.items()}


def test_seeds_are_averaged(tmp_path: Path) -> None:
    rates = [0.1, 0.4, 0.6]
    for seed, rate in enumerate(rates):
        _run(tmp_path / str(seed), seed=seed, summary=_figures(rate, 0.9 + seed / 100))
    _run(tmp_path / "other", aggregator="krum", summary=_figures(0.25))
    assert main([str(tmp_path)]) == 0
    cell = _table(tmp_path)["dba", "mean"]
    assert float(cell["attack_success_rate_mean"]) == pytest.approx(np.mean(rates))
    assert float(cell["attack_success_rate_std"]) == pytest.approx(np.std(rates, ddof=1))
    assert (cell["attack_success_rate_n"], cell["seeds"], cell["num_failed"]) == ("3", "0 1 2", "0")
    assert float(cell["clean_accuracy_mean"]) == pytest.approx(0.91)
    alone = _table(tmp_path)["dba", "krum"]
    assert (alone["attack_success_rate_mean"], alone["attack_success_rate_std"]) == ("0.25", "")  # no spread of one
    written = {path.name for path in (tmp_path / "report").iterdir()}
    assert written == {"report.md", "report.csv", "report.json", "heatmap.png"}
    page = (tmp_path / "report" / "report.md").read_text()
    assert f"36.7 ± {100 * np.std(rates, ddof=1):.1f} % (n=3)" in page


def test_figures_stand_side_by_side(tmp_path: Path) -> None:
    """Two seeds of 0.9 and 0.92 and of 3 and 5: 91 % and 4, spread √2 percentage points and √2."""
    for seed in (0, 1):
        summary = _figures(0.5, 0.9 + seed / 50) | {"seconds": 3.0 + 2 * seed}
        _run(tmp_path / f"mean{seed}", seed=seed, summary=summary)
        _run(tmp_path / f"krum{seed}", aggregator="krum", seed=seed, failure="no memory")
    stream = io.StringIO()
    write_report(
        tmp_path,
        rows="aggregator",
        columns="attack",
        figures=["clean_accuracy", "seconds"],
        console=Console(file=stream, width=200),
    )
    page = (tmp_path / "report" / "report.md").read_text()
    assert "| aggregator | clean accuracy | seconds |" in page
    assert "| mean | 91.0 ± 1.4 % (n=2) | 4 ± 1.4 (n=2) |" in page
    assert "| krum | 2 failed: no memory | 2 failed: no memory |" in page
    assert "91.0 ± 1.4 %" in stream.getvalue()
    _run(tmp_path / "other", attack="badnets", summary=_figures(0.5) | {"seconds": 1.0})
    assert main([str(tmp_path), "--rows", "aggregator", "--columns", "attack", "--figures", "seconds"]) == 0
    page = (tmp_path / "report" / "report.md").read_text()
    assert "| aggregator | attack | seconds |" in page
    assert "| mean | badnets | 1 (n=1) |" in page


def test_what_failed_is_shown_with_its_reason(tmp_path: Path) -> None:
    _run(tmp_path / "a0", seed=0, summary=_figures(0.5))
    _run(tmp_path / "a1", seed=1, failure="loss is NaN\nin round 3")
    _run(tmp_path / "b0", aggregator="krum", failure="Krum needs n >= 2f + 3, got n=10, f=4")
    _run(tmp_path / "c0", aggregator="median")
    stream = io.StringIO()
    write_report(tmp_path, console=Console(file=stream, width=200))
    cells = _table(tmp_path)
    assert cells["dba", "mean"]["failures"] == "seed 1: failed: loss is NaN in round 3"
    assert cells["dba", "krum"]["failures"] == "seed 0: failed: Krum needs n >= 2f + 3, got n=10, f=4"
    assert cells["dba", "median"]["failures"] == "seed 0: unfinished: still running, or killed"
    for text in (stream.getvalue(), (tmp_path / "report" / "report.md").read_text()):
        assert "50.0 % (n=1); 1 failed" in text
        assert "1 failed: Krum needs n >= 2f + 3, got n=10, f=4" in text
        assert "1 unfinished: still running, or killed" in text
        assert "loss is NaN in round 3" in text
    first = json.loads((tmp_path / "report" / "report.json").read_text())[0]
    assert (first["aggregator"], first["metrics"]["attack_success_rate"]["n"]) == ("krum", 0)


def test_only_failures_still_make_a_report(tmp_path: Path) -> None:
    _run(tmp_path / "0", failure="no such data set")
    assert main([str(tmp_path), "--output", str(tmp_path / "elsewhere")]) == 0
    assert "1 failed: no such data set" in (tmp_path / "elsewhere" / "report.md").read_text()


def test_a_swept_setting_gets_its_own_rows(tmp_path: Path) -> None:
    """Two counts of malicious clients under `mean`, one of them under `krum`: krum's runs belong to one row alone."""
    for number, (aggregator, count, seed) in enumerate(
        [("mean", 2, 0), ("mean", 2, 1), ("mean", 10, 0), ("mean", 10, 1), ("krum", 10, 0)]
    ):
        settings = f"attack:\n  num_malicious: {count}\n"
        _run(tmp_path / str(number), aggregator=aggregator, seed=seed, settings=settings, summary=_figures(0.1 * count))
    _run(tmp_path / "control", attack="none", summary=_figures(None))
    assert _cells(tmp_path) == {
        ("dba (num_malicious=2)", "mean"): [0, 1],
        ("dba (num_malicious=10)", "mean"): [0, 1],
        ("dba (num_malicious=10)", "krum"): [0],
        ("none", "mean"): [0],
    }
    assert arrange(find_runs(tmp_path)[0], "attack", "aggregator").rows == (
        "dba (num_malicious=2)",
        "dba (num_malicious=10)",
        "none",
    )


def test_a_setting_that_differs_between_columns_splits_the_row(tmp_path: Path) -> None:
    """`mean` ran with 5 rounds, `krum` with 9: side by side in one row they would look comparable."""
    _run(tmp_path / "0", settings="rounds: 5\n", summary=_figures(0.1))
    _run(tmp_path / "1", aggregator="krum", settings="rounds: 9\n", summary=_figures(0.1))
    assert set(_cells(tmp_path)) == {("dba (rounds=5)", "mean"), ("dba (rounds=9)", "krum")}


def test_whether_a_twin_was_played_makes_no_other_scenario(tmp_path: Path) -> None:
    """Seeds 0 and 1 share a cell; the control, 46 %, is the mean over the runs that have one."""
    _run(tmp_path / "0", settings="control: false\n", summary=_figures(0.9))
    own = {"control": "benign_twin", "control_attack_success_rate": 0.46, "control_clean_accuracy": 0.9}
    _run(tmp_path / "1", seed=1, settings="control: auto\n", summary=_figures(0.8) | own)
    assert _cells(tmp_path) == {("dba", "mean"): [0, 1]}
    assert main([str(tmp_path)]) == 0
    page = (tmp_path / "report" / "report.md").read_text()
    assert "## Control attack success rate" in page
    assert "| dba | 46.0 % (n=1) |" in page


def test_a_rule_s_own_swept_setting_gets_its_own_columns(tmp_path: Path) -> None:
    for number, (aggregator, fraction) in enumerate([("krum", 0.1), ("krum", 0.2), ("median", None)]):
        settings = f"aggregator:\n  assumed_fraction: {fraction}\n" if fraction else ""
        _run(tmp_path / str(number), aggregator=aggregator, settings=settings, summary=_figures(0.1))
    assert set(_cells(tmp_path)) == {
        ("dba", "krum (assumed_fraction=0.1)"),
        ("dba", "krum (assumed_fraction=0.2)"),
        ("dba", "median"),
    }


def test_another_group_s_settings_are_told_by_its_choice(tmp_path: Path) -> None:
    """A data set brings its own settings; naming the data set says them all, until one of them is swept as well."""
    for number, (dataset, size) in enumerate([("digits", 8), ("mnist", 28), ("mnist", 14)]):
        settings = f"dataset:\n  size: {size}\n"
        _run(tmp_path / str(number), settings=settings, summary=_figures(0.1), dataset=dataset)
    assert {row for row, _ in _cells(tmp_path)} == {
        "dba (dataset=digits)",
        "dba (dataset=mnist, dataset.size=28)",
        "dba (dataset=mnist, dataset.size=14)",
    }


def test_rows_can_be_a_setting(tmp_path: Path) -> None:
    for count in (2, 10):
        _run(tmp_path / str(count), settings=f"attack:\n  num_malicious: {count}\n", summary=_figures(0.1))
    assert _cells(tmp_path, rows="attack.num_malicious") == {("2", "mean"): [0], ("10", "mean"): [0]}


def test_the_latest_of_two_runs_with_one_seed_stands(tmp_path: Path) -> None:
    """A failed run that was started again counts once, and the report says which folder was left out."""
    _run(tmp_path / "b_first", failure="out of memory")
    _run(tmp_path / "a_second", summary=_figures(0.5))
    for name, started_at in (("b_first", "2026-01-01T10:00:00"), ("a_second", "2026-01-01T11:00:00")):
        (tmp_path / name / "environment.json").write_text(json.dumps({"started_at": started_at}))
    assert main([str(tmp_path)]) == 0
    assert (_table(tmp_path)["dba", "mean"]["seeds"], _table(tmp_path)["dba", "mean"]["num_failed"]) == ("0", "0")
    page = (tmp_path / "report" / "report.md").read_text()
    assert f"- {tmp_path / 'b_first'} (seed 0, failed)" in page


def test_a_metric_without_value_is_said(tmp_path: Path) -> None:
    _run(tmp_path / "0", attack="none", summary=_figures(None))
    assert main([str(tmp_path)]) == 0
    assert "| none | no value |" in (tmp_path / "report" / "report.md").read_text()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--metric", "accuracy"], "unknown metric 'accuracy'; the runs have attack_success_rate, clean_accuracy"),
        (["--rows", "atack"], "no run has 'atack'; the config groups are aggregator, attack, or name a setting"),
        (["--rows", "aggregator"], "rows and columns must differ, got 'aggregator' for both"),
    ],
)
def test_a_wrong_option_is_one_readable_line(
    options: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _run(tmp_path / "0", summary=_figures(0.5))
    assert main([str(tmp_path), *options]) == 2
    assert capsys.readouterr().err == f"fedrobust-report: {message}\n"
    assert not (tmp_path / "report").exists()


def test_a_folder_without_runs_is_one_readable_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Hydra's own .hydra/config.yaml is not a run, nor is a folder that does not exist."""
    (tmp_path / ".hydra").mkdir()
    (tmp_path / ".hydra" / "config.yaml").write_text("seed: 1\n")
    for folder in (tmp_path, tmp_path / "nowhere"):
        assert main([str(folder)]) == 2
        error = capsys.readouterr().err
        assert (
            error == f"fedrobust-report: no runs below {folder} (a run is a folder with config.yaml and choices.json)\n"
        )


def test_a_damaged_run_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _run(tmp_path / "0", summary=_figures(0.5))
    (tmp_path / "0" / "summary.json").write_text("{")
    assert main([str(tmp_path)]) == 2
    assert "summary.json: not JSON" in capsys.readouterr().err
