"""Every audit that says something of clients: the server's of their updates, and clients' own of their data."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import cast

import torch
from data_audit_cases import pictures, trained_model
from torch import Tensor

from fedrobust.aggregators import SpectralFilter
from fedrobust.audits import (
    ActivationClustering,
    AuditedModel,
    AuditPlan,
    ClientAudit,
    DataAudit,
    FrequencyDetector,
    RuleScores,
    SpectralSignatures,
    Strip,
    UpdateClustering,
)
from fedrobust.audits.data_auditing import DataAuditing, DataFinding, OwnData
from fedrobust.config.component import component
from fedrobust.data.datasets import Dataset
from fedrobust.data.examples import Examples
from fedrobust.seeds import torch_generator

NUM_CLIENTS, NUM_EXAMPLES = 4, 150
"""Clients, and the examples of each: every class has ten and more of them."""


@dataclass(frozen=True)
class Case:
    """An audit.

    Attributes:
        method: with settings that suit a test.
        overrides: of the config, for a short federation.
    """

    method: ClientAudit | DataAudit
    overrides: tuple[str, ...] = ()

    @property
    def reads_data(self) -> bool:
        return not isinstance(self.method, ClientAudit)


CASES = {
    "reputation": Case(RuleScores(), ("aggregator=spectral_filter",)),
    "update_clustering": Case(UpdateClustering()),
    "spectral_signatures": Case(SpectralSignatures(max_poison_fraction=0.1)),
    "activation_clustering": Case(
        ActivationClustering(num_starts=3),
        ("audit.method.num_starts=3", "audit.method.min_accuracy=0"),
    ),
    "frequency_detector": Case(
        FrequencyDetector(false_positive_rate=0.1, num_epochs=1, width=2),
        ("audit.method.num_epochs=1", "audit.method.width=2"),
    ),
    "strip": Case(Strip(false_positive_rate=0.1, num_overlays=5), ("audit.method.num_overlays=5",)),
}


@dataclass(frozen=True, eq=False)
class Round:
    """What there is to see of a round.

    Attributes:
        updates: `(n, d)`, a row for each client.
        data: what each client would train on.
    """

    updates: Tensor
    data: tuple[Examples, ...]


@cache
def ordinary() -> Round:
    """Four clients with 15 digits of each class, and updates about one direction; tests must not change it."""
    noise, train = torch.randn(NUM_CLIENTS, 50, generator=torch_generator(0, "noise")), pictures()[0]
    places = [(train.labels == label).nonzero().squeeze(1) for label in range(10)]
    share = NUM_EXAMPLES // 10
    parts = [torch.cat([one[share * rank : share * (rank + 1)] for one in places]) for rank in range(NUM_CLIENTS)]
    return Round(1.0 + 0.5 * noise, tuple(train.subset(part) for part in parts))


@cache
def trusted() -> Examples:
    """Three hundred clean examples; tests must not change them."""
    return pictures()[1].subset(torch.arange(300))


def finding(case: Case, data: dict[int, Examples], model: AuditedModel | None = None) -> DataFinding:
    """What clients find in their own data."""
    plan = AuditPlan(method=cast(DataAudit, case.method), auditor="client")
    own = {client: OwnData(part, torch.zeros(len(part), dtype=torch.bool)) for client, part in data.items()}
    return DataAuditing(plan, trusted(), seed=0).audit(1, own, trained_model() if model is None else model)


@cache
def ordinary_finding(name: str) -> DataFinding:
    """What the four clients find."""
    return finding(CASES[name], dict(enumerate(ordinary().data)))


def suspicion(case: Case, seen: Round, clients: list[int] | None = None) -> Tensor:
    """How suspicious each of `clients` is, in their order; all of the round's if `None`."""
    clients = list(range(len(seen.data))) if clients is None else clients
    if isinstance(case.method, ClientAudit):
        updates = seen.updates[clients]
        return case.method.suspicion(updates, SpectralFilter(assumed_fraction=0.2)(updates))
    found = finding(case, {client: seen.data[client] for client in clients})
    return torch.tensor([found.suspicion(client) for client in clients], dtype=torch.float64)


@component
class LargeDigits:
    """The pictures of this table as a data set: digits of a size that every audit reads."""

    def load(self, data_root: Path | None, device: torch.device) -> Dataset:
        train, test = pictures()[0].subset(torch.arange(NUM_CLIENTS * NUM_EXAMPLES)), trusted()
        mean, std = torch.full((1, 1, 1), 0.3), torch.full((1, 1, 1), 0.35)
        return Dataset("large digits", train, test, 10, "image", mean, std).to(device)
