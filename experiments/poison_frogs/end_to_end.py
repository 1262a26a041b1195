"""End-to-end training: the victim trains all layers on, from the model that the poisons were crafted on."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fedrobust.attacks import PoisonFrogs
from fedrobust.attacks.base import ReceivedModel
from fedrobust.attacks.data.feature_collision import blend
from fedrobust.data.datasets import Dataset, Digits, Examples
from fedrobust.models import MLP
from fedrobust.parameters import ParameterLayout
from fedrobust.seeds import seeded_initialisation, torch_generator
from fedrobust.training.local_training import LocalTraining
from fedrobust.training.victims import train_model

BETA = 1e-2
FROM_SCRATCH = LocalTraining(learning_rate=0.1, num_epochs=30)
TRAINED_ON = LocalTraining(learning_rate=0.1, num_epochs=10)


@dataclass(frozen=True)
class Victim:
    """A clean model of the digits, and what is attacked.

    Attributes:
        data: the digits.
        model: trained on clean examples.
        attacks: per attack, the target's class, the base's, and which test example of its class the target is.
        seed: of all of it.
    """

    data: Dataset
    model: nn.Module
    attacks: list[tuple[int, int, int]]
    seed: int

    @property
    def received(self) -> ReceivedModel:
        """The clean model, as an attacker has it."""
        return ReceivedModel(self.model, ParameterLayout.of(self.model).flatten(self.model), {}, self.data)


def clean_victim(seed: int, num_targets: int) -> Victim:
    """Train the clean model, and draw pairs of classes and target instances that it is right about."""
    data = Digits().load(None, torch.device("cpu"))
    with seeded_initialisation(seed, "victim"):
        model = MLP().build(data.input_shape, data.num_classes)
    model = train_model(model, data, data.train, FROM_SCRATCH, seed).requires_grad_(True)  # clients train on
    is_right = answers(model, data, data.test.inputs) == data.test.labels
    generator, attacks = torch_generator(seed, "targets"), []
    while len(attacks) < num_targets:
        target, base = torch.randperm(10, generator=generator)[:2].tolist()
        right = is_right[data.test.labels == target].nonzero().squeeze(1)
        attacks.append((target, base, int(right[torch.randint(len(right), (), generator=generator)])))
    return Victim(data, model, attacks, seed)


def answers(model: nn.Module, data: Dataset, inputs: Tensor) -> Tensor:
    """The classes `(N,)` that a model gives raw inputs."""
    return model(data.normalise(inputs)).argmax(dim=1)  # type: ignore[no-any-return]


def poisoned_set(victim: Victim, index: int, num_poisons: int, opacity: float, collide: bool) -> Examples:
    """The training set with poisons in the place of their bases; without `collide` they are blended alone."""
    target, base, instance = victim.attacks[index]
    attack = PoisonFrogs(
        target_label=base, source_label=target, target_instances=(instance,),
        num_poisons=num_poisons, opacity=opacity, beta=BETA, num_steps=100,
    )  # fmt: skip
    train, test = victim.data.train, victim.data.test
    poisoned = attack.with_model(victim.received).poison(train, 0, torch_generator(victim.seed, "poison", index))
    if collide:
        return poisoned
    chosen = (poisoned.inputs != train.inputs).flatten(1).any(dim=1)
    inputs = train.inputs.clone()
    inputs[chosen] = blend(inputs[chosen], test.inputs[attack.target_indices(test)], opacity)
    return Examples(inputs, train.labels)


def success(victim: Victim, num_poisons: int, opacity: float, collide: bool = True) -> tuple[float, float]:
    """The share of targets taken for the base's class after training on, and the mean clean accuracy.

    `num_poisons=0` is the control: the same training on clean examples.
    """
    data = victim.data
    taken, right = 0, 0.0
    for index, (target, base, instance) in enumerate(victim.attacks):
        train = data.train if num_poisons == 0 else poisoned_set(victim, index, num_poisons, opacity, collide)
        model = train_model(victim.model, data, train, TRAINED_ON, victim.seed)
        said = answers(model, data, data.test.inputs)
        taken += int(said[data.test.labels == target][instance] == base)
        right += float((said == data.test.labels).double().mean())
    return taken / len(victim.attacks), right / len(victim.attacks)


def examples_of(victim: Victim, index: int, opacities: tuple[float, ...]) -> tuple[Tensor, Tensor, list[Tensor]]:
    """A target, a base and its poisons with different opacities, for a picture."""
    target, _, instance = victim.attacks[index]
    train, test = victim.data.train, victim.data.test
    sets = [poisoned_set(victim, index, 1, opacity, collide=True) for opacity in opacities]
    chosen = (sets[0].inputs != train.inputs).flatten(1).any(dim=1)
    shown = test.inputs[test.labels == target][instance]
    return shown, train.inputs[chosen][0], [one.inputs[chosen][0] for one in sets]
