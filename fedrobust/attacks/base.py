"""What an attack may be, by the stage at which it acts. An attack never judges its own success: `evaluation/` does."""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeAlias, runtime_checkable

import torch
from torch import Tensor, nn

from fedrobust.attacks.triggers import Stamp, declared
from fedrobust.config.component import FieldError
from fedrobust.data.datasets import Dataset, Examples
from fedrobust.parameters import ParameterLayout, load_into
from fedrobust.seeds import torch_generator
from fedrobust.training.local_training import LocalTraining
from fedrobust.training.step import LossAttack as LossAttack
from fedrobust.types import Buffers, Updates, Vector, Weights

Level: TypeAlias = Literal["own", "benign", "server"]
LEVELS: tuple[Level, ...] = ("own", "benign", "server")
"""How much attackers know, each with all that comes before: their own updates; those of benign clients; the server."""


@dataclass(frozen=True)
class Knowledge:
    """The threat model of an update attack: what the attackers of one round know when they send their updates.

    What the scenario's `knowledge` does not grant, or the attack does not use, is `None`.

    Attributes:
        own_updates: `(m, d)`, what the attackers' own training gave, rows in the order of their client ids.
        own_weights: `(m,)`, the weights that the server will really give them (of all that sum to 1).
        server_learning_rate: η in G' = G + η Σ wᵢ(Lᵢ - G).
        num_clients: n, the clients of the round, malicious ones included.
        benign_updates: `(n - m, d)`, from `benign` on: what the others send, rows in the order of their client ids.
        benign_weights: `(n - m,)`, from `benign` on: the weights that the server will give them.
        benign_clients: from `benign` on: their ids.
        model_change: `(d,)`, for an attack that `uses_model_change`: this round's global model minus the one that any
            malicious client received last, attacking or not; `None` if none has received one before.
        answer: from `server` on: the server's answer `(d,)`, before its optimiser, if the attackers sent these
            `(m, d)`: its rule with this round's weights and memory. Nothing is remembered of the question.
        memory: what a `RememberingAttack` keeps.
        generator: of this round, on the CPU, for attacks that draw.
    """

    own_updates: Updates
    own_weights: Weights
    server_learning_rate: float
    num_clients: int
    benign_updates: Updates | None = None
    benign_weights: Weights | None = None
    benign_clients: tuple[int, ...] | None = None
    model_change: Vector | None = None
    answer: Callable[[Updates], Vector] | None = None
    memory: Mapping[str, Tensor] = field(default_factory=dict)
    generator: torch.Generator = field(default_factory=lambda: torch_generator(0, "update attack"))

    @property
    def reference_updates(self) -> Updates:
        """What attackers take for benign updates: the benign ones, or their own where those are not granted."""
        if self.benign_updates is None or len(self.benign_updates) == 0:
            return self.own_updates
        return self.benign_updates


@runtime_checkable
class Goal(Protocol):
    """What attackers want of the model, by which `evaluation/` judges them.

    One whose trigger is a synthetic stamp (`TriggerShape`) declares `has_synthetic_stamp = True`. Where nothing is
    declared, a clean model may do by itself what the attackers want, and `control=auto` plays a benign twin.
    """

    def local_triggers(self, input_shape: tuple[int, ...]) -> tuple[Stamp, ...]:
        """The parts of the trigger that single attackers stamp, one after the other the whole trigger.

        One part if the trigger is not distributed, none if the model is attacked on inputs as they are.
        """
        ...

    def wanted_labels(self, test: Examples) -> Tensor | None:
        """The class `(N,)` that the attackers want each test example to be taken for once it is triggered.

        Its true one where they want nothing of it; `None` if any mistake will do. `evaluation/` counts those that
        differ from the truth.
        """
        ...


def has_synthetic_stamp(goal: Goal) -> bool:
    """Whether `goal` declares that its trigger is a synthetic stamp.

    Raises:
        FieldError: it declares something else than true or false.
    """
    return declared(goal, "has_synthetic_stamp")


