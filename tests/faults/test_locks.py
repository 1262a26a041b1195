import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from folders import SCENARIO, assert_one_line, assert_same_run, command

from fedrobust.records.lock import FolderInUseError, free_folder, locked

GoingOn = Callable[..., tuple[int, str]]
HOLD = (
    "import signal, sys, time, pathlib\n"
    "for number in (signal.SIGHUP, signal.SIGINT):\n"
    "    signal.signal(number, signal.SIG_DFL)\n"  # which a shell may have had ignored
    "from fedrobust.records.lock import locked\n"
    "with locked(pathlib.Path(sys.argv[1])):\n"
    "    print('held', flush=True)\n"
    "    time.sleep(600)\n"
)


@pytest.fixture
def other_process(half: Path) -> Iterator["subprocess.Popen[str]"]:
    """Another process, which writes into `half`."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(half)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


@pytest.mark.fault(
    "Locks", "a second process in the folder of a run", "one line that names the first; the run is untouched"
)
@pytest.mark.parametrize("arguments", [(), ("from=0",), ("from=1",), ("accept_changes=true",)])
def test_a_second_resume(
    half: Path, whole: Path, other_process: "subprocess.Popen[str]", going_on: GoingOn, arguments: tuple[str, ...]
) -> None:
    before = {path.name: path.read_bytes() for path in half.iterdir() if path.is_file()}
    code, said = going_on(half, *arguments)
    assert_one_line(code, said)
    assert f"resume: {half} is in use by process {other_process.pid} on " in said
    assert {path.name: path.read_bytes() for path in half.iterdir() if path.is_file()} == before
    other_process.kill()
    other_process.wait()
    code, said = going_on(half)  # the lock has died with its owner
    assert code == 0, said
    assert_same_run(half, whole)


@pytest.mark.fault("Locks", "a new run in a folder that another process prepares", "one line that names the first")
def test_a_second_run(tmp_path: Path, whole: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    with locked(folder):
        code, said = command([*SCENARIO, f"hydra.run.dir={folder}"], capsys)
    assert_one_line(code, said)
    assert f"hydra.run.dir: {folder} is in use by process {os.getpid()} on " in said
    assert command([*SCENARIO, f"hydra.run.dir={folder}"], capsys)[0] == 0


@pytest.mark.fault("Locks", "the owner of a lock killed", "the next process takes it at once")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_lock_dies_with_its_owner(
    half: Path, whole: Path, other_process: "subprocess.Popen[str]", number: signal.Signals
) -> None:
    with pytest.raises(FolderInUseError), locked(half):
        pass
    other_process.send_signal(number)
    other_process.wait()
    with locked(half):
        pass


def test_a_lock_follows_no_link(tmp_path: Path) -> None:
    victim = tmp_path / "victim.txt"
    victim.write_text("mine")
    (tmp_path / ".lock").symlink_to(victim)
    with pytest.raises(OSError, match=r"Too many levels of symbolic links|\.lock"), locked(tmp_path):
        pass
    assert victim.read_text() == "mine"


@pytest.mark.fault("Locks", "runs that start in the same second", "each has a folder of its own")
@pytest.mark.parametrize("number", [2, 5, 20])
def test_folders_are_claimed(tmp_path: Path, number: int) -> None:
    wanted = tmp_path / "2026-01-31" / "12-00-00"
    with ThreadPoolExecutor(number) as pool:
        found = list(pool.map(lambda _: free_folder(wanted), range(number)))
    assert len(set(found)) == number
    assert wanted in found
    assert all(folder.is_dir() for folder in found)


class StoppedClock(datetime):
    @classmethod
    def now(cls, tz: Any = None) -> "StoppedClock":
        return cls(1970, 1, 1)


@pytest.mark.fault("Locks", "two commands in the same second", "each has a folder of its own")
@pytest.mark.parametrize("mode", [(), ("-m",)])
def test_two_commands_in_one_second(
    tmp_path: Path,
    whole: Path,
    mode: tuple[str, ...],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    key = "sweep" if mode else "run"
    short = [one for one in SCENARIO if not one.startswith("num_rounds")] + ["num_rounds=1"]
    monkeypatch.setattr("hydra.core.utils.datetime", StoppedClock)
    for seed in (0, 1):
        code, said = command([*mode, *short, f"seed={seed}"], capsys)
        assert code == 0, said
    base = tmp_path / ("multirun" if key == "sweep" else "outputs") / "1970-01-01"
    assert sorted(path.name for path in base.iterdir()) == ["00-00-00", "00-00-00_2"]
    for seed, name in enumerate(("00-00-00", "00-00-00_2")):
        folder = base / name / "0" if mode else base / name
        assert f"seed: {seed}\n" in (folder / "config.yaml").read_text()
