"""The attack of a scenario: who is malicious, when they attack, and with what at each stage.

Who is malicious is fixed by the scenario's seed. It is known here (the attackers' side) and to `evaluation/`; no
aggregation rule ever sees it.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated

import torch
from annotated_types import Ge, Le
from torch import Tensor

from fedrobust.aggregators.base import Aggregate, State, named_state, state_of
from fedrobust.attacks.base import (
    LEVELS,
    DataAttack,
    Goal,
    InitialModelAttack,
    Knowledge,
    Level,
    LossAttack,
    RememberingAttack,
    UpdateAttack,
)
from fedrobust.attacks.deployed_model.base import DeployedModelAttack
from fedrobust.attacks.schedule import Schedule
from fedrobust.config.component import FieldError, Fraction, Index, component, has_trait
from fedrobust.seeds import torch_generator
from fedrobust.training.local_training import LocalTraining, TrainingOverrides
from fedrobust.types import Updates, Vector, Weights

_MAX_CLAIM = 2**63 - 1
"""The largest number that a reply can hold."""

_MEMORY = "attack"
"""The adversary's part of what a federation remembers."""


@component
class Attack:
    """Malicious clients and what they do; the stages compose.

    Attributes:
        num_malicious: how many clients are malicious, drawn by the scenario's seed; or
        malicious_fraction: which fraction of all clients (rounded down); or
        malicious_clients: exactly these client ids. Give one of the three.
        schedule: the rounds in which they attack; in all others they are benign.
        training: what attackers change in the benign training programme (`null` fields are kept).
        initial_model: who provides the model that the server starts from, or `null` for a fresh one; a malicious
            provider carries out `data` and `loss`.
        data: what they do to their own examples, or `null`.
        loss: what they do to their objective, or `null`.
        update: what they do to their updates before the server sees them, or `null`.
        deployed_model: what becomes of the trained model in its users' memory, or `null`.
        claimed_examples: how many examples they say they have when they attack, or `null` for the truth.
        knowledge: what an update attack may know besides the attackers' own updates: nothing (`own`), the updates of
            benign clients (`benign`), these and the server's rule (`server`).
    """

    num_malicious: Index | None = None
    malicious_fraction: Fraction | None = None
    malicious_clients: list[Index] | None = None
    schedule: Schedule = Schedule()
    training: TrainingOverrides = TrainingOverrides()
    initial_model: InitialModelAttack | None = None
    data: DataAttack | None = None
    loss: LossAttack | None = None
    update: UpdateAttack | None = None
    deployed_model: DeployedModelAttack | None = None
    claimed_examples: Annotated[int, Ge(1), Le(_MAX_CLAIM)] | None = None
    knowledge: Level = "own"

    def __post_init__(self) -> None:
        """Check that the malicious clients are given exactly once, and know what their attack needs."""
        given = (self.num_malicious, self.malicious_fraction, self.malicious_clients)
        if sum(value is not None for value in given) != 1:
            raise FieldError("num_malicious", "must be given, or malicious_fraction, or malicious_clients; exactly one")
        if self.malicious_clients is not None and len(set(self.malicious_clients)) != len(self.malicious_clients):
            raise FieldError("malicious_clients", f"must not repeat a client, got {self.malicious_clients}")
        if self.update is not None and LEVELS.index(self.knowledge) < LEVELS.index(self.update.needs):
            enough = " or ".join(LEVELS[LEVELS.index(self.update.needs) :])
            raise FieldError("knowledge", f"must be {enough} for {type(self.update).__name__}, got {self.knowledge!r}")
        provider = self.initial_model
        if provider is not None and provider.malicious and self.data is None and self.loss is None:
            raise FieldError("initial_model.malicious", "must be false without a data or loss attack, got true")

    def without_attackers(self) -> "Attack":
        """The same without anybody who is malicious; its triggers can still be tried on a model that never saw them."""
        provider = None if self.initial_model is None else self.initial_model.clean()
        return dataclasses.replace(
            self,
            num_malicious=0,
            malicious_fraction=None,
            malicious_clients=None,
            initial_model=provider,
            deployed_model=None,
        )

    @property
    def goal(self) -> Goal | None:
        """By what `evaluation/` judges: the attack on data, or one on the objective that has a trigger of its own."""
        if self.data is not None:
            return self.data
        return self.loss if isinstance(self.loss, Goal) else None

    def choose_malicious(self, num_clients: int, seed: int) -> tuple[int, ...]:
        """The ids of the malicious clients, sorted.

        Raises:
            FieldError: more malicious clients than clients, or an id that no client has.
        """
        if self.malicious_clients is not None:
            if any(client >= num_clients for client in self.malicious_clients):
                raise FieldError(
                    "malicious_clients", f"must be below num_clients={num_clients}, got {self.malicious_clients}"
                )
            return tuple(sorted(self.malicious_clients))
        if self.num_malicious is not None:
            count = self.num_malicious
            if count > num_clients:
                raise FieldError("num_malicious", f"must be at most num_clients={num_clients}, got {count}")
        else:
            count = int((self.malicious_fraction or 0.0) * num_clients + 1e-9)
        order = torch.randperm(num_clients, generator=torch_generator(seed, "malicious"))
        return tuple(sorted(order[:count].tolist()))


