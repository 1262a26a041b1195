"""A backdoored pretrained model in whole runs: what fine-tuning leaves of it, and what the records say."""

import json
import statistics
from pathlib import Path

import pytest

from fedrobust.compose import compose_config
from fedrobust.engines import Local
from fedrobust.flower.apps import make_client_app, make_server_app
from fedrobust.round import Row, evaluate_model
from fedrobust.run import run_config
from fedrobust.scenario import build_scenario, prepare

SEEDS = range(5)
PRETRAINED = ["attack=pretrained_backdoor", "aggregator=mean", "num_clients=10", "verbose=false"]
DIGITS = [
    *PRETRAINED,
    "attack.data.trigger.pixels=[[-1,-1],[-1,-2],[-2,-1]]",
    "attack.initial_model.training.learning_rate=0.1",
    *["client.learning_rate=0.2", "num_rounds=10", "evaluate_every=10"],
]
NEW_HEAD = ["attack.initial_model.new_head=true", "client.trained_layers=head"]


def first_and_last(*overrides: str) -> tuple[Row, Row]:
    """The evaluation of the pretrained model, and that of the fine-tuned one."""
    prepared = prepare(build_scenario(compose_config([*DIGITS, *overrides])[0]))
    first, rows = evaluate_model(prepared.federation), list[Row]()
    Local().run(make_server_app(prepared.federation, rows.append), make_client_app(lambda _: prepared.population), 10)
    return first, rows[-1]


@pytest.mark.parametrize(("fine_tuning", "reported"), [([], 0.56), (NEW_HEAD, 0.80)], ids=["all layers", "new head"])
def test_the_backdoor_survives_fine_tuning(fine_tuning, reported):
    """Success 0.998 after pretraining, 0.56 after all layers are fine-tuned, 0.80 with a new head.

    These were measured once, with an implementation that is not this one, on the same digits, network and trigger
    (three corner pixels, 5 % poisoned); how long and with what steps it fine-tuned is not known. Here clients take
    twice the provider's learning rate for 10 rounds. The mean of five seeds must lie within 0.15 of the one figure:
    single seeds spread by 0.2 for all layers. With smaller steps more survives, with larger ones nothing does:
    experiments/pretrained. The control is the same clean provider's model, which may not reach 0.05.
    """
    rates = []
    for seed in SEEDS:
        first, last = first_and_last(f"seed={seed}", *fine_tuning)
        assert last["clean_accuracy"] >= 0.93
        if not fine_tuning:
            assert first["attack_success_rate"] >= 0.95
            assert first["clean_accuracy"] >= 0.93
        rates.append(last["attack_success_rate"])
    assert min(rates) >= 0.1
    assert abs(statistics.mean(rates) - reported) <= 0.15
    for seed in SEEDS[:1]:
        _, last = first_and_last(f"seed={seed}", "attack.initial_model.malicious=false", *fine_tuning)
        assert last["attack_success_rate"] <= 0.05


SHORT = [
    *PRETRAINED,
    "num_clients=4",
    "num_rounds=4",
    "checkpoint_every=2",
    "attack.initial_model.training.num_epochs=3",
]


def test_the_records_tell_the_pretrained_model_from_its_control(tmp_path: Path):
    """The first evaluation is no control where the model was attacked before it; a clean provider's run is."""
    values, choices = compose_config([*SHORT, "control=true"])
    summary = run_config(values, tmp_path / "run", choices)
    rows = [json.loads(line) for line in (tmp_path / "run" / "rounds.jsonl").read_text().splitlines()]
    control = [json.loads(line) for line in (tmp_path / "run" / "control" / "rounds.jsonl").read_text().splitlines()]
    assert summary["initial_attack_success_rate"] == rows[0]["attack_success_rate"] >= 0.3
    assert summary["control"] == "benign_twin"
    assert summary["control_attack_success_rate"] == control[-1]["attack_success_rate"] <= 0.05
    alone = run_config({**values, "control": False}, tmp_path / "alone", choices)
    assert alone["control"] is alone["control_attack_success_rate"] is None
    assert (tmp_path / "alone" / "plots" / "examples.png").exists()


def test_a_resumed_run_ends_with_the_same_bytes(tmp_path: Path):
    """Two rounds and two more: the model is pretrained again, and the checkpoint's takes its place."""
    values, choices = compose_config(SHORT)
    run_config(values, tmp_path / "whole", choices)
    run_config({**values, "num_rounds": 2}, tmp_path / "parts", choices)
    run_config(values, tmp_path / "parts", choices, resume=True)
    whole, parts = (tmp_path / name / "model.safetensors" for name in ("whole", "parts"))
    assert whole.read_bytes() == parts.read_bytes()
