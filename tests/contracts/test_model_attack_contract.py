"""What every attack on a model before or after training promises, over a table of all of them."""

import dataclasses
import inspect

import pytest
import torch
from attack_cases import make_dataset
from omegaconf import OmegaConf
from torch import Tensor

import fedrobust.attacks.deployed_model
import fedrobust.attacks.initial_model
from fedrobust.attacks import (
    BackdooredPretrained,
    BitFlipAttack,
    DeployedModelAttack,
    InitialModelAttack,
    OneBitBackdoor,
    Patch,
    Tampering,
    TargetedBitTrojan,
    WeightTamper,
)
from fedrobust.attacks.base import ReceivedModel
from fedrobust.attacks.deployed_model.quantisation import count_bit_flips
from fedrobust.config.building import config_folder
from fedrobust.evaluation.deployed import measure_tampering
from fedrobust.models import DBACNN, MLP
from fedrobust.parameters import ParameterLayout, clone_buffers
from fedrobust.seeds import seeded_initialisation

CASES: dict[str, DeployedModelAttack] = {
    "bfa": BitFlipAttack(num_flips=3, num_samples=16),
    "tbt": TargetedBitTrojan(
        target_label=1, trigger=Patch(), num_weights=4, num_samples=16, num_trigger_steps=5, num_weight_steps=5
    ),
    "tba": OneBitBackdoor(num_samples=16, num_iterations=30),
    "weight_tamper": WeightTamper(target_label=1, num_samples=16),
    "weight_tamper_descent": WeightTamper(
        method="gradient_descent", target_label=1, sample=0, num_samples=16, num_steps=20
    ),
}
MODELS = {"mlp": (MLP(hidden_sizes=[16]), (1, 8, 8)), "dba_cnn": (DBACNN(), (1, 28, 28))}


@pytest.fixture(params=CASES.values(), ids=CASES.keys())
def attack(request: pytest.FixtureRequest) -> DeployedModelAttack:
    return request.param


@pytest.fixture(params=MODELS)
def received(request: pytest.FixtureRequest) -> ReceivedModel:
    """A fresh model: what attacks promise does not depend on how good it is."""
    architecture, shape = MODELS[request.param]
    with seeded_initialisation(0, "model"):
        model = architecture.build(shape, 3)
    return ReceivedModel(model, ParameterLayout.of(model).flatten(model), clone_buffers(model), make_dataset(shape))


def tamper(attack: DeployedModelAttack, received: ReceivedModel, seed: int = 1) -> Tampering:
    return attack.tamper(received, torch.Generator().manual_seed(seed))


def tensors(tampering: Tampering) -> dict[str, Tensor]:
    pairs = (("released", tampering.released), ("deployed", tampering.deployed))
    return {f"{name}.{key}": values for name, one in pairs for key, values in one.parameters().items()}


def test_the_table_has_every_attack():
    found = {getattr(fedrobust.attacks.deployed_model, name) for name in fedrobust.attacks.deployed_model.__all__}
    components = {one for one in found if inspect.isclass(one) and hasattr(one, "tamper")} - {DeployedModelAttack}
    assert {type(case) for case in CASES.values()} == components
    assert all(isinstance(case, DeployedModelAttack) for case in CASES.values())
    assert fedrobust.attacks.initial_model.__all__ == ["BackdooredPretrained"]
    assert isinstance(BackdooredPretrained(), InitialModelAttack)


def test_what_is_received_is_not_written_to(attack, received):
    vector, train = received.vector.clone(), received.dataset.train
    inputs, labels = train.inputs.clone(), train.labels.clone()
    tamper(attack, received)
    assert torch.equal(received.vector, vector)
    assert torch.equal(train.inputs, inputs)
    assert torch.equal(train.labels, labels)
    assert all(parameter.grad is None and parameter.requires_grad for parameter in received.model.parameters())


def test_names_shapes_and_types_are_kept_and_the_model_before_is_its_own(attack, received):
    """The released model is the received one, as it is or rounded, but for TBA, which changes it within two rows."""
    tampering, layout = tamper(attack, received), ParameterLayout.of(received.model)
    original = layout.views(received.vector)
    for one in (tampering.released, tampering.deployed):
        values = one.parameters()
        assert {name: value.shape for name, value in values.items()} == dict(
            zip(layout.names, layout.shapes, strict=True)
        )
        assert all(value.dtype == torch.float32 and bool(value.isfinite().all()) for value in values.values())
        assert all(codes.dtype == torch.int8 for codes in one.codes.values())
    if not isinstance(attack, OneBitBackdoor):
        for name, value in tampering.released.parameters().items():
            step = tampering.released.steps.get(name, 0.0)
            torch.testing.assert_close(value, original[name], atol=step * 0.501, rtol=0)


def test_the_same_generator_gives_the_same_bytes_whatever_the_global_one_holds(attack, received):
    torch.manual_seed(1)
    first = tensors(tamper(attack, received))
    torch.manual_seed(2)
    second = tensors(tamper(attack, received))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_judgement_is_evaluations_and_has_all_figures(attack, received):
    tampering = tamper(attack, received)
    row = measure_tampering(received, tampering, torch.Generator().manual_seed(2))
    assert row["num_bit_flips"] == count_bit_flips(tampering.released, tampering.deployed)
    for name in ("released", "deployed"):
        assert 0 <= row[f"{name}_clean_accuracy"] <= 1
        rate = row[f"{name}_attack_success_rate"]
        assert (rate is None) == (tampering.target_label is None)
    assert (row["random_flips_clean_accuracy"] is None) == (not tampering.released.codes)


@pytest.mark.parametrize("name", ["bfa", "tbt", "tba", "weight_tamper", "pretrained_backdoor"])
def test_every_field_of_an_attack_stands_in_its_config(name):
    node = OmegaConf.load(config_folder() / "attack" / f"{name}.yaml")
    own = node["initial_model"] if "initial_model" in node else node["deployed_model"]
    kind = BackdooredPretrained if "initial_model" in node else type(CASES[name])
    assert own._target_ == f"fedrobust.attacks.{kind.__name__}"
    assert {key for key in own if key != "_target_"} == {one.name for one in dataclasses.fields(kind)}
    defaults = kind()
    for key, value in own.items():
        if isinstance(value, int | float | str | None) and key != "_target_":
            assert value == getattr(defaults, key), key
