"""Audits on the server's side: what it remembers of its clients, and what it makes of the model."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from fedrobust.aggregators.base import Aggregate, State
from fedrobust.audits.audited_model import AuditedModel
from fedrobust.audits.base import ModelAudit, ModelReport
from fedrobust.audits.clients import ClientAudit
from fedrobust.audits.data_auditing import DataFinding
from fedrobust.audits.model.neural_cleanse import NeuralCleanseReport
from fedrobust.audits.plan import AuditPlan
from fedrobust.data.examples import Examples
from fedrobust.seeds import torch_generator
from fedrobust.types import Updates


@dataclass(frozen=True, eq=False)
class ServerAuditing:
    """The server's part in the audit of a scenario.

    Attributes:
        plan: what is audited, when, and what follows.
        clean: a few examples that the server trusts.
        num_clients: of the federation.
        seed: the scenario's.
    """

    plan: AuditPlan
    clean: Examples
    num_clients: int
    seed: int

    def excluded(self, memory: State) -> tuple[int, ...]:
        """The clients that are asked no more."""
        if self.plan.action != "exclude_clients":
            return ()
        return self.plan.reputation.excluded(memory, self.num_clients)

    def suspicion(
        self, clients: Sequence[int], updates: Updates, aggregate: Aggregate, finding: DataFinding | None
    ) -> Tensor | None:
        """How suspicious each of a round's clients is, `(n,)`; `None` where the plan says nothing of clients.

        Raises:
            ValueError: the method reads what the rule does not give.
        """
        if self.plan.kind == "clients":
            return cast(ClientAudit, self.plan.method).suspicion(updates, aggregate)
        if finding is not None and self.plan.auditor == "trusted":
            ignored = finding.uncalibrated if self.plan.acts and not self.plan.allow_uncalibrated else {}
            suspicion = [float("nan") if client in ignored else finding.suspicion(client) for client in clients]
            return torch.tensor(suspicion, dtype=torch.float64)
        return None

    def remember(self, memory: State, clients: Sequence[int], suspicion: Tensor) -> State:
        """What the server remembers of its clients after a round."""
        return self.plan.reputation.remember(memory, clients, suspicion, self.num_clients)

    def reputations(self, memory: State) -> Tensor:
        """The average suspicion of every client, `(num_clients,)`, NaN where there is none."""
        return self.plan.reputation.averages(memory, self.num_clients)

    def examine(self, model: AuditedModel, round_number: int) -> ModelReport | None:
        """The report on the model, if that is what the plan looks at."""
        if self.plan.kind != "model":
            return None
        return cast(ModelAudit, self.plan.method)(model, self.clean, self._generator("audit", round_number))

    def unlearn(self, model: AuditedModel, report: ModelReport, round_number: int) -> AuditedModel | None:
        """The model without what the report found, or `None` if nothing is to be done."""
        if self.plan.action != "unlearn" or not isinstance(report, NeuralCleanseReport) or not report.is_backdoored:
            return None
        triggers = [report.trigger(label) for label in report.flagged_labels]
        return self.plan.unlearning(model, triggers, self.clean, self._generator("unlearn", round_number))

    def _generator(self, purpose: str, round_number: int) -> torch.Generator:
        return torch_generator(self.seed, purpose, round_number)
