"""`flwr run` in the checkout, on a SuperLink of our own: the same figures as the local engine's."""

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from safetensors.torch import load_file
from torch.testing import assert_close

from fedrobust.config.compose import compose_overrides
from fedrobust.runs.run import run_config

ROOT = Path(__file__).parents[2]
OVERRIDES = "num_rounds=2 num_clients=4 engine.num_nodes=4 verbose=false device=cpu"


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Flower's home is in `tmp_path`, and nothing is asked of or reported to the network."""
    settings = {"FLWR_HOME": str(tmp_path / "flower"), "FLWR_TELEMETRY_ENABLED": "0"}
    settings |= {"FLWR_DISABLE_UPDATE_CHECK": "1", "RAY_USAGE_STATS_ENABLED": "0"}
    return {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | settings


@pytest.fixture
def superlink(tmp_path: Path, environment: dict[str, str]) -> Iterator[Path]:
    """A SuperLink that simulates its SuperNodes, and Flower's config with a connection to it."""
    port = free_port()
    home = Path(environment["FLWR_HOME"])
    home.mkdir()
    (home / "config.toml").write_text(
        f'[superlink]\ndefault = "ours"\n\n[superlink.ours]\naddress = "127.0.0.1:{port}"\ninsecure = true\n'
    )
    command = ["flower-superlink", "--insecure", "--simulation", "--disable-runtime-dependency-installation"]
    log = tmp_path / "superlink.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [*command, "--port", str(port)],
            cwd=tmp_path,
            env=environment,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
        try:
            deadline = time.monotonic() + 60
            while socket.socket().connect_ex(("127.0.0.1", port)) != 0:
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.2)
            yield log
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(timeout=30)
            finally:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.filterwarnings("ignore::ResourceWarning")  # of the probing sockets
def test_flwr_run_gives_what_the_local_engine_gives(
    tmp_path: Path, environment: dict[str, str], superlink: Path
) -> None:
    folder = tmp_path / "run"
    command = ["flwr", "run", str(ROOT), "--stream", "--federation-config", "num-supernodes=4"]
    options = ["--run-config", f'overrides="{OVERRIDES}" folder="{folder}" num-nodes=4']
    done = subprocess.run([*command, *options], env=environment, capture_output=True, text=True, timeout=240)
    said = done.stdout + done.stderr + superlink.read_text()
    assert (folder / "summary.json").exists(), said
    values, choices = compose_overrides(OVERRIDES)
    expected = run_config(values, tmp_path / "local", choices)
    summary = json.loads((folder / "summary.json").read_text())
    for key in ("clean_accuracy", "clean_loss", "attack_success_rate", "num_rounds"):
        assert summary[key] == pytest.approx(expected[key], rel=1e-5), key
    received, trained = (load_file(path / "model.safetensors") for path in (folder, tmp_path / "local"))
    assert received.keys() == trained.keys()
    for name in trained:
        assert_close(received[name], trained[name], rtol=1e-5, atol=1e-7)
    assert "round 2/2" in said