@runtime_checkable
class DataAttack(Goal, Protocol):
    """Acts on an attacker's own examples. `attacker` is its rank among the malicious clients, 0, 1, ..."""

    def poison(self, examples: Examples, attacker: int, generator: torch.Generator) -> Examples:
        """What the attacker trains on this round instead of its own `examples`."""
        ...

    def poison_batch(self, batch: Examples, attacker: int) -> Examples:
        """What the attacker puts in place of one training batch."""
        ...


@runtime_checkable
class BindableAttack(Protocol):
    """A data attack that depends on the data set: it looks at it once, before the first round."""

    def bind(self, dataset: Dataset, generator: torch.Generator) -> DataAttack:
        """The attack of the whole scenario, the same for all attackers and for `evaluation/`; bound again, the same.

        Raises:
            FieldError: it cannot be used on such data.
        """
        ...


def check_gradients(dataset: Dataset, field: str) -> None:
    """Refuse `field`, which is made with gradients of raw inputs, where a scaler of bytes has none.

    Raises:
        FieldError: OpenCV or Pillow scales the pictures.
    """
    if dataset.scaler is not None and dataset.scaler.scales_bytes:
        reason = f"is made with gradients, which {dataset.scaler.name} has none of"
        raise FieldError(field, f"{reason}; needs dataset.scaler=torchvision_* or interpolate_*")


@dataclass(frozen=True, eq=False)
class ReceivedModel:
    """What an attacker who crafts its data on a model holds: the global model of this round, and the data set.

    Attributes:
        model: gives the architecture; its parameters are not used.
        vector: `(d,)`, the parameters that the attacker received.
        buffers: what the model carries besides.
        dataset: gives normalisation, and the test examples among which the attacker has its target instances.
    """

    model: nn.Module
    vector: Vector
    buffers: Buffers
    dataset: Dataset

    def module(self) -> nn.Module:
        """The model as received, a copy, in evaluation mode; it takes normalised inputs."""
        module = copy.deepcopy(self.model).eval().requires_grad_(False)
        load_into(module, ParameterLayout.of(self.model).views(self.vector), self.buffers)
        return module


@runtime_checkable
class ModelDataAttack(Protocol):
    """A data attack that is crafted on the model that the attackers received."""

    def with_model(self, received: ReceivedModel) -> DataAttack:
        """The attack of this round."""
        ...


def with_model(attack: DataAttack, received: ReceivedModel) -> DataAttack:
    """The attack of this round: crafted on the received model, if it asks for one."""
    return attack.with_model(received) if isinstance(attack, ModelDataAttack) else attack


@runtime_checkable
class UpdateAttack(Protocol):
    """Acts on the attackers' updates between collection and aggregation."""

    @property
    def needs(self) -> Level:
        """The least that the attackers must know."""
        ...

    @property
    def uses(self) -> Level:
        """The most that they can make use of; with less they go by estimates of their own."""
        ...

    def __call__(self, knowledge: Knowledge) -> Updates:
        """The updates `(m, d)` that the attackers send instead of their own, which are not written to."""
        ...


@runtime_checkable
class RememberingAttack(Protocol):
    """An update attack that learns over the rounds."""

    def remember(self, knowledge: Knowledge) -> Mapping[str, Tensor]:
        """The new memory, from `knowledge.memory` and this round's updates; the attack then finds it in its knowledge.

        It goes into checkpoints, so nothing else may be remembered.
        """
        ...


@runtime_checkable
class InitialModelAttack(Protocol):
    """Acts on the model that the server starts from: its provider pretrains it on examples of its own.

    A malicious provider does to its examples and its objective what the scenario's data and loss attacks say.
    """

    malicious: bool
    """Whether it does; a benign provider trains the same model without."""
    new_head: bool
    """Whether the federation puts a fresh head on the features that it got."""

    def divide(self, num_examples: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Which of the training examples the provider holds, and which the clients, as ascending indices."""
        ...

    def program(self, benign: LocalTraining) -> LocalTraining:
        """The provider's training programme, where that of clients is `benign`."""
        ...

    def clean(self) -> "InitialModelAttack":
        """The same by a benign provider."""
        ...
