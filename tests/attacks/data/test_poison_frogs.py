"""Poison Frogs: which examples become poisons, what is asked of the model, and when the target is blended in."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from fedrobust.attacks import BadNets, Coalition, Patch, PoisonFrogs
from fedrobust.attacks.base import ReceivedModel
from fedrobust.attacks.data.feature_collision import feature_collision
from fedrobust.config.component import FieldError
from fedrobust.data.datasets import Dataset, Examples
from fedrobust.data.scalers import Scaler
from fedrobust.models import MLP
from fedrobust.models.features import FeatureExtractor
from fedrobust.parameters import ParameterLayout
from fedrobust.seeds import seeded_initialisation, torch_generator


def pictures(number: int, seed: int) -> Examples:
    inputs = torch.rand(number, 1, 4, 4, generator=torch_generator(seed, "test"))
    return Examples(inputs, torch.arange(number) % 3)


@pytest.fixture
def received() -> ReceivedModel:
    with seeded_initialisation(0, "test"):
        model = MLP(hidden_sizes=(24,)).build((1, 4, 4), 3)
    vector = torch.randn(ParameterLayout.of(model).num_parameters, generator=torch_generator(3, "test"))
    train, test = pictures(30, 0), pictures(12, 1)
    one = torch.ones(1, 1, 1)
    return ReceivedModel(model, vector, {}, Dataset("fake", train, test, 3, "image", 0.3 * one, 0.5 * one))


def changed(received: ReceivedModel, poisoned: Examples) -> Tensor:
    return (poisoned.inputs != received.dataset.train.inputs).flatten(1).any(dim=1)


def test_so_many_of_the_bases_change_and_no_label_does(received):
    train = received.dataset.train
    before = train.inputs.clone()
    attack = PoisonFrogs(target_label=2, source_label=0, num_poisons=4, num_steps=3).with_model(received)
    poisoned = attack.poison(train, 0, torch_generator(0, "poison"))
    assert int(changed(received, poisoned).sum()) == 4
    assert set(poisoned.labels[changed(received, poisoned)].tolist()) == {2}
    assert torch.equal(poisoned.labels, train.labels)
    assert torch.equal(train.inputs, before)
    every = PoisonFrogs(target_label=2, source_label=0, num_poisons=99, num_steps=3).with_model(received)
    assert int(changed(received, every.poison(train, 0, torch_generator(0, "poison"))).sum()) == 10


def test_the_target_is_blended_in_before_the_collision(received):
    """Against the blend written out and then optimised, on features of the received vector and normalised inputs.

    With an opacity the poisons also look more like the target than the same ones without.
    """
    train, test = received.dataset.train, received.dataset.test
    layout = ParameterLayout.of(received.model)
    received.model.load_state_dict(layout.views(received.vector))
    extractor = FeatureExtractor(received.model)
    target = test.inputs[torch.tensor([3 * 2 + 1])]  # the third of class 1
    attack = PoisonFrogs(
        target_label=0, source_label=1, target_instances=[2], num_poisons=99, opacity=0.25, beta=0.05, num_steps=15
    )
    poisoned = attack.with_model(received).poison(train, 0, torch_generator(0, "poison"))
    bases = 0.25 * target + 0.75 * train.inputs[train.labels == 0]
    expected = feature_collision(
        lambda inputs: extractor((inputs - 0.3) / 0.5), target, bases, beta=0.05, num_steps=15
    ).poisons
    torch.testing.assert_close(poisoned.inputs[train.labels == 0], expected, atol=1e-5, rtol=0)


def test_poisons_go_round_the_target_instances(received):
    """A tiny β makes 64 features of 16 pixels collide only near the target itself: each target gets half of them."""
    train, test = received.dataset.train, received.dataset.test
    attack = PoisonFrogs(
        target_label=0, source_label=1, target_instances=[0, 3], num_poisons=6, opacity=0.9, beta=1e-6, num_steps=50
    )
    poisoned = attack.with_model(received).poison(train, 0, torch_generator(0, "poison"))
    poisons = poisoned.inputs[changed(received, poisoned)].flatten(1)
    nearest = torch.cdist(poisons, test.inputs.flatten(1)).argmin(dim=1)
    assert sorted(nearest.tolist()) == [1, 1, 1, 10, 10, 10]


def test_success_is_asked_of_the_target_instances_alone():
    """Classes 0, 1, 2 in turn: the first and the third example of class 1 stand at 1 and 7."""
    test = pictures(12, 1)
    wanted = PoisonFrogs(target_label=2, source_label=1, target_instances=[0, 2]).wanted_labels(test)
    assert wanted.tolist() == [0, 2, 2, 0, 1, 2, 0, 2, 2, 0, 1, 2]
    assert PoisonFrogs().local_triggers((1, 4, 4)) == ()


def test_an_attacker_without_bases_trains_on_what_it_has(received):
    own = Examples(received.dataset.train.inputs[:4], torch.ones(4, dtype=torch.int64))
    assert PoisonFrogs().with_model(received).poison(own, 0, torch_generator(0, "poison")) is own


def test_a_coalition_hands_the_model_on(received):
    frogs = PoisonFrogs(target_label=2, source_label=0, num_poisons=4, num_steps=3)
    coalition = Coalition(members=[BadNets(trigger=Patch(), target_label=1, poison_rate=0.5), frogs])
    one = coalition.with_model(received).poison(received.dataset.train, 1, torch_generator(0, "poison"))
    other = frogs.with_model(received).poison(received.dataset.train, 0, torch_generator(0, "poison"))
    assert torch.equal(one.inputs, other.inputs)


def test_it_needs_a_model(received):
    with pytest.raises(ValueError, match="crafts its poisons on a model"):
        PoisonFrogs().poison(received.dataset.train, 0, torch_generator(0, "poison"))


def test_the_received_model_is_a_copy(received):
    """The module has the received parameters; the model that it was made from keeps its own."""
    before = ParameterLayout.of(received.model).flatten(received.model)
    module = received.module()
    assert torch.equal(ParameterLayout.of(received.model).flatten(module), received.vector)
    assert torch.equal(ParameterLayout.of(received.model).flatten(received.model), before)
    assert not module.training


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"source_label": 0}, "source_label: must differ from target_label, got 0 for both"),
        ({"target_instances": []}, "target_instances: must list different test examples, at least one"),
        ({"target_instances": [1, 1]}, "target_instances: must list different test examples, at least one"),
        ({"opacity": 1.0}, "opacity: must be less than 1"),
        ({"solver": "newton"}, "solver: must be 'forward_backward' or 'adam'"),
    ],
)
def test_what_cannot_be_is_refused(fields, text):
    with pytest.raises(FieldError, match=text):
        PoisonFrogs(**fields)


def test_a_target_instance_must_be_there():
    with pytest.raises(FieldError, match=r"must be below 4, the test examples of class 1, got 4"):
        PoisonFrogs(target_instances=[4]).wanted_labels(pictures(12, 1))


def test_a_scaler_without_gradients_is_refused_before_training(received):
    """Crafting would fail on every client in every round."""
    scaled = replace(received.dataset, scaler=Scaler("pillow_bilinear", (2, 2)))
    with pytest.raises(FieldError, match="target_instances: is made with gradients, which pillow_bilinear has none of"):
        PoisonFrogs().bind(scaled, torch_generator(0, "test"))
    attack = PoisonFrogs()
    assert attack.bind(received.dataset, torch_generator(0, "test")) is attack
