"""Image-scaling backdoor: large pictures that show one thing to people, and another to a model that scales them.

Quiring, Rieck, "Backdooring and Poisoning Neural Networks with Image-Scaling Attacks", DLS 2020,
https://arxiv.org/abs/2003.08633, with the attack on a picture of Xiao, Chen, Shen, Chen, Li, "Seeing is Not Believing:
Camouflage Attacks on Image Scaling Algorithms", USENIX Security 2019,
https://www.usenix.org/conference/usenixsecurity19/presentation/xiao
Departs: what is hidden is a whole triggered picture of another class, in a picture of the target class that keeps its
true label, so nothing that people see is wrong; the first paper hides a trigger, or what a clean-label poison needs.
"""

import dataclasses

import torch
from torch import Tensor

from fedrobust.attacks.data.dirty_label import PoisonRate, check_classes, draw, may_be_poisoned, wanted_labels
from fedrobust.attacks.data.scaled_picture import hide
from fedrobust.attacks.triggers import Trigger, TriggerShape, is_synthetic, union
from fedrobust.config.component import Count, FieldError, Fraction, Index, component
from fedrobust.data.datasets import Dataset, Examples
from fedrobust.data.scalers import Scaler, ScalerName, check_scaler


@component
class ImageScaling:
    """Attackers hide triggered pictures of other classes in their large pictures of the target class.

    Goes with a data set whose raw pictures are scaled on their way into the model. At test the trigger is in the open,
    on large pictures.

    Attributes:
        trigger: what it looks like and where it lies in a large picture.
        target_label: the class of the pictures that are changed, and that triggered inputs should be taken for.
        source_label: hide pictures of this class alone, and attack it alone; `None`: of all others.
        poison_rate: fraction of the attacker's local examples that are changed, at most all of the target class, each
            with another picture in it; a fresh choice every round.
        epsilon: how far what the scaler makes of a picture may be from what is hidden, of 1.
        assumed_scaler: the scaler that the attackers reckon with; `None`: the data set's.
        scaled_size: height and width that they reckon with; `None`: the data set's.
    """

    trigger: TriggerShape
    target_label: Index = 0
    source_label: Index | None = None
    poison_rate: PoisonRate = 0.1
    epsilon: Fraction = 0.01
    assumed_scaler: ScalerName | None = None
    scaled_size: Count | None = None

    def __post_init__(self) -> None:
        """Check the classes, and that the scaler is there."""
        check_classes(self.target_label, self.source_label)
        if self.assumed_scaler is not None:
            try:
                check_scaler(self.assumed_scaler)
            except FieldError as error:
                raise FieldError("assumed_scaler", error.message) from None

    @property
    def has_synthetic_stamp(self) -> bool:
        """Whether the trigger is one."""
        return is_synthetic(self.trigger)

    def bind(self, dataset: Dataset, generator: torch.Generator) -> "ImageScaling":
        """The attack on this data set's scaler.

        Raises:
            FieldError: it has none, or an ε that rounding alone exceeds.
        """
        if dataset.scaler is None:
            raise FieldError(
                "assumed_scaler", "needs a data set that scales large pictures, as dataset=dogfish dataset.scaler=NAME"
            )
        name, size = self.assumed_scaler or dataset.scaler.name, self.scaled_size or dataset.scaler.size[0]
        bound = dataclasses.replace(self, assumed_scaler=name, scaled_size=size)
        bound.hide(*(torch.zeros(1, 1, *dataset.input_shape[1:]) for _ in range(2)))  # ε, before anything is trained
        return bound

    def hide(self, pictures: Tensor, others: Tensor) -> Tensor:
        """`pictures` `(N, C, H, W)` that the scaler turns into what it makes of `others`, likewise.

        Raises:
            FieldError: the scaler is not known yet, or an ε that rounding alone exceeds.
        """
        if self.assumed_scaler is None or self.scaled_size is None:
            raise FieldError("assumed_scaler", "must be given with scaled_size, or found by bind(dataset, ...) first")
        scaler = Scaler(self.assumed_scaler, (self.scaled_size, self.scaled_size))
        return hide(pictures, scaler(others), scaler, self.epsilon)

    def poison(self, examples: Examples, attacker: int, generator: torch.Generator) -> Examples:
        """Hide a triggered picture in `poison_rate` of the examples, all of the target class, in a copy."""
        bases = draw(examples.labels == self.target_label, self.poison_rate, generator)
        sources = may_be_poisoned(examples.labels, self.target_label, self.source_label).nonzero().squeeze(1)
        inputs = examples.inputs.clone()
        if len(bases) == 0 or len(sources) == 0:
            return Examples(inputs, examples.labels.clone())
        drawn = torch.randint(len(sources), (len(bases),), generator=generator).to(sources.device)
        (trigger,) = self.local_triggers(tuple(inputs.shape[1:]))
        inputs[bases] = self.hide(inputs[bases], trigger.stamp(inputs[sources[drawn]]))
        return Examples(inputs, examples.labels.clone())

    def poison_batch(self, batch: Examples, attacker: int) -> Examples:
        """Batches stay as they are."""
        return batch

    def local_triggers(self, input_shape: tuple[int, ...]) -> tuple[Trigger, ...]:
        """The whole trigger, as the only part."""
        return (union(self.trigger.triggers(input_shape)),)

    def wanted_labels(self, test: Examples) -> Tensor:
        """The target, for test examples of the source class, or of every class but the target."""
        return wanted_labels(test.labels, self.target_label, self.source_label)
