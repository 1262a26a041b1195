import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from folders import assert_one_line, assert_same_run, command, without_pictures

from fedrobust.records.report import main as report
from fedrobust.records.run_folder import RunFolder

TINY = [
    "num_clients=4",
    "num_rounds=2",
    "checkpoint_every=1",
    "attack.num_malicious=1",
    "control=false",
    "verbose=false",
    "plot_formats=[]",
    "model.hidden_sizes=[8]",
]
GRID = ["-m", *TINY, "aggregator=mean,krum", "seed=0,1"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep of four cells that nobody disturbed."""

    from fedrobust.commands import cli

    folder = tmp_path_factory.mktemp("sweep") / "s"
    with pytest.MonkeyPatch.context() as patch:
        without_pictures(patch)
        cli.main([*GRID, f"hydra.sweep.dir={folder}"])
    return folder


@pytest.fixture
def sweep(finished: Path, tmp_path: Path, whole: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "s"))


def never_began(cell: Path) -> None:
    shutil.rmtree(cell)


def cut_in_the_middle(cell: Path) -> None:
    """As a kill leaves it after round 1."""
    rounds = cell / "rounds.jsonl"
    rounds.write_bytes(b"".join(rounds.read_bytes().splitlines(keepends=True)[:2]))
    (cell / "summary.json").unlink()
    (cell / "model.safetensors").unlink()
    (cell / "checkpoint.previous.safetensors").replace(cell / "checkpoint.safetensors")


def cut_at_the_start(cell: Path) -> None:
    """As a kill leaves it before round 0."""
    for path in cell.iterdir():
        if path.is_file() and path.name not in ("choices.json", "config.yaml"):
            path.unlink()


def failed(cell: Path) -> None:
    cut_in_the_middle(cell)
    RunFolder(cell).write_failure("the disk is full")


def half_written(cell: Path) -> None:
    cut_at_the_start(cell)
    (cell / "config.yaml").unlink()


CUTS = [never_began, cut_in_the_middle, cut_at_the_start, failed, half_written]


@pytest.mark.fault("Sweeps", "a sweep stopped, and the same command again", "what is missing is played, nothing else")
@pytest.mark.parametrize("cells", [(0,), (1, 3), (0, 1, 2, 3)])
@pytest.mark.parametrize("cut", CUTS, ids=lambda one: one.__name__)
def test_goes_on(
    sweep: Path, finished: Path, cut: Callable[[Path], None], cells: tuple[int, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    for number in cells:
        cut(sweep / str(number))
    kept = {n: (sweep / str(n) / "rounds.jsonl").stat().st_mtime_ns for n in range(4) if n not in cells}
    code, said = command([*GRID, f"hydra.sweep.dir={sweep}"], capsys)
    assert code == 0, said
    for number in range(4):
        assert_same_run(sweep / str(number), finished / str(number))
        assert not (sweep / str(number) / "failure.json").exists()
    for number, time in kept.items():
        assert (sweep / str(number) / "rounds.jsonl").stat().st_mtime_ns == time


@pytest.mark.fault("Sweeps", "another grid in the folder of a sweep", "one line with the first cell that differs")
@pytest.mark.parametrize(
    "change",
    [("seed=0,1", "seed=1,0"), ("seed=0,1", "seed=0"), ("mean,krum", "krum,mean"), ("num_rounds=2", "num_rounds=3")],
)
def test_another_grid(sweep: Path, change: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.read_bytes() for path in sweep.glob("*/rounds.jsonl")}
    other = [one.replace(*change) for one in GRID]
    code, said = command([*other, f"hydra.sweep.dir={sweep}"], capsys)
    assert_one_line(code, said)
    assert "holds another sweep: cell " in said
    assert {path: path.read_bytes() for path in sweep.glob("*/rounds.jsonl")} == before


@pytest.mark.fault("Sweeps", "a sweep made longer", "the new cells are played, nothing else")
def test_longer(sweep: Path, finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    longer = [one.replace("mean,krum", "mean,krum,sever") for one in GRID]
    assert command([*longer, f"hydra.sweep.dir={sweep}"], capsys)[0] == 0
    assert_same_run(sweep / "3", finished / "3")
    assert json.loads((sweep / "5" / "choices.json").read_text())["aggregator"] == "sever"


@pytest.mark.fault("Sweeps", "a cell's config changed by hand", "one line with the setting")
def test_changed_cell(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = sweep / "1" / "config.yaml"
    config.write_text(config.read_text().replace("learning_rate: 0.1", "learning_rate: 0.3"))
    code, said = command([*GRID, f"hydra.sweep.dir={sweep}"], capsys)
    assert_one_line(code, said)
    assert "client.learning_rate: 0.3 there, 0.1 in this command" in said


@pytest.mark.fault("Reports", "damaged folders among the runs", "the others are reported, the damaged ones are named")
@pytest.mark.parametrize("name", ["config.yaml", "choices.json", "summary.json", "environment.json"])
@pytest.mark.parametrize("content", [b"", b"a: [", b"\xff\xfe", b"[1, 2]", b"17", b"seed: x"])
def test_a_report_survives(sweep: Path, name: str, content: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    (sweep / "2" / name).write_bytes(content)
    assert report([str(sweep)]) == 1
    out = capsys.readouterr().out
    assert f"{sweep / '2'}: damaged, left out: " in out
    assert "mean" in (sweep / "report" / "report.md").read_text()


@pytest.mark.fault("Reports", "cells of a sweep that never began", "they are named")
@pytest.mark.parametrize("cells", [(3,), (0, 2)])
def test_a_report_names_what_is_missing(
    sweep: Path, cells: tuple[int, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    for number in cells:
        shutil.rmtree(sweep / str(number))
    assert report([str(sweep)]) == 0
    numbers = ", ".join(map(str, cells))
    assert f"{len(cells)} cells of the sweep are missing, they never began: {numbers}" in capsys.readouterr().out
