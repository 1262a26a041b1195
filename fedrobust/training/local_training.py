"""The settings of local training, and what attackers may change in them."""

import dataclasses
import math
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le, Lt

from fedrobust.config.component import Count, FieldError, NonNegative, Positive, component

Momentum = Annotated[float, Ge(0), Lt(1)]
Milestone = Annotated[float, Gt(0), Lt(1)]
Decay = Annotated[float, Gt(0), Le(1)]

_ROUNDING = 1e-9  # 0.07 of 100 epochs is the eighth, although 0.07 * 100 is a little more than 7 in floating point


@component
class LocalTraining:
    """Stochastic gradient descent on a client's own examples.

    Attributes:
        learning_rate: step size of SGD.
        num_epochs: passes over the client's examples in a round.
        batch_size: examples in a step; the last batch of an epoch may be smaller.
        momentum: SGD's momentum, started from zero every round.
        weight_decay: L2 penalty on all parameters that are trained.
        learning_rate_milestones: fractions of the epochs, ascending. From the first epoch that begins at or after one,
            the learning rate is multiplied by `learning_rate_decay` once more. Every round starts from the full rate.
        learning_rate_decay: this factor.
        trained_layers: `all`, or `head`, the last linear layer on features that stay as they are: the update is exactly
            zero elsewhere, and what batch normalisation knows stays the global model's.
        vectorize: train clients together with `torch.func.vmap`; `auto` does so on a GPU, and on a CPU for models
            without convolutions.
        max_cohort: how many clients are trained together at most; `auto` goes by cache and free memory.
    """

    learning_rate: Positive = 0.1
    num_epochs: Count = 1
    batch_size: Count = 32
    momentum: Momentum = 0.0
    weight_decay: NonNegative = 0.0
    learning_rate_milestones: list[Milestone] = dataclasses.field(default_factory=list)
    learning_rate_decay: Decay = 0.1
    trained_layers: Literal["all", "head"] = "all"
    vectorize: Literal["auto"] | bool = "auto"
    max_cohort: Count | Literal["auto"] = "auto"

    def __post_init__(self) -> None:
        """Check that every milestone is followed by an epoch."""
        milestones = self.learning_rate_milestones
        if milestones != sorted(set(milestones)):
            raise FieldError("learning_rate_milestones", f"must ascend, got {milestones}")
        if milestones and self._first_epoch(milestones[-1]) >= self.num_epochs:
            raise FieldError(
                "learning_rate_milestones",
                f"must have an epoch that begins at or after each in num_epochs={self.num_epochs}, got {milestones}",
            )

    def learning_rates(self) -> list[float]:
        """The learning rate of each epoch, `num_epochs` of them."""
        firsts = [self._first_epoch(milestone) for milestone in self.learning_rate_milestones]
        passed = [sum(first <= epoch for first in firsts) for epoch in range(self.num_epochs)]
        return [self.learning_rate * self.learning_rate_decay**count for count in passed]

    def _first_epoch(self, milestone: float) -> int:
        """The first epoch, counted from 0, that begins at or after a fraction of all."""
        return math.ceil(milestone * self.num_epochs - _ROUNDING)


@component
class TrainingOverrides:
    """What attackers change in the benign programme; `None` keeps the benign value."""

    learning_rate: Positive | None = None
    num_epochs: Count | None = None
    batch_size: Count | None = None
    momentum: Momentum | None = None
    weight_decay: NonNegative | None = None
    learning_rate_milestones: list[Milestone] | None = None
    learning_rate_decay: Decay | None = None

    def applied_to(self, benign: LocalTraining) -> LocalTraining:
        """The benign programme with the overrides in place.

        Raises:
            FieldError: the two do not go together.
        """
        own = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return dataclasses.replace(benign, **{name: value for name, value in own.items() if value is not None})
