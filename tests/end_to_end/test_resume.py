"""A run that is killed or stopped goes on as if nothing had happened: byte for byte the same model."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fedrobust.config.compose import compose_config
from fedrobust.runs.run import run_config

SCENARIO = [
    *[
        "num_clients=8",
        "num_rounds=12",
        "attack.num_malicious=2",
        "checkpoint_every=3",
        "verbose=false",
        "plot_formats=[]",
    ],
    # Each of the four remembers something that a checkpoint must hold.
    *["preaggregator=[client_momentum]", "aggregator=centred_clipping", "server_optimizer=momentum"],
    *["audit=update_clustering", "audit.action=exclude_clients", "audit.reputation.min_rounds=4"],
]


def finished(folder: Path, *, resume: bool = False) -> dict[str, object]:
    """Play the run in `folder`, or what is left of it, in this process; the config is that of the command."""
    values, choices = compose_config(SCENARIO)
    run_config(values, folder, choices, resume=resume)
    summary: dict[str, object] = json.loads((folder / "summary.json").read_text())
    return summary


def rounds(folder: Path) -> list[dict[str, object]]:
    path = folder / "rounds.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return [json.loads(line) for line in lines]


def figures(folder: Path) -> list[dict[str, object]]:
    """All that rounds record but for wall time."""
    return [{key: value for key, value in row.items() if not key.startswith("seconds")} for row in rounds(folder)]


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """The run that is never stopped."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    finished(folder)
    return folder


def start(folder: Path) -> "subprocess.Popen[bytes]":
    """Start the same run, slowed down so that it can be caught in the middle, and wait for its fifth round."""
    slow = (
        # A shell without job control starts background jobs, and so these tests, with SIGINT ignored.
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "import time, fedrobust.clients.population as p; train = p.Population.train\n"
        "def slowly(*a, **k):\n    time.sleep(0.2); return train(*a, **k)\n"
        "p.Population.train = slowly\n"
        "from fedrobust.commands.cli import main; main()"
    )
    arguments = [*SCENARIO, "plot_formats=[png]", f"hydra.run.dir={folder}"]
    process = subprocess.Popen(
        [sys.executable, "-c", slow, *arguments],
        cwd=folder.parent,
        env={**os.environ, "OMP_NUM_THREADS": "1"},  # as these tests
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 120
    while len((folder / "rounds.jsonl").read_text().splitlines() if (folder / "rounds.jsonl").exists() else []) < 6:
        assert process.poll() is None, "the run ended before it could be caught"
        assert time.monotonic() < deadline, "the run did not get to its fifth round"
        time.sleep(0.05)
    return process


def test_kill_9_then_resume_gives_the_same_bytes(whole, tmp_path):
    folder = tmp_path / "run"
    process = start(folder)
    process.kill()
    assert process.wait(timeout=30) == -signal.SIGKILL
    assert not (folder / "summary.json").exists()
    with (folder / "rounds.jsonl").open("a") as file:
        file.write('{"round": 6, "clean_acc')  # as a kill in the middle of a write leaves it
    summary = finished(folder, resume=True)
    assert summary["num_rounds"] == 12
    assert (folder / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    assert figures(folder) == figures(whole)


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_an_interrupt_keeps_what_was_computed(whole, tmp_path, number):
    folder = tmp_path / "run"
    process = start(folder)
    os.kill(process.pid, number)
    assert process.wait(timeout=60) == 130
    kept = rounds(folder)
    assert 5 <= int(str(kept[-1]["round"])) < 12
    assert (folder / "model.safetensors").exists()
    assert (folder / "plots" / "accuracy.png").exists()
    finished(folder, resume=True)
    assert (folder / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    assert figures(folder) == figures(whole)


def test_resuming_a_finished_run_changes_nothing_and_more_rounds_go_on(whole, tmp_path):
    """Twelve rounds, then three more, are the fifteen rounds of one run."""
    values, choices = compose_config(SCENARIO)
    before = (whole / "model.safetensors").read_bytes()
    run_config(values, whole, choices, resume=True)
    assert (whole / "model.safetensors").read_bytes() == before
    longer = {**values, "num_rounds": 15}
    run_config(longer, tmp_path / "long", choices)
    run_config(values, tmp_path / "short", choices)
    assert run_config(longer, tmp_path / "short", choices, resume=True)["num_rounds"] == 15
    assert (tmp_path / "short" / "model.safetensors").read_bytes() == (
        tmp_path / "long" / "model.safetensors"
    ).read_bytes()
