"""Flower's simulation runtime on Ray: the same figures as in one process, whatever single clients do to it.

Starting Ray's actors takes longer than all rounds together, so one run has everything in it.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from fedrobust.config.component import FieldError
from fedrobust.engines import Local, Ray

# Ray leaves sockets and subprocesses to the collector, and forks threads that end after it was shut down.
pytestmark = [pytest.mark.ray, pytest.mark.filterwarnings("ignore::ResourceWarning")]

# Seconds that a loaded machine needs for a first round, in which every actor still imports.
RAISES_IN, HANGS_IN, SECONDS = 3, 4, 30


def misbehaving(inner: ClientApp) -> ClientApp:
    """Client 1 raises in one round, client 2 never answers in another; each has a node of its own."""
    app = ClientApp()

    @app.query()
    @app.train()
    def answer(message: Message, context: Context) -> Message:
        task = message.content.get("config", {"server-round": 0, "clients": []})
        if task["server-round"] == RAISES_IN and 1 in task["clients"]:
            raise OSError("no space left on device")
        if task["server-round"] == HANGS_IN and 2 in task["clients"]:
            time.sleep(3600)
        return inner(message, context)

    return app


@pytest.fixture(scope="module")
def on_ray(play):
    return play(Ray(num_cpus_per_node=1), "num_rounds=5", f"server.timeout={SECONDS}", wrap=misbehaving)


def test_rounds_are_those_of_the_local_engine(play, on_ray) -> None:
    """Of one process with a node for each client: the same computation, so equal up to the last bits."""
    local = play(Local(num_nodes=4), "num_rounds=5")
    for round_index in range(RAISES_IN - 1):
        row, expected = on_ray.rows[round_index], local.rows[round_index]
        for key in ("clean_accuracy", "attack_success_rate", "num_received"):
            assert row[key] == expected[key]
        torch.testing.assert_close(on_ray.vectors[round_index], local.vectors[round_index], rtol=1e-5, atol=1e-7)


def test_a_client_that_raises_is_rejected_and_the_others_count(on_ray) -> None:
    row = on_ray.rows[RAISES_IN - 1]
    assert row["clients"] == [0, 2, 3]
    (rejected,) = row["rejected"]
    assert rejected == {"client": 1, "reason": "failed: OSError: no space left on device"}


def test_a_client_that_never_answers_is_rejected_and_the_others_count(on_ray) -> None:
    row = on_ray.rows[HANGS_IN - 1]
    assert row["clients"] == [0, 1, 3]
    assert row["rejected"] == [{"client": 2, "reason": "did not answer"}]


def test_the_run_goes_on_and_ends(on_ray) -> None:
    """The actor of the client that hung restarts meanwhile, so somebody may be late."""
    assert [row["round"] for row in on_ray.rows] == [1, 2, 3, 4, 5]
    assert on_ray.rows[-1]["num_received"] >= 2


def test_without_ray_the_config_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(FieldError, match=r'needs Ray: pip install "fedrobust\[ray\]"'):
        Ray()


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["starting", "round 2/"])
def test_ctrl_c_ends_a_run_and_keeps_its_rounds(tmp_path: Path, moment: str) -> None:
    """A terminal sends SIGINT to the whole process group; 130 is what shells expect of a program that ends by it."""
    command = [sys.executable, "-m", "fedrobust", "engine=ray", "num_rounds=500", "num_clients=4", "verbose=false"]
    process = subprocess.Popen(
        [*command, f"hydra.run.dir={tmp_path}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    lines = []
    assert process.stdout is not None
    for line in process.stdout:
        lines.append(line)
        if moment in line:
            os.killpg(process.pid, signal.SIGINT)
            break
    rest, _ = process.communicate(timeout=60)
    text = "".join([*lines, rest])
    assert process.returncode == 130, text
    assert "Traceback" not in text
    num_rounds = len((tmp_path / "rounds.jsonl").read_text().splitlines()) - 1
    assert f"stopped after round {num_rounds}; go on with: fedrobust resume={tmp_path}" in text
    assert (tmp_path / "checkpoint.safetensors").exists()
