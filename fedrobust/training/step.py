"""One step of SGD as an attack on the objective sees it, be the attacker trained alone or as a row of a cohort."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, TypeAlias, runtime_checkable

from torch import Tensor
from torch.nn import functional

from fedrobust.data.examples import Examples

Parameters: TypeAlias = Mapping[str, Tensor]
"""Parameters of a model, or a gradient by them, by name."""

Objective: TypeAlias = Callable[[Parameters], Tensor]
"""A scalar that is to become small."""


@dataclass(frozen=True, eq=False)
class Batch:
    """A training batch as the model sees it, augmented and normalised.

    Attributes:
        inputs: `(B, ...)`.
        labels: `(B,)`.
    """

    inputs: Tensor
    labels: Tensor


class Descent(NamedTuple):
    """What an attack makes of a step.

    Attributes:
        gradient: of its objective, by the parameters that are trained.
        class_loss: the mean classification loss of the own batch, for the records.
        memory: what it finds again at the client's next step of the round.
    """

    gradient: Parameters
    class_loss: Tensor
    memory: Parameters


@dataclass(frozen=True, eq=False)
class Step:
    """What an objective is computed from, by operations that `torch.func` can transform: no value decides which.

    Attributes:
        parameters: those that are trained, by name.
        received: the model as the server sent it, by name; not to be written to.
        batch: the attacker's own batch of this step.
        synthesised: what the attack made of it, as the model sees it, in the same order of examples.
        shares: `(B,)`, each example's share in a mean over the batch; zero where the batch is padded.
        own_logits: logits `(B, num_classes)` of the own batch under these parameters; it alone leaves its
            statistics in the buffers of the model.
        logits: logits of other inputs `(B, ...)` in training mode; the buffers stay as they are.
        differentiate: gradient and value of an objective at a point, both without a graph.
        memory: what the attack remembered of this client's steps in this round, by name; nothing at the first.
    """

    parameters: Parameters
    received: Parameters
    batch: Batch
    synthesised: tuple[Batch, ...]
    shares: Tensor
    own_logits: Callable[[Parameters], Tensor]
    logits: Callable[[Parameters, Tensor], Tensor]
    differentiate: Callable[[Objective, Parameters], tuple[Parameters, Tensor]]
    memory: Parameters = field(default_factory=dict)

    def class_loss(self, parameters: Parameters) -> Tensor:
        """The mean classification loss of the own batch: what a benign client minimises."""
        return self._mean_loss(self.own_logits(parameters), self.batch.labels)

    def loss_on(self, batch: Batch, parameters: Parameters) -> Tensor:
        """The mean classification loss of another batch, such as a synthesised one."""
        return self._mean_loss(self.logits(parameters, batch.inputs), batch.labels)

    def _mean_loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        return functional.cross_entropy(logits, labels, reduction="none").dot(self.shares)


@runtime_checkable
class LossAttack(Protocol):
    """Acts on the objective that an attacker minimises.

    One with a trigger of its own also has `local_triggers` and `wanted_labels` (`Goal`).
    """

    def synthesise(self, batch: Examples) -> tuple[Examples, ...]:
        """Further raw batches, example by example made of the attacker's own raw `batch`, which is not written to."""
        ...

    def __call__(self, step: Step) -> Descent:
        """The gradient of the attacker's objective by `step.parameters`, and its batch's classification loss."""
        ...
