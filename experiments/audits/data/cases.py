"""What is audited: data sets with a backdoor whose place is known, and models trained on them."""

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from fedrobust.attacks.data.dirty_label import stamped
from fedrobust.attacks.triggers import Blend, Patch, Pixels, Sinusoid, Trigger, union
from fedrobust.audits import AuditedModel
from fedrobust.audits.data import retrain
from fedrobust.data.datasets import CIFAR10, MNIST, Dataset, Digits, Examples
from fedrobust.models import MLP, Architecture, SmallCNN
from fedrobust.seeds import torch_generator
from fedrobust.training.local_training import LocalTraining


@dataclass(frozen=True)
class Setting:
    """A data set, what is trained on it, and the layer before the last hidden ReLU, where clustering looks."""

    dataset: Dataset
    architecture: Architecture
    training: LocalTraining
    layer: str


@dataclass(frozen=True)
class Case:
    """One poisoned data set: of class `target`'s examples, `share` are triggered ones of class `source`."""

    setting: str
    trigger: str
    share: float
    source: int
    seed: int

    @property
    def target(self) -> int:
        """The class that the poison is labelled as."""
        return (self.source + 1) % 10


def load(name: str, root: Path | None) -> Setting:
    cpu = torch.device("cpu")
    if name == "digits":
        training = LocalTraining(learning_rate=0.05, momentum=0.9, num_epochs=10)
        return Setting(Digits().load(root, cpu), MLP(hidden_sizes=(128, 64)), training, "3")
    architecture = SmallCNN(channels=(8, 16), hidden_size=64)
    if name == "mnist":
        training = LocalTraining(learning_rate=0.05, momentum=0.9, num_epochs=5)
        return Setting(MNIST(num_train=5000, num_test=2000).load(root, cpu), architecture, training, "7")
    training = LocalTraining(learning_rate=0.02, momentum=0.9, num_epochs=5)
    dataset = CIFAR10(num_train=5000, num_test=2000, augment=False).load(root, cpu)
    return Setting(dataset, architecture, training, "7")


def make_trigger(name: str, shape: tuple[int, ...]) -> Trigger:
    """White and checkered squares of 4 x 4 one pixel from the corner, a faint noise, SIG's wave, a smooth pattern."""
    _, height, width = shape
    if name == "corner pixels":
        return union(Pixels(pixels=[[0, 0], [0, 1], [1, 0]]).triggers(shape))
    if name == "white patch":
        return union(Patch(height=4, width=4, top=height - 5, left=width - 5).triggers(shape))
    if name == "checkered patch":
        mask, pattern = torch.zeros(height, width, dtype=torch.bool), torch.zeros(shape)
        mask[-5:-1, -5:-1] = True
        pattern[:, -5:-1, -5:-1] = (torch.arange(4).view(4, 1) + torch.arange(4)).remainder(2).float()
        return Trigger.overlay(mask, pattern)
    if name == "noise blend":
        return union(Blend(opacity=0.2).triggers(shape))
    if name == "wave":
        return union(Sinusoid().triggers(shape))
    if name == "smooth":  # the lowest frequencies only: what natural pictures are made of
        coarse = 2 * torch.rand(1, shape[0], 3, 3, generator=torch_generator(0, "smooth")) - 1
        pattern = F.interpolate(coarse, size=(height, width), mode="bicubic", align_corners=True)[0]
        return Trigger(torch.ones_like(pattern), 0.15 * pattern)
    raise ValueError(f"no trigger {name!r}")


def poison(case: Case, setting: Setting) -> tuple[Examples, Tensor, Trigger]:
    """The data, which of them are poisoned `(N,)`, and the trigger."""
    train = setting.dataset.train
    trigger = make_trigger(case.trigger, setting.dataset.input_shape)
    own = int((train.labels == case.target).sum())
    candidates = (train.labels == case.source).nonzero().squeeze(1)
    order = torch.randperm(len(candidates), generator=torch_generator(case.seed, "poison", case.source))
    chosen = candidates[order[: round(case.share / (1 - case.share) * own)]]
    poisoned = torch.zeros(len(train), dtype=torch.bool)
    poisoned[chosen] = True
    return stamped(train, chosen, trigger, case.target), poisoned, trigger


def train(case: Case, setting: Setting, examples: Examples, purpose: str) -> AuditedModel:
    dataset = setting.dataset
    fresh = AuditedModel(setting.architecture.build(dataset.input_shape, dataset.num_classes), dataset.normalise)
    return retrain(fresh, examples, setting.training, torch_generator(case.seed, purpose, case.source))


def success_and_accuracy(case: Case, setting: Setting, model: AuditedModel, trigger: Trigger) -> tuple[float, float]:
    """Of triggered test examples of the source, the share taken for the target; of clean ones, the share right."""
    test = setting.dataset.test
    victims = trigger.stamp(test.inputs[test.labels == case.source])
    success = (model.logits(victims).argmax(dim=1) == case.target).double().mean()
    return float(success), float((model.logits(test.inputs).argmax(dim=1) == test.labels).double().mean())
