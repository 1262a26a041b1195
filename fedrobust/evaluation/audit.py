"""How well an audit did: what it flagged, against what was poisoned and who was malicious."""

import math
from collections.abc import Collection
from typing import Any

import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor

from fedrobust.audits.base import ModelReport
from fedrobust.audits.data_auditing import DataFinding


def data_figures(finding: DataFinding) -> dict[str, Any]:
    """Of all examples that were audited: counts, the flagged fraction of poisoned (recall) and of clean ones (FPR).

    A rate of nothing is `None`.
    """
    flagged = torch.cat([finding.flagged[client] for client in finding.flagged])
    poisoned = torch.cat([finding.is_poisoned[client] for client in finding.flagged])
    hits, wrong = int((flagged & poisoned).sum()), int((flagged & ~poisoned).sum())
    num_poisoned, num_clean = int(poisoned.sum()), int((~poisoned).sum())
    undecided = sorted({label for report in finding.reports for label in report.undecided_labels})
    labels = sorted({label for report in finding.reports for label in report.poisoned_labels})
    return {
        "num_examples": len(flagged),
        "num_poisoned": num_poisoned,
        "num_flagged": hits + wrong,
        "recall": hits / num_poisoned if num_poisoned else None,
        "false_positive_rate": wrong / num_clean if num_clean else None,
        "convicted_labels": labels,
        "undecided_labels": undecided,
        "uncalibrated": sorted(set(finding.uncalibrated.values())),
        "num_not_judged": len(finding.reasons),
        "reasons": {str(client): reason for client, reason in finding.reasons.items()},
    }


def model_figures(report: ModelReport) -> dict[str, Any]:
    """The verdict, the labels that it names, and the score of each label; `None` for one that was not judged."""
    return {
        "is_backdoored": report.is_backdoored,
        "flagged_labels": report.flagged.nonzero().squeeze(1).tolist(),
        "label_scores": _plain(report.scores),
    }


def client_figures(reputations: Tensor, excluded: Collection[int], malicious: Collection[int]) -> dict[str, Any]:
    """Average suspicion of every client, who is malicious, who is excluded, and how well the averages tell them apart.

    The AUC is of the receiver operating characteristic over all clients that were judged, `None` if these are all
    malicious or all benign.
    """
    judged = (~reputations.isnan()).nonzero().squeeze(1).tolist()
    truth = [client in malicious for client in judged]
    auc = float(roc_auc_score(truth, reputations[judged].numpy())) if 0 < sum(truth) < len(truth) else None
    num_benign = len(reputations) - len(malicious)
    return {
        "reputations": _plain(reputations),
        "malicious_clients": sorted(malicious),
        "client_auc": auc,
        "excluded_clients": sorted(excluded),
        "excluded_tpr": sum(client in malicious for client in excluded) / len(malicious) if malicious else None,
        "excluded_fpr": sum(client not in malicious for client in excluded) / num_benign if num_benign else None,
    }


def _plain(values: Tensor) -> list[float | None]:
    return [None if math.isnan(value) else value for value in values.tolist()]
