"""Label flip: the attacker's inputs stay as they are, some of their labels are wrong.

Biggio, Nelson, Laskov, "Support Vector Machines Under Adversarial Label Noise", ACML 2011,
https://proceedings.mlr.press/v20/biggio11.html (random flips); Tolpegin, Truex, Gursoy, Liu, "Data Poisoning Attacks
Against Federated Learning Systems", ESORICS 2020, https://arxiv.org/abs/2007.08432 (source to target); Fang, Cao, Jia,
Gong, "Local Model Poisoning Attacks to Byzantine-Robust Federated Learning", USENIX Security 2020,
https://arxiv.org/abs/1911.11815 (`inverse`: class c of L becomes L - 1 - c)
Departs: a fraction of the labels can be flipped; the papers' federated attackers flip all that they can.
"""

import dataclasses
from typing import Literal

import torch
from torch import Tensor

from fedrobust.attacks.data.dirty_label import PoisonRate, check_classes, draw, wanted_labels
from fedrobust.attacks.triggers import Stamp
from fedrobust.config.component import Count, FieldError, Index, component
from fedrobust.data.datasets import Dataset, Examples


@component
class LabelFlip:
    """Wrong labels, no trigger.

    The attack success rate is the fraction of test examples that are taken for what the attackers made of their class;
    `random` flips want no class in particular and have none: clean accuracy shows what they do.

    Attributes:
        flip: `to_target` gives the examples of `source_label` (all others, if `None`) the target label; `inverse` gives
            class c the label `num_classes` - 1 - c; `random` gives each example another label, drawn uniformly.
        target_label: for `to_target`; the others do not read it.
        source_label: likewise.
        num_classes: of the data set, for `inverse` and `random`; `to_target` does not read it.
        poison_rate: fraction of the attacker's local examples that are flipped, at most all that can be; a fresh choice
            every round.
    """

    flip: Literal["to_target", "inverse", "random"] = "to_target"
    target_label: Index = 0
    source_label: Index | None = None
    num_classes: Count = 10
    poison_rate: PoisonRate = 1.0

    def __post_init__(self) -> None:
        """Check that labels can change."""
        check_classes(self.target_label, self.source_label)
        if self.num_classes < 2:
            raise FieldError("num_classes", f"must be at least 2, got {self.num_classes}")

    def bind(self, dataset: Dataset, generator: torch.Generator) -> "LabelFlip":
        """The same among the classes of this data set, without what it does not read.

        Raises:
            FieldError: another number of classes, where that is read.
        """
        if self.flip == "to_target":
            return self
        if self.num_classes != dataset.num_classes:
            raise FieldError(
                "num_classes", f"must be {dataset.num_classes} for {self.flip} flips, got {self.num_classes}"
            )
        return dataclasses.replace(self, target_label=0, source_label=None)

    def poison(self, examples: Examples, attacker: int, generator: torch.Generator) -> Examples:
        """Flip the labels of `poison_rate` of the examples, in a copy.

        Raises:
            FieldError: a label that is not below `num_classes`, where that is read.
        """
        if self.flip == "random":
            self._check_labels(examples.labels)
            wrong = self._another(examples.labels, generator)
        else:
            wrong = self._fixed(examples.labels)
        chosen = draw(wrong != examples.labels, self.poison_rate, generator)
        labels = examples.labels.clone()
        labels[chosen] = wrong[chosen]
        return Examples(examples.inputs, labels)

    def poison_batch(self, batch: Examples, attacker: int) -> Examples:
        """Batches stay as they are."""
        return batch

    def local_triggers(self, input_shape: tuple[int, ...]) -> tuple[Stamp, ...]:
        """None."""
        return ()

    def wanted_labels(self, test: Examples) -> Tensor | None:
        """What the attackers make of each class.

        Raises:
            FieldError: a label that is not below `num_classes`, where that is read.
        """
        if self.flip == "random":
            self._check_labels(test.labels)
            return None
        return self._fixed(test.labels)

    def _fixed(self, labels: Tensor) -> Tensor:
        if self.flip == "to_target":
            return wanted_labels(labels, self.target_label, self.source_label)
        self._check_labels(labels)
        return self.num_classes - 1 - labels

    def _another(self, labels: Tensor, generator: torch.Generator) -> Tensor:
        shift = torch.randint(1, self.num_classes, labels.shape, generator=generator)
        return (labels + shift.to(labels.device)) % self.num_classes

    def _check_labels(self, labels: Tensor) -> None:
        if len(labels) and int(labels.max()) >= self.num_classes:
            raise FieldError(
                "num_classes", f"must be above every label, got {self.num_classes} and a label {int(labels.max())}"
            )
