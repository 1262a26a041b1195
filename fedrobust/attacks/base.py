"""What an attack may be, by the stage at which it acts. An attack never judges its own success: `evaluation/` does."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from fedrobust.attacks.triggers import Trigger
from fedrobust.data.datasets import Examples
from fedrobust.types import Updates, Weights


@dataclass(frozen=True)
class Knowledge:
    """The threat model of an update attack: what the attackers of one round know when they send their updates.

    Attributes:
        own_updates: `(m, d)`, what the attackers' own training gave, rows in the order of their client ids.
        own_weights: `(m,)`, the weights that the server will really give them (of all that sum to 1).
        server_learning_rate: η in G' = G + η Σ wᵢ(Lᵢ - G).
    """

    own_updates: Updates
    own_weights: Weights
    server_learning_rate: float


@runtime_checkable
class DataAttack(Protocol):
    """Acts on an attacker's own examples. `attacker` is its rank among the malicious clients, 0, 1, ..."""

    target_label: int

    def poison(self, examples: Examples, attacker: int, generator: torch.Generator) -> Examples:
        """What the attacker trains on this round instead of its own `examples`."""
        ...

    def poison_batch(self, batch: Examples, attacker: int) -> Examples:
        """What the attacker puts in place of one training batch."""
        ...

    def local_triggers(self, input_shape: tuple[int, ...]) -> tuple[Trigger, ...]:
        """The parts of the trigger that single attackers stamp; one part if the trigger is not distributed."""
        ...

    def is_success_candidate(self, labels: Tensor) -> Tensor:
        """Which test examples, by true label `(N,)`, count in the attack success rate: never those of the target."""
        ...


@runtime_checkable
class LossAttack(Protocol):
    """Acts on the objective that an attacker minimises."""

    def __call__(self, class_loss: Tensor, parameters: Sequence[Tensor], global_parameters: Sequence[Tensor]) -> Tensor:
        """The scalar loss, from the mean classification loss and the parameters now and as received."""
        ...


@runtime_checkable
class UpdateAttack(Protocol):
    """Acts on the attackers' updates between collection and aggregation."""

    def __call__(self, knowledge: Knowledge) -> Updates:
        """The updates `(m, d)` that the attackers send instead of their own."""
        ...
