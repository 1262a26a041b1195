"""Transfer learning: features stay as they are, a new head is trained on two classes, and one example is a poison.

Targets are test examples that the clean heads get right, as in the paper: what a head then gets wrong, the poison did.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from fedrobust.attacks.data.feature_collision import Solver, feature_collision
from fedrobust.data.datasets import CIFAR10, Dataset, Digits, Examples
from fedrobust.data.dogfish import DogFish
from fedrobust.models import MLP, SmallCNN
from fedrobust.models.features import FeatureExtractor
from fedrobust.seeds import seeded_initialisation, torch_generator
from fedrobust.training.local_training import LocalTraining
from fedrobust.training.victims import train_full_batch, train_head, train_model

CPU = torch.device("cpu")
Head = Literal["interpolation", "convergence"]
HEADS: tuple[Head, ...] = ("interpolation", "convergence")
Extractor = Literal["two_layers", "one_layer", "one_layer_sgd"]


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
    clean_heads: dict[tuple[tuple[int, int], Head], nn.Module] = field(default_factory=dict)

    def clean_head(self, pair: tuple[int, int], until: Head) -> nn.Module:
        """A head for two classes, trained without a poison."""
        if (pair, until) not in self.clean_heads:
            train = two_classes(self.task.train, pair)
            self.clean_heads[pair, until] = train_head(self.features(train.inputs), train.labels, 2, until)
        return self.clean_heads[pair, until]

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


def digits(seed: int, num_targets: int, extractor: Extractor = "two_layers", normalised: bool = False) -> Setting:
    """A model whose last hidden layer has 1024 units, trained on the digits 0 to 4; tasks are pairs of the others.

    Args:
        seed: of the initialisation, the pairs, and SGD's batches.
        num_targets: how many pairs.
        extractor: hidden layers of 128 and 1024 units, or the latter alone, trained by Adam on all examples at once; or
            by SGD, 60 epochs, which leaves the one layer nearest to where it started.
        normalised: whether the model sees pixels less their mean over their standard deviation, or in [0, 1].
    """
    data = Digits().load(None, CPU)
    if not normalised:
        data = replace(data, mean=torch.zeros_like(data.mean), std=torch.ones_like(data.std))
    old = data.train.subset((data.train.labels < 5).nonzero().squeeze(1))
    with seeded_initialisation(seed, "extractor"):
        model = MLP(hidden_sizes=(128, 1024) if extractor == "two_layers" else (1024,)).build(data.input_shape, 5)
    if extractor == "one_layer_sgd":
        training = LocalTraining(learning_rate=0.05, momentum=0.9, num_epochs=60)
        model = train_model(model, replace(data, train=old), old, training, seed)
    else:
        model = train_full_batch(model, data, old)
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
    """A target and a base instance for each attack, of the test set; both kinds of clean head get the targets right."""
    generator, test = torch_generator(seed, "instances"), setting.task.test
    targets, bases = [], []
    for pair in setting.pairs:
        there, may_be_base = (test.inputs[test.labels == label] for label in pair)
        for until in HEADS:
            there = there[setting.clean_head(pair, until)(setting.features(there)).argmax(dim=1) == 0]
        targets.append(there[torch.randint(len(there), (), generator=generator)])
        bases.append(may_be_base[torch.randint(len(may_be_base), (), generator=generator)])
    return torch.stack(targets), torch.stack(bases)


def two_classes(examples: Examples, pair: tuple[int, int]) -> Examples:
    """The examples of a target's and a base's class, labelled 0 and 1."""
    own = examples.subset(((examples.labels == pair[0]) | (examples.labels == pair[1])).nonzero().squeeze(1))
    return Examples(own.inputs, (own.labels == pair[1]).long())


def attack(
    setting: Setting,
    seed: int,
    beta: float,
    solver: Solver = "adam",
    learning_rate: float = 0.05,
    on_logits: bool = False,
) -> Outcome:
    """One poison for each target, each in a training set of its own; `learning_rate` is Adam's."""
    targets, bases = instances(setting, seed)
    collide_in = setting.logits if on_logits else setting.features
    collision = feature_collision(
        collide_in, targets, bases, beta=beta, num_steps=300, solver=solver, learning_rate=learning_rate
    )
    poisons = collision.poisons
    moved = _norms(poisons - bases) / _norms(targets - bases)
    success = {head: taken(setting, targets, poisons, head) for head in HEADS}
    return Outcome(success, float(collision.distances.mean()), float(moved.mean()), (targets, bases, poisons))


def control(setting: Setting, seed: int) -> dict[Head, float]:
    """The share of targets taken for the base's class where the base itself stands in the poison's place."""
    targets, bases = instances(setting, seed)
    return {head: taken(setting, targets, bases, head) for head in HEADS}


def taken(setting: Setting, targets: Tensor, poisons: Tensor, until: Head) -> float:
    """The share of targets taken for the base's class, by heads trained with one poison each."""
    count = 0
    for pair, target, poison in zip(setting.pairs, targets.split(1), poisons.split(1), strict=True):
        train = two_classes(setting.task.train, pair)
        inputs, labels = torch.cat([train.inputs, poison]), torch.cat([train.labels, torch.ones(1, dtype=torch.int64)])
        head = train_head(setting.features(inputs), labels, 2, until)
        count += int(head(setting.features(target)).argmax())
    return count / len(setting.pairs)


def clean_accuracy(setting: Setting, until: Head) -> float:
    """Of clean heads on the test examples of their two classes, a mean over the different pairs."""
    rates = []
    for pair in sorted(set(setting.pairs)):
        test = two_classes(setting.task.test, pair)
        said = setting.clean_head(pair, until)(setting.features(test.inputs)).argmax(dim=1)
        rates.append(float((said == test.labels).double().mean()))
    return sum(rates) / len(rates)


def _norms(rows: Tensor) -> Tensor:
    return rows.flatten(1).norm(dim=1)
