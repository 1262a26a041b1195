"""The audit of a scenario: who looks at what, in which rounds, and what follows."""

import inspect
from typing import Literal, TypeAlias

from fedrobust.audits.base import DataAudit, ModelAudit
from fedrobust.audits.clients import ClientAudit, Reputation
from fedrobust.audits.model import NeuralCleanse, Unlearning
from fedrobust.config.component import Count, FieldError, component

Kind: TypeAlias = Literal["data", "model", "clients"]

_AUDITORS: dict[Kind, tuple[str, ...]] = {
    "data": ("client", "trusted"),
    "model": ("server",),
    "clients": ("server",),
}
_ACTIONS: dict[Kind, tuple[str, ...]] = {
    "data": ("report", "drop_samples", "exclude_clients"),
    "model": ("report", "unlearn"),
    "clients": ("report", "exclude_clients"),
}


@component
class AuditPlan:
    """An audit within a federation; without a `method` there is none.

    A server cannot see its clients' data. So audits of data are done by each client on its own data with the model that
    it received (`client`), or by an auditor whom all clients show what they would train on (`trusted`); the server
    audits the model, with a small clean set, and what its clients send.

    Attributes:
        method: an audit of data, of the model, or of clients.
        auditor: `client`, `trusted` or `server`.
        start: the first round with an audit.
        every: audit in every k-th round from then on.
        action: what follows. `report` nothing; `drop_samples`: flagged examples are left out of that round's training;
            `exclude_clients`: clients whose average suspicion passes `reputation`'s threshold are asked no more (of an
            audit of data, the suspicion of a client is the flagged fraction of its examples); `unlearn`: the model is
            fine-tuned on the clean set with the recovered triggers stamped.
        allow_uncalibrated: let what an audit of data flags be acted on though its flags come with no stated rate of
            false alarms. Otherwise such a method may only report, and where a round's report turns out so (clean
            examples that are too few, a model that has not learnt enough), nothing follows from it.
        num_clean: examples of the clean set, drawn from the training examples by the scenario's seed.
        reputation: how suspicion is gathered over rounds.
        unlearning: how a model unlearns.

    Raises:
        FieldError: an auditor or an action that the method does not allow.
    """

    method: DataAudit | ModelAudit | ClientAudit | None = None
    auditor: Literal["client", "trusted", "server"] = "server"
    start: Count = 1
    every: Count = 1
    action: Literal["report", "drop_samples", "exclude_clients", "unlearn"] = "report"
    allow_uncalibrated: bool = False
    num_clean: Count = 200
    reputation: Reputation = Reputation()
    unlearning: Unlearning = Unlearning()

    def __post_init__(self) -> None:
        """Check that the parts fit."""
        kind = self.kind
        if kind is None:
            return
        name = type(self.method).__name__
        for field, value, allowed in (
            ("auditor", self.auditor, _AUDITORS[kind]),
            ("action", self.action, _ACTIONS[kind]),
        ):
            if value not in allowed:
                raise FieldError(field, f"must be {' or '.join(allowed)} for {name}, an audit of {kind}, got {value!r}")
        if self.action == "exclude_clients" and self.auditor == "client":
            raise FieldError("action", "must be report or drop_samples where clients audit themselves")
        # A method that may be calibrated or not says so in its reports.
        reason = getattr(self.method, "uncalibrated", "") if kind == "data" else ""
        if reason and self.acts and not self.allow_uncalibrated:
            raise FieldError(
                "action",
                f"must be report for {name}, which is not calibrated ({reason}), got {self.action!r}; "
                "audit.allow_uncalibrated=true allows it",
            )
        if self.action == "unlearn" and not isinstance(self.method, NeuralCleanse):
            raise FieldError("action", f"must be report for {name}, which recovers no trigger to unlearn")

    @property
    def kind(self) -> Kind | None:
        """What the method looks at."""
        if self.method is None:
            return None
        if isinstance(self.method, ClientAudit):
            return "clients"
        # Both other kinds are called; an audit of data may be given clean examples.
        return "data" if "clean" in inspect.signature(self.method).parameters else "model"

    @property
    def acts(self) -> bool:
        """Whether anything follows from what is found."""
        return self.action != "report"

    def is_due(self, round_number: int) -> bool:
        """Whether there is an audit in this round."""
        return self.method is not None and round_number >= self.start and (round_number - self.start) % self.every == 0
