"""Locks where there are none, of what is no run's folder, and of sweeps that meet."""

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from folders import SCENARIO, assert_one_line, assert_same_run, command

from fedrobust.config.building import ConfigError
from fedrobust.config.compose import compose_config
from fedrobust.records import lock as lock_module
from fedrobust.records.lock import FolderInUseError, locked, locked_file
from fedrobust.runs.run import run_config
from fedrobust.study import measure_cells

GoingOn = Callable[..., tuple[int, str]]


class NoLocks:
    """A file system that has none, as some network drives."""

    LOCK_EX, LOCK_NB = 2, 4

    def __init__(self, number: int) -> None:
        self.number = number

    def flock(self, *_: Any) -> None:
        raise OSError(self.number, os.strerror(self.number))


@pytest.mark.fault("Locks", "a system or drive without file locks", "one warning, and the same bytes")
@pytest.mark.parametrize(
    "system",
    [None, NoLocks(errno.ENOLCK), NoLocks(errno.EOPNOTSUPP), NoLocks(errno.EIO)],
    ids=["no module", "ENOLCK", "EOPNOTSUPP", "EIO"],
)
def test_without_locks(
    half: Path,
    whole: Path,
    going_on: GoingOn,
    system: NoLocks | None,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(lock_module, "fcntl", system)
    code, said = going_on(half)
    assert code == 0, said
    assert_same_run(half, whole)
    (warning,) = [one.message for one in caplog.records if "nothing keeps a second process out" in one.message]
    assert str(half) in warning


@pytest.mark.fault("Locks", "a run of the Python API in a folder in use", "one line that names the process")
@pytest.mark.parametrize("resume", [False, True])
def test_python_runs(half: Path, tmp_path: Path, resume: bool) -> None:
    values, choices = compose_config(SCENARIO)
    folder = half if resume else tmp_path / "new"
    with locked(folder), pytest.raises(ConfigError, match=rf"is in use by process {os.getpid()} on "):
        run_config(values, folder, choices, resume=resume)
    assert resume or not folder.exists()


@pytest.mark.fault("Locks", "a run started in the folder of another's twin", "one line that names the process")
def test_the_twin(tmp_path: Path, whole: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [*(one for one in SCENARIO if not one.startswith("control")), "control=true"]
    with locked(tmp_path / "run" / "control"):
        code, said = command([*arguments, f"hydra.run.dir={tmp_path / 'run'}"], capsys)
    assert_one_line(code, said)
    assert f"{tmp_path / 'run' / 'control'} is in use by process {os.getpid()} on " in said
    assert not (tmp_path / "run" / "rounds.jsonl").exists()


@pytest.mark.fault("Locks", "a cell of a sweep in use", "it is left out, untouched, the others are played, exit code 1")
@pytest.mark.parametrize("in_use", [0, 1])
@pytest.mark.parametrize("is_begun", [False, True])
def test_a_cell_in_use(
    tmp_path: Path, whole: Path, capsys: pytest.CaptureFixture[str], in_use: int, is_begun: bool
) -> None:
    short = [one for one in SCENARIO if not one.startswith("num_rounds")]
    arguments = ["-m", *short, "num_rounds=1", "seed=0,1", f"hydra.sweep.dir={tmp_path / 'sweep'}"]
    cell = tmp_path / "sweep" / str(in_use)
    if is_begun:
        assert command(arguments, capsys)[0] == 0
        (cell / "summary.json").unlink()
    with locked(cell):
        before = {path.name: path.read_bytes() for path in cell.glob("*") if path.suffix != ".log" and path.is_file()}
        code, said = command(arguments, capsys)
        assert (code, said) == (1, "")
        after = {path.name: path.read_bytes() for path in cell.glob("*") if path.suffix != ".log" and path.is_file()}
        assert after == before
    other = tmp_path / "sweep" / str(1 - in_use)
    assert (other / "summary.json").exists()
    assert command(arguments, capsys)[0] == 0
    assert (cell / "summary.json").exists()


@pytest.mark.fault("Locks", "the same sweep started twice", "one line that names the first")
def test_a_sweep_in_use(tmp_path: Path, whole: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["-m", *SCENARIO, "seed=0,1", f"hydra.sweep.dir={tmp_path / 'sweep'}"]
    with locked(tmp_path / "sweep"):
        code, said = command(arguments, capsys)
    assert_one_line(code, said)
    assert f"hydra.sweep.dir: {tmp_path / 'sweep'} is in use by process {os.getpid()} on " in said


@pytest.mark.fault("Locks", "two studies with one file of cells", "an error that names the first; no cell is lost")
@pytest.mark.parametrize("number", [1, 3])
def test_a_study(tmp_path: Path, number: int) -> None:
    path, cells = tmp_path / "cells.jsonl", [(cell,) for cell in range(number)]
    with locked_file(path), pytest.raises(FolderInUseError, match=rf"cells\.jsonl is in use by process {os.getpid()}"):
        measure_cells(["cell"], cells, lambda cell: {"twice": 2 * cell}, path=path)
    done = measure_cells(["cell"], cells, lambda cell: {"twice": 2 * cell}, path=path)
    assert [row["twice"] for row in done.values()] == [2 * cell for cell in range(number)]
    assert [one.name for one in tmp_path.iterdir()] == ["cells.jsonl"]


@pytest.mark.fault("Kills", "a study killed amid a line of its file", "the cell is measured again, the others stay")
@pytest.mark.parametrize("cut", [1, 5, 12, 20])
def test_a_torn_cell(tmp_path: Path, cut: int) -> None:
    path, cells = tmp_path / "cells.jsonl", [(cell,) for cell in range(3)]
    measure_cells(["cell"], cells, lambda cell: {"twice": 2 * cell}, path=path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])
    measured = []

    def measure(cell: int) -> dict[str, int]:
        measured.append(cell)
        return {"twice": 2 * cell}

    measure_cells(["cell"], cells, measure, path=path)
    assert measured == [2]
    assert path.read_bytes() == whole


@pytest.mark.fault("Locks", "a lock that its owner gives up", "no file of it stays, and one waiting gets it")
@pytest.mark.parametrize("number", [2, 8])
def test_given_up(tmp_path: Path, number: int) -> None:
    for _ in range(number):
        with locked(tmp_path / "run"):
            (tmp_path / "run" / "held").touch()
            with pytest.raises(FolderInUseError), locked(tmp_path / "run"):
                pass
        assert [path.name for path in (tmp_path / "run").iterdir()] == ["held"]


MANY = """
import sys, pathlib
from fedrobust.records.lock import FolderInUseError, locked
folder = pathlib.Path(sys.argv[1])
taken = 0
while taken < 200:
    try:
        with locked(folder):
            (folder / "inside").mkdir()
            (folder / "inside").rmdir()
            taken += 1
    except FolderInUseError:
        pass
"""


@pytest.mark.fault("Locks", "processes that take and give up one lock hundreds of times", "never two at a time")
def test_never_two(tmp_path: Path) -> None:
    """Each makes and removes the same folder while it holds the lock, which a second holder would stumble over."""
    (tmp_path / "stays").touch()
    processes = [subprocess.Popen([sys.executable, "-c", MANY, str(tmp_path)]) for _ in range(3)]
    assert [process.wait(timeout=120) for process in processes] == [0, 0, 0]
