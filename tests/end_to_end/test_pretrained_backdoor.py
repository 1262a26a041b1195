"""A backdoored pretrained model in whole runs: what fine-tuning leaves of it, and what the records say."""

import copy
import json
import statistics
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from fedrobust.attacks import BadNets, Pixels
from fedrobust.config.compose import compose_config
from fedrobust.data.datasets import Digits, Examples
from fedrobust.engines import Local
from fedrobust.evaluation.attack_success import measure_attack_success
from fedrobust.federation.round import Row, evaluate_model
from fedrobust.flower.apps import make_client_app, make_server_app
from fedrobust.models import MLP
from fedrobust.runs.run import run_config
from fedrobust.scenario import build_scenario, prepare
from fedrobust.seeds import seeded_initialisation, torch_generator

SEEDS = range(5)
PRETRAINED = ["attack=pretrained_backdoor", "aggregator=mean", "num_clients=10", "verbose=false", "plot_formats=[]"]
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


@pytest.mark.parametrize(
    ("fine_tuning", "reported"),
    [pytest.param([], 0.56, id="all layers", marks=pytest.mark.slow), pytest.param(NEW_HEAD, 0.80, id="new head")],
)
def test_the_backdoor_survives_fine_tuning(fine_tuning, reported):
    """Success 0.998 after pretraining, 0.56 after all layers are fine-tuned, 0.80 with a new head.

    These were measured once, with an implementation that is not this one, on the same digits, network and trigger
    (three corner pixels, 5 % poisoned); how long and with what steps it fine-tuned is not known. The test below plays
    one user with Adam; here ten clients fine-tune by SGD for 10 rounds, and what is left depends on their steps. Their
    learning rate was varied (experiments/pretrained, five seeds; the provider's is 0.1): at 0.05, 0.1, 0.2 and 0.3, 93,
    89, 46 and 3 % are left by all layers, 68, 70, 72 and 71 % by a new head. At 0.2 alone both lie within 0.15 of the
    figures, and 0.2 is what is held here: the mean of five seeds, since single ones spread by 0.26 for all layers. The
    control is the same clean provider's model, which may not reach 0.05.
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


def train(parameters: Iterable[nn.Parameter], model: nn.Module, examples: Examples, seed: int) -> None:
    """30 epochs of Adam, batches of 32."""
    optimiser = torch.optim.Adam(parameters, lr=0.001)
    draws = torch_generator(seed, "batches")
    for _ in range(30):
        for batch in torch.randperm(len(examples), generator=draws).split(32):
            optimiser.zero_grad()
            nn.functional.cross_entropy(model(examples.inputs[batch]), examples.labels[batch]).backward()
            optimiser.step()


def one_user(seed: int, *, malicious: bool = True) -> dict[str, tuple[float, float]]:
    """Attack success and clean accuracy before fine-tuning, and after that of all layers or of a new head."""
    dataset = Digits().load(None, torch.device("cpu"))
    attack = BadNets(trigger=Pixels(pixels=[[-1, -1], [-1, -2], [-2, -1]]), poison_rate=0.05)
    own = attack.poison(dataset.train, 0, torch_generator(seed, "poison")) if malicious else dataset.train
    with seeded_initialisation(seed, "models"):
        pretrained, fresh = (MLP().build(dataset.input_shape, dataset.num_classes) for _ in range(2))
    train(pretrained.parameters(), pretrained, own, seed)
    tuned, headed = copy.deepcopy(pretrained), copy.deepcopy(pretrained)
    train(tuned.parameters(), tuned, dataset.train, seed)
    headed[-1] = fresh[-1]
    train(headed[-1].parameters(), headed, dataset.train, seed)
    found = {}
    for name, model in {"pretrained": pretrained, "all layers": tuned, "new head": headed}.items():
        with torch.no_grad():
            success = measure_attack_success(SimpleNamespace(logits=model), attack, dataset.test).global_trigger
            right = model(dataset.test.inputs).argmax(dim=1) == dataset.test.labels
        found[name] = success, float(right.double().mean())
    return found


@pytest.mark.slow
def test_the_backdoor_survives_one_users_adam():
    """The figures above, 0.56 and 0.80, where provider and user train alike: 30 epochs of Adam, on all training digits.

    The model sees pixels in [0, 1], which a federation's clients would normalise. One of five settings that were
    written down before any was run; experiments/pretrained lists what all five leave, with normalised pixels, too. The
    mean of three seeds must lie within 0.15; the control is a clean provider's model.
    """
    runs = [one_user(seed) for seed in range(3)]
    for run in runs:
        assert run["pretrained"][0] >= 0.95
        assert min(accuracy for _, accuracy in run.values()) >= 0.93
    for name, reported in (("all layers", 0.56), ("new head", 0.80)):
        assert abs(statistics.mean(run[name][0] for run in runs) - reported) <= 0.15
    assert max(success for success, _ in one_user(0, malicious=False).values()) <= 0.05


SHORT = [
    *PRETRAINED,
    "num_clients=4",
    "num_rounds=4",
    "checkpoint_every=2",
    "attack.initial_model.training.num_epochs=3",
]


def test_the_records_tell_the_pretrained_model_from_its_control(tmp_path: Path):
    """The first evaluation is no control where the model was attacked before it; a clean provider's run is."""
    values, choices = compose_config([*SHORT, "control=true", "plot_formats=[png]"])
    summary = run_config(values, tmp_path / "run", choices)
    rows = [json.loads(line) for line in (tmp_path / "run" / "rounds.jsonl").read_text().splitlines()]
    control = [json.loads(line) for line in (tmp_path / "run" / "control" / "rounds.jsonl").read_text().splitlines()]
    assert summary["initial_attack_success_rate"] == rows[0]["attack_success_rate"] >= 0.3
    assert summary["control"] == "benign_twin"
    assert summary["control_attack_success_rate"] == control[-1]["attack_success_rate"] <= 0.05
    alone = run_config({**values, "control": False}, tmp_path / "alone", choices)
    assert not [name for name in alone if "control" in name]
    assert alone["first_attack_round"] == 0
    evaluated = [row["attack_success_rate"] for row in rows]
    assert alone["max_attack_success_rate"] == max(evaluated)
    assert (tmp_path / "alone" / "plots" / "examples.png").exists()


def test_a_resumed_run_ends_with_the_same_bytes(tmp_path: Path):
    """Two rounds and two more: the model is pretrained again, and the checkpoint's takes its place."""
    values, choices = compose_config(SHORT)
    run_config(values, tmp_path / "whole", choices)
    run_config({**values, "num_rounds": 2}, tmp_path / "parts", choices)
    run_config(values, tmp_path / "parts", choices, resume=True)
    whole, parts = (tmp_path / name / "model.safetensors" for name in ("whole", "parts"))
    assert whole.read_bytes() == parts.read_bytes()
