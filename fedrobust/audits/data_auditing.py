"""Audits of data within a federation, on the clients' side: each client's own, or all clients' data pooled.

What is audited is what clients would train on in that round, poison included. What attackers do to single batches
(`poison_count`) happens after it, and no audit of a data set sees it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast

import torch
from torch import Tensor

from fedrobust.audits.audited_model import AuditedModel
from fedrobust.audits.base import DataAudit, DataReport
from fedrobust.audits.plan import AuditPlan
from fedrobust.data.examples import Examples
from fedrobust.seeds import torch_generator


@dataclass(frozen=True, eq=False)
class OwnData:
    """What a client would train on.

    Attributes:
        examples: raw.
        is_poisoned: `(n,)` booleans on the CPU; no audit is shown them, `evaluation/` is.
    """

    examples: Examples
    is_poisoned: Tensor


@dataclass(frozen=True, eq=False)
class DataFinding:
    """What an audit found in the data of some clients.

    Attributes:
        flagged: by client, `(n,)` booleans.
        is_poisoned: by client, the truth.
        reports: one of all, or one of each client that could be judged.
        reasons: by client, why it could not be judged.
        uncalibrated: by client, why its flags come with no stated rate of false alarms.
    """

    flagged: Mapping[int, Tensor]
    is_poisoned: Mapping[int, Tensor]
    reports: tuple[DataReport, ...]
    reasons: Mapping[int, str]
    uncalibrated: Mapping[int, str] = field(default_factory=dict)

    @classmethod
    def join(cls, parts: Sequence["DataFinding"]) -> "DataFinding":
        """What was found in the data of several clients, each by itself."""
        if len(parts) == 1:
            return parts[0]
        flagged, truth, reasons = dict[int, Tensor](), dict[int, Tensor](), dict[int, str]()
        uncalibrated = dict[int, str]()
        for part in parts:
            flagged |= part.flagged
            truth |= part.is_poisoned
            reasons |= part.reasons
            uncalibrated |= part.uncalibrated
        return cls(flagged, truth, tuple(report for part in parts for report in part.reports), reasons, uncalibrated)

    def suspicion(self, client: int) -> float:
        """The flagged fraction of a client's examples; NaN if it was not judged."""
        flags = self.flagged.get(client)
        if flags is None or client in self.reasons or len(flags) == 0:
            return float("nan")
        return float(flags.double().mean())


@dataclass(frozen=True, eq=False)
class DataAuditing:
    """How the clients' data are audited.

    Attributes:
        plan: with an audit of data as its method.
        clean: examples that the auditor trusts.
        seed: the scenario's.
    """

    plan: AuditPlan
    clean: Examples
    seed: int

    def kept(self, finding: DataFinding, client: int) -> Tensor:
        """Which of its examples a client trains on, `(n,)` booleans: all, where its flags are not to be acted on."""
        flags = finding.flagged[client]
        if client in finding.uncalibrated and not self.plan.allow_uncalibrated:
            return torch.ones_like(flags)
        return ~flags

    def audit(self, round_number: int, data: Mapping[int, OwnData], model: AuditedModel) -> DataFinding:
        """Audit the data of some clients in a round, pooled or one by one.

        Raises:
            ValueError: the method cannot read the pooled data; of a single client that is a reason not to judge it.
        """
        if self.plan.auditor == "trusted":
            return self._pooled(round_number, data, model)
        method = cast(DataAudit, self.plan.method)
        flagged, reports, reasons = dict[int, Tensor](), list[DataReport](), dict[int, str]()
        uncalibrated = dict[int, str]()
        for client, own in data.items():
            generator = torch_generator(self.seed, "audit", round_number, client)
            try:
                report = method(own.examples, model, generator, self.clean)
                if reason := _reason_for_silence(report):
                    raise ValueError(reason)
            except ValueError as error:
                flagged[client], reasons[client] = torch.zeros(len(own.examples), dtype=torch.bool), str(error)
                continue
            flagged[client] = report.flagged
            reports.append(report)
            if report.uncalibrated:
                uncalibrated[client] = report.uncalibrated
        return DataFinding(flagged, _truth(data), tuple(reports), reasons, uncalibrated)

    def _pooled(self, round_number: int, data: Mapping[int, OwnData], model: AuditedModel) -> DataFinding:
        method = cast(DataAudit, self.plan.method)
        parts = [own.examples for own in data.values()]
        pool = Examples(torch.cat([part.inputs for part in parts]), torch.cat([part.labels for part in parts]))
        report = method(pool, model, torch_generator(self.seed, "audit", round_number), self.clean)
        shares = report.flagged.split([len(part) for part in parts])
        silence = _reason_for_silence(report)
        reasons = dict.fromkeys(data, silence) if silence else {}
        uncalibrated = dict.fromkeys(data, report.uncalibrated) if report.uncalibrated else {}
        return DataFinding(dict(zip(data, shares, strict=True)), _truth(data), (report,), reasons, uncalibrated)


def _reason_for_silence(report: DataReport) -> str:
    """Why no example was scored or, where flags follow from verdicts, there is none; empty where there is.

    A client whose classes are all too small is not innocent.
    """
    has_verdict = len(report.undecided_labels) < len(report.verdicts) or bool(report.flagged.any())
    if not bool(report.scores.isnan().all()) and (has_verdict or report.score_threshold is not None):
        return ""
    largest = max(report.verdicts, key=lambda verdict: verdict.num_examples)
    return f"no class was judged: {largest.reason}"


def _truth(data: Mapping[int, OwnData]) -> dict[int, Tensor]:
    return {client: own.is_poisoned for client, own in data.items()}