@dataclass(frozen=True)
class ServerView:
    """All there is to know of the server in a round; attackers get of it what their `knowledge` grants.

    Attributes:
        weights: `(n,)`, summing to 1: what the server will really give each client.
        learning_rate: η.
        answer: what its rule makes of these updates `(n, d)`.
        model: the global model `(d,)` that the round's clients received.
        memory: what the federation remembers.
    """

    weights: Weights
    learning_rate: float
    answer: Callable[[Updates], Aggregate]
    model: Vector
    memory: State = field(default_factory=dict)


@dataclass(frozen=True)
class Corruption:
    """What attackers did to a round's updates.

    Attributes:
        rows: the rows that were changed.
        memory: what the attackers remember now.
    """

    rows: tuple[int, ...]
    memory: State


@dataclass(frozen=True)
class Adversary:
    """The malicious clients of one scenario, as they act round by round.

    Attributes:
        attack: what they do.
        malicious: their ids, ascending.
        seed: the scenario's.
        resting: nobody attacks, whatever the schedule says.
    """

    attack: Attack
    malicious: tuple[int, ...]
    seed: int = 0
    resting: bool = False

    def at_rest(self) -> "Adversary":
        """The same malicious clients in a round that they sit out."""
        return dataclasses.replace(self, resting=True)

    def attackers(self, round_number: int) -> tuple[int, ...]:
        """The ids of the clients that attack in this round if they take part."""
        if self.resting:
            return ()
        ranks = self.attack.schedule.attackers(round_number, len(self.malicious))
        return tuple(self.malicious[rank] for rank in ranks)

    def rank(self, client: int) -> int:
        """A malicious client's rank among the malicious: it says which local trigger is its own."""
        return self.malicious.index(client)

    def forced(self, round_number: int) -> tuple[int, ...]:
        """The clients that take part in this round whatever the server samples."""
        return self.attackers(round_number) if self.attack.schedule.participation == "forced" else ()

    def training(self, benign: LocalTraining) -> LocalTraining:
        """The training programme of an attacking client."""
        return self.attack.training.applied_to(benign)

    def claim(self, client: int, num_examples: int, round_number: int) -> int:
        """How many examples a client with `num_examples` says it has in this round."""
        claimed = self.attack.claimed_examples
        return num_examples if claimed is None or client not in self.attackers(round_number) else claimed

    def corrupt(self, clients: tuple[int, ...], updates: Updates, server: ServerView, round_number: int) -> Corruption:
        """Let this round's attackers replace their rows of `updates` `(n, d)`, in place.

        Args:
            clients: the client id of each row.
            updates: client updates, changed in the attackers' rows.
            server: what there is to know of the server.
            round_number: which round it is.
        """
        memory = state_of(_MEMORY, server.memory)
        attack, attackers = self.attack.update, self.attackers(round_number)
        rows = tuple(row for row, client in enumerate(clients) if client in attackers)
        if has_trait(attack, "uses_model_change") and not set(self.malicious).isdisjoint(clients):
            memory = {**memory, "received": server.model}
        if attack is None or not rows:
            return Corruption((), memory)
        knowledge = self._knowledge(attack, clients, rows, updates, server, round_number)
        if isinstance(attack, RememberingAttack):
            memory = {**memory, **attack.remember(knowledge)}
            knowledge = dataclasses.replace(knowledge, memory=memory)
        updates[list(rows)] = attack(knowledge)
        return Corruption(rows, memory)

    def remember(self, corruption: Corruption) -> State:
        """What goes into the federation's memory after a step of the global model; often nothing."""
        return named_state(_MEMORY, corruption.memory)

    def _knowledge(
        self,
        attack: UpdateAttack,
        clients: tuple[int, ...],
        rows: tuple[int, ...],
        updates: Updates,
        server: ServerView,
        round_number: int,
    ) -> Knowledge:
        """What is granted and of use; the rest is not even copied."""
        level = min(LEVELS.index(self.attack.knowledge), LEVELS.index(attack.uses))
        memory = state_of(_MEMORY, server.memory)
        own = list(rows)
        received = memory.get("received") if has_trait(attack, "uses_model_change") else None
        knowledge = Knowledge(
            updates[own],
            server.weights[own],
            server.learning_rate,
            len(clients),
            model_change=None if received is None else server.model - received.to(server.model),
            memory=memory,
            generator=torch_generator(self.seed, "update attack", round_number),
        )
        if level >= LEVELS.index("benign"):
            others = [row for row in range(len(clients)) if row not in rows]
            knowledge = dataclasses.replace(
                knowledge,
                benign_updates=updates[others],
                benign_weights=server.weights[others],
                benign_clients=tuple(clients[row] for row in others),
            )
        if level < LEVELS.index("server"):
            return knowledge

        def answer(sent: Updates) -> Tensor:
            updates[own] = sent  # they are about to be replaced anyway
            return server.answer(updates).update

        return dataclasses.replace(knowledge, answer=answer)
