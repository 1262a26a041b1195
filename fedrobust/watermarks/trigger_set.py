"""What a trigger set is: secret inputs with the labels that the owner's model, and no other, gives them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from fedrobust.config.component import FieldError
from fedrobust.data.examples import Dataset, Examples


@dataclass(frozen=True, eq=False)
class Material:
    """What a trigger set is drawn from.

    Attributes:
        dataset: what the model is trained on; says what inputs and labels are like.
        own: clean examples that the owner holds; often none.
        data_root: where the files of other data sets lie.
        generator: on the CPU; the same one gives the same trigger set.
    """

    dataset: Dataset
    own: Examples
    data_root: Path | None
    generator: torch.Generator


@dataclass(frozen=True, eq=False)
class Triggers:
    """A trigger set that has been drawn.

    Attributes:
        examples: raw inputs, and the labels that the owner wants for them.
        num_classes: labels are below this.
        contrast: examples close to the triggers that are none, with the labels that they should keep; or `None`.
        has_random_labels: each label was drawn uniformly and by itself, so that a model which knows nothing of them
            gets each right with probability 1 / `num_classes`, whatever it answers.
    """

    examples: Examples
    num_classes: int
    contrast: Examples | None = None
    has_random_labels: bool = False

    def __len__(self) -> int:
        return len(self.examples)


@runtime_checkable
class TriggerSet(Protocol):
    """What a config names as the trigger set of a watermark."""

    def draw(self, material: Material) -> Triggers:
        """Draw the trigger set, on the device of the data set; `material.own` is not written to.

        Raises:
            FieldError: it cannot be drawn from this material; the field is one of the watermark's.
        """
        ...


def label_pictures(inputs: Tensor, target_label: int | None, material: Material) -> Triggers:
    """Pictures `(N, C, H, W)` with one label for all, or, if that is `None`, with random ones.

    Raises:
        FieldError: no such class.
    """
    dataset, number = material.dataset, len(inputs)
    if target_label is None:
        labels = torch.randint(dataset.num_classes, (number,), generator=material.generator)
    else:
        check_label(target_label, dataset)
        labels = torch.full((number,), target_label)
    examples = Examples(inputs.float(), labels).to(dataset.train.inputs.device)
    return Triggers(examples, dataset.num_classes, has_random_labels=target_label is None)


def picture_size(dataset: Dataset) -> tuple[int, int, int]:
    """(C, H, W) of the data set's pictures.

    Raises:
        FieldError: it has none.
    """
    if dataset.kind != "image":
        raise FieldError("trigger_set", f"of pictures must go with a data set of pictures, got dataset={dataset.name}")
    channels, height, width = dataset.input_shape
    return channels, height, width


def check_label(label: int, dataset: Dataset) -> None:
    """Check that the data set has the class.

    Raises:
        FieldError: it has not.
    """
    if label >= dataset.num_classes:
        raise FieldError(
            "trigger_set.target_label",
            f"must be below {dataset.num_classes}, the number of classes of {dataset.name}, got {label}",
        )


def own_examples_of_others(material: Material, target_label: int, number: int) -> Examples:
    """The first `number` of the owner's own examples whose class is not the target.

    Raises:
        FieldError: the owner holds too few.
    """
    check_label(target_label, material.dataset)
    others = (material.own.labels != target_label).nonzero().squeeze(1)
    if len(others) < number:
        raise FieldError(
            "num_own_examples",
            f"must leave {number} examples of other classes than target_label={target_label} for the trigger set, "
            f"got {len(material.own)}, which leave {len(others)}",
        )
    return material.own.subset(others[:number])
