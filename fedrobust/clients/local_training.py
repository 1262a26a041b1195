"""The settings of local training, and what attackers may change in them."""

import dataclasses
from typing import Annotated, Literal

from annotated_types import Ge, Lt

from fedrobust.component import Count, NonNegative, Positive, component

Momentum = Annotated[float, Ge(0), Lt(1)]


@component
class LocalTraining:
    """Stochastic gradient descent on a client's own examples.

    Attributes:
        learning_rate: step size of SGD.
        num_epochs: passes over the client's examples in a round.
        batch_size: examples in a step; the last batch of an epoch may be smaller.
        momentum: SGD's momentum, started from zero every round.
        weight_decay: L2 penalty on all parameters that are trained.
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
    trained_layers: Literal["all", "head"] = "all"
    vectorize: Literal["auto"] | bool = "auto"
    max_cohort: Count | Literal["auto"] = "auto"


@component
class TrainingOverrides:
    """What attackers change in the benign programme; `None` keeps the benign value."""

    learning_rate: Positive | None = None
    num_epochs: Count | None = None
    batch_size: Count | None = None
    momentum: Momentum | None = None
    weight_decay: NonNegative | None = None

    def applied_to(self, benign: LocalTraining) -> LocalTraining:
        """The benign programme with the overrides in place."""
        own = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return dataclasses.replace(benign, **{name: value for name, value in own.items() if value is not None})
