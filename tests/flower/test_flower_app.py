"""`flwr run` in the checkout, on a SuperLink of our own: the same figures as the local engine's."""

import json
import subprocess
from pathlib import Path

import pytest
from safetensors.torch import load_file
from torch.testing import assert_close

from fedrobust.config.compose import compose_overrides
from fedrobust.runs.run import run_config

ROOT = Path(__file__).parents[2]
OVERRIDES = "num_rounds=2 num_clients=4 engine.num_nodes=4 verbose=false device=cpu"


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
