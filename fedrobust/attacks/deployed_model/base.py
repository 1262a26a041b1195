"""What an attack on a deployed model is: it acts after the last round, on the weights that users compute with."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from fedrobust.attacks.base import ReceivedModel
from fedrobust.attacks.deployed_model.quantisation import StoredModel
from fedrobust.attacks.triggers import Stamp
from fedrobust.config.component import FieldError
from fedrobust.data.datasets import Dataset, Examples


@dataclass(frozen=True, eq=False)
class Tampering:
    """What an attack leaves of a model, and what it wants of it; how well that works `evaluation/` says.

    Attributes:
        released: the model as it goes out, rounded to int8 for attacks on bits.
        deployed: the same after the attacker has been in memory.
        target_label: the class that inputs should be taken for; `None` if any mistake will do.
        trigger: what inputs must show; `None`: they are attacked as they are.
        chosen: the one test example that is attacked, by its index; `None`: all whose class is not the target.
    """

    released: StoredModel
    deployed: StoredModel
    target_label: int | None = None
    trigger: Stamp | None = None
    chosen: int | None = None


@runtime_checkable
class DeployedModelAttack(Protocol):
    """Acts on the trained model, knowing it and some clean examples of its task, which are training examples."""

    def check(self, dataset: Dataset) -> None:
        """Refuse, before any training, what cannot be done on this data set.

        Raises:
            FieldError: the field that it cannot have, and what is allowed.
        """
        ...

    def tamper(self, received: ReceivedModel, generator: torch.Generator) -> Tampering:
        """The model before and after; `received` is not written to."""
        ...


def clean_samples(dataset: Dataset, count: int, generator: torch.Generator) -> Examples:
    """What the attacker has of the task: `count` training examples (at most all), drawn without replacement."""
    return dataset.train.subset(torch.randperm(len(dataset.train), generator=generator)[:count])


def check_target(target_label: int | None, dataset: Dataset) -> None:
    """Check that the target is a class.

    Raises:
        FieldError: it is none.
    """
    if target_label is not None and target_label >= dataset.num_classes:
        raise FieldError(
            "target_label",
            f"must be below {dataset.num_classes}, the number of classes of {dataset.name}, got {target_label}",
        )


def check_chosen(sample: int, target_label: int | None, dataset: Dataset) -> None:
    """Check that a chosen test example is there, and of another class than the target.

    Raises:
        FieldError: it is not.
    """
    if sample >= len(dataset.test):
        raise FieldError("sample", f"must be below {len(dataset.test)}, the test examples, got {sample}")
    if int(dataset.test.labels[sample]) == target_label:
        raise FieldError("target_label", f"must not be the class of test example {sample}, got {target_label}")


def margin_to(logits: Tensor, label: int) -> Tensor:
    """By how much each row of `logits` `(N, C)` falls short of `label`, `(N,)`; negative where it is on top."""
    others = logits.clone()
    others[:, label] = -torch.inf
    return others.max(dim=1).values - logits[:, label]
