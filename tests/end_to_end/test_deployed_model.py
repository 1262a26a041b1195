"""Tampering after training, in whole runs: what is kept, what is judged, and that training knows nothing of it."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from fedrobust.config.compose import compose_config
from fedrobust.runs.run import run_config

SHORT = ["aggregator=mean", "num_clients=4", "num_rounds=2", "verbose=false", "plot_formats=[]", "dataset.num_test=200"]
ATTACKS = {
    "bfa": ["attack.deployed_model.num_flips=5"],
    "tbt": [],
    "tba": ["attack.deployed_model.num_iterations=200"],
    "weight_tamper": [],
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_run_keeps_the_model_before_and_after(attack, tmp_path: Path):
    """The trained model has the bytes of a run that nobody tampers with; figures are those of the files."""
    values, choices = compose_config([*SHORT, f"attack={attack}", *ATTACKS[attack]])
    summary = run_config(values, tmp_path / "run", choices)
    benign, choices = compose_config([*SHORT, "attack=none"])
    run_config(benign, tmp_path / "benign", choices)
    files = [tmp_path / "run" / f"{name}.safetensors" for name in ("model", "released_model", "deployed_model")]
    assert files[0].read_bytes() == (tmp_path / "benign" / "model.safetensors").read_bytes()
    assert not (tmp_path / "benign" / "deployed_model.safetensors").exists()
    trained, released, deployed = (load_file(path) for path in files)
    assert sorted(trained) == sorted(released) == sorted(deployed)
    changed = sum(int((released[name] != deployed[name]).sum()) for name in released)
    assert changed == summary["num_changed_weights"]
    assert all(torch.equal(trained[name], released[name]) for name in trained if name.endswith("bias"))
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["num_bit_flips"] == summary["num_bit_flips"]
    if attack == "bfa":
        assert (summary["num_bit_flips"], summary["num_bits"]) == (5, 136_192)
        assert summary["deployed_attack_success_rate"] is None
        assert summary["random_flips_clean_accuracy"] >= summary["deployed_clean_accuracy"]
    if attack == "weight_tamper":
        assert summary["num_changed_weights"] == 1
        assert summary["random_flips_clean_accuracy"] is None
        assert summary["deployed_attack_success_rate"] >= 0.99 > summary["released_attack_success_rate"]
    if attack == "tba":
        assert summary["deployed_attack_success_rate"] in (0.0, 1.0)
        assert summary["released_attack_success_rate"] == 0.0


def test_a_resumed_run_is_tampered_with_in_the_same_way(tmp_path: Path):
    values, choices = compose_config([*SHORT, "attack=bfa", "attack.deployed_model.num_flips=3"])
    run_config(values, tmp_path / "whole", choices)
    run_config({**values, "num_rounds": 1}, tmp_path / "parts", choices)
    run_config(values, tmp_path / "parts", choices, resume=True)
    whole, parts = (tmp_path / name / "deployed_model.safetensors" for name in ("whole", "parts"))
    assert whole.read_bytes() == parts.read_bytes()
