"""Thresholds with a stated false-positive rate, and verdicts on classes from how many examples exceed them."""

import math
from typing import Annotated

import torch
from annotated_types import Gt, Lt
from scipy.stats import beta
from torch import Tensor

from fedrobust.audits.base import ClassVerdict, DataReport
from fedrobust.data.examples import Examples

FalsePositiveRate = Annotated[float, Gt(0), Lt(0.5)]

MIN_CLASS_SIZE = 10
"""Of fewer examples an audit says nothing."""


def smallest_calibration(false_positive_rate: float) -> int:
    """How many clean scores a threshold of that rate needs at least."""
    return math.ceil(1 / false_positive_rate - 1 - 1e-9)


def calibrated_threshold(clean_scores: Tensor, false_positive_rate: float) -> float:
    """The score that a fresh clean example exceeds with a probability of at most `false_positive_rate`.

    With n clean scores it is the k-th largest, k = ⌊rate (n + 1)⌋: a fresh one from the same distribution is equally
    likely to take each of n + 1 ranks.

    Args:
        clean_scores: `(n,)`, finite; larger is more suspicious.
        false_positive_rate: in (0, ½).

    Raises:
        ValueError: too few scores for the rate.

    Source: Vovk, Gammerman, Shafer, "Algorithmic Learning in a Random World", Springer 2005, section 2.3.
    Departs: nothing.
    """
    k = math.floor(false_positive_rate * (len(clean_scores) + 1) + 1e-9)
    if k < 1:
        raise ValueError(
            f"a false-positive rate of {false_positive_rate} needs at least "
            f"{smallest_calibration(false_positive_rate)} clean scores, got {len(clean_scores)}"
        )
    return float(clean_scores.double().topk(k).values[-1])


def calibrated_report(
    audit: str,
    examples: Examples,
    scores: Tensor,
    threshold: float,
    *,
    score_name: str,
    tolerated_rate: float,
    confidence: float,
) -> DataReport:
    """What an audit with a calibrated threshold says: flagged are the scores above it; for classes, `rate_verdicts`.

    Args:
        audit: its name.
        examples: what was scored, N of them.
        scores: `(N,)`, on the CPU.
        threshold: see `calibrated_threshold`.
        score_name: what the scores are.
        tolerated_rate: see `rate_verdicts`.
        confidence: likewise.
    """
    labels, flagged = examples.labels.cpu(), scores > threshold
    return DataReport(
        audit=audit,
        labels=labels,
        scores=scores,
        flagged=flagged,
        verdicts=tuple(rate_verdicts(labels, flagged, tolerated_rate, confidence)),
        score_name=score_name,
        statistic_name=f"flagged share, {100 * confidence:g} % lower bound",
        statistic_threshold=tolerated_rate,
        score_threshold=threshold,
    )


def rate_verdicts(labels: Tensor, flagged: Tensor, tolerated_rate: float, confidence: float) -> list[ClassVerdict]:
    """Convict the classes of which surely more than `tolerated_rate` is flagged.

    The statistic is the lower end of a one-sided Clopper-Pearson interval for the flagged rate. The confidence holds
    for all classes together (Bonferroni).

    Args:
        labels: `(N,)`.
        flagged: `(N,)` booleans.
        tolerated_rate: well above the false-positive rate, which differs between classes.
        confidence: that no class below `tolerated_rate` is convicted.
    """
    verdicts = []
    present = torch.unique(labels).tolist()
    for label in present:
        of_class = flagged[labels == label]
        n, hits = len(of_class), int(of_class.sum())
        if n < MIN_CLASS_SIZE:
            verdicts.append(too_small(label, n))
            continue
        doubt = (1 - confidence) / len(present)
        lower = float(beta.ppf(doubt, hits, n - hits + 1)) if hits else 0.0
        verdicts.append(ClassVerdict(label, lower > tolerated_rate, lower, n))
    return verdicts


def too_small(label: int, num_examples: int) -> ClassVerdict:
    """No verdict, for want of examples."""
    reason = f"{num_examples} examples, {MIN_CLASS_SIZE} are needed"
    return ClassVerdict(label, None, math.nan, num_examples, reason)
