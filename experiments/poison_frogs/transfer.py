"""Transfer learning: features stay as they are, a new head is trained on two classes, and one example is a poison."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from fedrobust.attacks.data.feature_collision import Solver, feature_collision
from fedrobust.clients.local_training import LocalTraining
from fedrobust.data.datasets import CIFAR10, Dataset, Digits, Examples
from fedrobust.data.dogfish import DogFish
from fedrobust.evaluation.victims import train_head, train_model
from fedrobust.models import MLP, SmallCNN
from fedrobust.models.features import FeatureExtractor
from fedrobust.seeds import seeded_initialisation, torch_generator

CPU = torch.device("cpu")
Head = Literal["interpolation", "convergence"]


@dataclass(frozen=True)
class Setting:
    """A model that others trained, and the task that its features are used for.

    Attributes:
        model: takes normalised inputs.
        normalise: what it was trained with.
        task: the pictures of the new task; base and target instances come from its test set.
        pairs: per attack, the target's class and the base's.
    """

    model: nn.Module
    normalise: Callable[[Tensor], Tensor]
    task: Dataset
    pairs: list[tuple[int, int]]

    @cached_property
    def extractor(self) -> nn.Module:
        """The model up to its penultimate layer."""
        return FeatureExtractor(self.model)

    def features(self, inputs: Tensor) -> Tensor:
        """Penultimate features of raw inputs."""
        return self.extractor(self.normalise(inputs))  # type: ignore[no-any-return]

    def logits(self, inputs: Tensor) -> Tensor:
        """What the old head makes of raw inputs: the control."""
        return self.model(self.normalise(inputs))  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Outcome:
    """Attacks of one kind: how many succeeded, and what their poisons are like, means over all attacks.

    Attributes:
        success: share of targets that the victim takes for the base's class.
        distance: from the poison's features to the target's, relative to the target's.
        moved: ‖p - b‖ / ‖t - b‖; at 1 the poison is as far from its base as the target is.
        pictures: targets, bases and poisons, `(B, C, H, W)` each.
    """

    success: dict[Head, float]
    distance: float
    moved: float
    pictures: tuple[Tensor, Tensor, Tensor]


def digits(seed: int, num_targets: int) -> Setting:
    """A hidden layer of width 1024, trained on the digits 0 to 4; the tasks are pairs of the digits 5 to 9."""
    data = Digits().load(None, CPU)
    old = replace(data, train=data.train.subset((data.train.labels < 5).nonzero().squeeze(1)))
    with seeded_initialisation(seed, "extractor"):
        model = MLP(hidden_sizes=(1024,)).build(data.input_shape, 5)
    training = LocalTraining(learning_rate=0.05, momentum=0.9, num_epochs=60)
    model = train_model(model, old, old.train, training, seed)
    generator = torch_generator(seed, "pairs")
    pairs = [torch.randperm(5, generator=generator)[:2] + 5 for _ in range(num_targets)]
    return Setting(model, data.normalise, data, [(int(target), int(base)) for target, base in pairs])


def dog_and_fish(seed: int, num_targets: int, data_root: Path | None, num_train: int, epochs: int) -> Setting:
    """A small convolutional network of 1,024 features, trained on CIFAR-10; the task is dogs against fish at 32x32."""
    cifar = replace(CIFAR10(num_train=num_train, num_test=1000).load(data_root, CPU), augmentation=None)
    with seeded_initialisation(seed, "extractor"):
        model = SmallCNN(channels=(16, 32), hidden_size=1024).build(cifar.input_shape, 10)
    training = LocalTraining(learning_rate=0.02, momentum=0.9, num_epochs=epochs)
    model = train_model(model, cifar, cifar.train, training, seed)
    task = DogFish(size=32).load(data_root, CPU)
    return Setting(model, cifar.normalise, task, [(index % 2, 1 - index % 2) for index in range(num_targets)])


def instances(setting: Setting, seed: int) -> tuple[Tensor, Tensor]:
    """A target and a base instance for each attack, of the test set."""
    generator, test = torch_generator(seed, "instances"), setting.task.test

    def pick(label: int) -> Tensor:
        there = (test.labels == label).nonzero().squeeze(1)
        return test.inputs[there[torch.randint(len(there), (), generator=generator)]]

    drawn = [(pick(target), pick(base)) for target, base in setting.pairs]
    return torch.stack([target for target, _ in drawn]), torch.stack([base for _, base in drawn])


def two_classes(examples: Examples, pair: tuple[int, int]) -> Examples:
    """The examples of a target's and a base's class, labelled 0 and 1."""
    own = examples.subset(((examples.labels == pair[0]) | (examples.labels == pair[1])).nonzero().squeeze(1))
    return Examples(own.inputs, (own.labels == pair[1]).long())


def attack(
    setting: Setting,
    seed: int,
    beta: float,
    heads: tuple[Head, ...],
    solver: Solver = "forward_backward",
    on_logits: bool = False,
) -> Outcome:
    """One poison for each target, each in a training set of its own."""
    targets, bases = instances(setting, seed)
    collide_in = setting.logits if on_logits else setting.features
    collision = feature_collision(collide_in, targets, bases, beta=beta, num_steps=300, solver=solver)
    poisons = collision.poisons
    moved = _norms(poisons - bases) / _norms(targets - bases)
    success = {head: victims(setting, targets, poisons, head) for head in heads}
    return Outcome(success, float(collision.distances.mean()), float(moved.mean()), (targets, bases, poisons))


def victims(setting: Setting, targets: Tensor, poisons: Tensor | None, until: Head) -> float:
    """The share of targets taken for the base's class, by heads trained with one poison each, or with none."""
    taken = 0
    for index, pair in enumerate(setting.pairs):
        train = two_classes(setting.task.train, pair)
        inputs, labels = train.inputs, train.labels
        if poisons is not None:
            inputs = torch.cat([inputs, poisons[index : index + 1]])
            labels = torch.cat([labels, torch.ones(1, dtype=torch.int64)])
        head = train_head(setting.features(inputs), labels, 2, until)
        taken += int(head(setting.features(targets[index : index + 1])).argmax())
    return taken / len(setting.pairs)


def clean_accuracy(setting: Setting, until: Head) -> float:
    """Of clean heads on the test examples of their two classes, a mean over the different pairs."""
    rates = []
    for pair in sorted(set(setting.pairs)):
        train, test = two_classes(setting.task.train, pair), two_classes(setting.task.test, pair)
        head = train_head(setting.features(train.inputs), train.labels, 2, until)
        rates.append(float((head(setting.features(test.inputs)).argmax(dim=1) == test.labels).double().mean()))
    return sum(rates) / len(rates)


def _norms(rows: Tensor) -> Tensor:
    return rows.flatten(1).norm(dim=1)
