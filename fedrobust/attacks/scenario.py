"""The attack of a scenario: who is malicious, when they attack, and with what at each stage.

Who is malicious is fixed by the scenario's seed. It is known here (the attackers' side) and to `evaluation/`; no
aggregation rule ever sees it.
"""

from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Gt, Lt

from fedrobust.attacks.base import DataAttack, Knowledge, LossAttack, UpdateAttack
from fedrobust.attacks.schedule import Schedule
from fedrobust.clients.local_training import LocalTraining, TrainingOverrides
from fedrobust.component import FieldError, Index, component
from fedrobust.seeds import torch_generator
from fedrobust.types import Updates, Weights


@component
class Attack:
    """Malicious clients and what they do; the stages compose.

    Attributes:
        num_malicious: how many clients are malicious, drawn by the scenario's seed; or
        malicious_fraction: which fraction of all clients (rounded down); or
        malicious_clients: exactly these client ids. Give one of the three.
        schedule: the rounds in which they attack; in all others they are benign.
        training: what attackers change in the benign training programme (`null` fields are kept).
        data: what they do to their own examples, or `null`.
        loss: what they do to their objective, or `null`.
        update: what they do to their updates before the server sees them, or `null`.
    """

    num_malicious: Index | None = None
    malicious_fraction: Annotated[float, Gt(-1e-12), Lt(1)] | None = None
    malicious_clients: list[Index] | None = None
    schedule: Schedule = Schedule()
    training: TrainingOverrides = TrainingOverrides()
    data: DataAttack | None = None
    loss: LossAttack | None = None
    update: UpdateAttack | None = None

    def __post_init__(self) -> None:
        """Check that the malicious clients are given exactly once."""
        given = (self.num_malicious, self.malicious_fraction, self.malicious_clients)
        if sum(value is not None for value in given) != 1:
            raise FieldError("num_malicious", "must be given, or malicious_fraction, or malicious_clients; exactly one")
        if self.malicious_clients is not None and len(set(self.malicious_clients)) != len(self.malicious_clients):
            raise FieldError("malicious_clients", f"must not repeat a client, got {self.malicious_clients}")

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
class Adversary:
    """The malicious clients of one scenario, as they act round by round."""

    attack: Attack
    malicious: tuple[int, ...]

    def attackers(self, round_number: int) -> tuple[int, ...]:
        """The ids of the clients that attack in this round if they take part."""
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

    def corrupt(
        self,
        clients: tuple[int, ...],
        updates: Updates,
        weights: Weights,
        server_learning_rate: float,
        round_number: int,
    ) -> tuple[int, ...]:
        """Let this round's attackers replace their rows of `updates` `(n, d)`, in place.

        Args:
            clients: the client id of each row.
            updates: client updates, changed in the attackers' rows.
            weights: `(n,)`, summing to 1: what the server will really give each client.
            server_learning_rate: η.
            round_number: which round it is.

        Returns:
            The rows that were changed.
        """
        attackers = self.attackers(round_number)
        rows = tuple(row for row, client in enumerate(clients) if client in attackers)
        if self.attack.update is None or not rows:
            return ()
        chosen = torch.tensor(rows, device=updates.device)
        knowledge = Knowledge(updates[chosen], weights[chosen.to(weights.device)], server_learning_rate)
        updates[chosen] = self.attack.update(knowledge)
        return rows
