"""A terminal that is closed while a run shows its progress there."""

import contextlib
import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from folders import SCENARIO, assert_same_run

SLOW = (
    "import time, fedrobust.clients.population as p; train = p.Population.train\n"
    "def slowly(*a, **k):\n    time.sleep(0.4); return train(*a, **k)\n"
    "p.Population.train = slowly\n"
    "import fedrobust.runs.run as r\n"
    "for name in ('plot_run', 'plot_partition', 'plot_examples'): setattr(r, name, lambda *a, **k: None)\n"
    "from fedrobust.commands.cli import main; main()"
)


@pytest.mark.slow
@pytest.mark.fault(
    "Kills",
    "a closed terminal (SIGHUP, nothing can be shown)",
    "checkpoint, exit code 130, the same bytes",
)
@pytest.mark.parametrize("verbose", ["true", "false"])
@pytest.mark.parametrize("sends", [True, False])
def test_a_closed_terminal(
    tmp_path: Path, whole: Path, going_on: Callable[..., tuple[int, str]], verbose: str, sends: bool
) -> None:
    """With `sends`, the signal comes as from a shell; without, the system sends it to who owns the terminal."""
    folder = tmp_path / "run"
    ours, theirs = pty.openpty()
    short = [one for one in SCENARIO if not one.startswith(("verbose", "checkpoint_every"))]
    arguments = [*short, f"verbose={verbose}", "checkpoint_every=3", f"hydra.run.dir={folder}"]
    process = subprocess.Popen(
        [sys.executable, "-c", f"import fcntl, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0)\n{SLOW}", *arguments],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    os.set_blocking(ours, False)
    deadline = time.monotonic() + 120
    rounds = folder / "rounds.jsonl"
    while not rounds.exists() or len(rounds.read_bytes().splitlines()) < 3:
        with contextlib.suppress(BlockingIOError, OSError):
            os.read(ours, 65536)
        assert process.poll() is None, "the run ended before its terminal was closed"
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.close(ours)
    if sends:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGHUP)
    assert process.wait(timeout=60) == 130
    kept = [json.loads(line)["round"] for line in rounds.read_bytes().splitlines()]
    assert (folder / "checkpoint.safetensors").exists()
    assert not (folder / "failure.json").exists()
    assert kept[-1] >= 2
    code, said = going_on(folder)
    assert code == 0, said
    assert_same_run(folder, whole)
