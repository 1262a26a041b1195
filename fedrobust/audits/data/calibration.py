"""Thresholds with a stated false-positive rate, and verdicts on classes from how many examples exceed them."""

import math
from typing import Annotated

import torch
from annotated_types import Gt, Lt
from scipy.stats import beta
from torch import Tensor

from fedrobust.audits.base import ClassVerdict, DataReport
from fedrobust.audits.data.clean_reference import avoidance, smallest_reference
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
    reference: tuple[Tensor, Tensor] | None,
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
        reference: clean labels `(M,)` and scores `(M,)` by which a class is compared with itself; see `rate_verdicts`.
    """
    flags = None if reference is None else (reference[0].cpu(), reference[1] > threshold)
    labels, flagged = examples.labels.cpu(), scores > threshold
    return DataReport(
        audit=audit,
        labels=labels,
        scores=scores,
        flagged=flagged,
        verdicts=tuple(rate_verdicts(labels, flagged, tolerated_rate, confidence, flags)),
        score_name=score_name,
        statistic_name=f"flagged share, {100 * confidence:g} % lower bound",
        statistic_threshold=tolerated_rate,
        score_threshold=threshold,
    )


def rate_verdicts(
    labels: Tensor,
    flagged: Tensor,
    tolerated_rate: float,
    confidence: float,
    reference: tuple[Tensor, Tensor] | None = None,
) -> list[ClassVerdict]:
    """Convict the classes of which surely more than `tolerated_rate` is flagged, and more than of their clean examples.

    The statistic is the lower end of a one-sided Clopper-Pearson interval for the flagged rate. The confidence holds
    for all classes together (Bonferroni). A threshold that is set on all classes at once lets some exceed
    `tolerated_rate` that are clean: their own clean examples tell, by Fisher's exact test (`avoidance`).

    Args:
        labels: `(N,)`.
        flagged: `(N,)` booleans.
        tolerated_rate: well above the false-positive rate, which differs between classes.
        confidence: that no class is convicted that is below `tolerated_rate`, or like its clean examples.
        reference: labels `(M,)` of clean examples, and whether they are flagged; `None` goes by `tolerated_rate` alone.
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
        is_poisoned: bool | None = lower > tolerated_rate
        reason = ""
        if is_poisoned and reference is not None:
            own = reference[1][reference[0] == label]
            is_poisoned = avoidance(hits, n, int(own.sum()), len(own)) < doubt
            if avoidance(hits, n, 0, len(own)) >= doubt:
                is_poisoned, needed = None, smallest_reference(hits, n, doubt)
                few = f"{len(own)} clean examples of the class are too few to convict it"
                reason = f"cannot tell: {few}, {needed} are needed"
        verdicts.append(ClassVerdict(label, is_poisoned, lower, n, reason))
    return verdicts


def too_small(label: int, num_examples: int) -> ClassVerdict:
    """No verdict, for want of examples."""
    reason = f"{num_examples} examples, {MIN_CLASS_SIZE} are needed"
    return ClassVerdict(label, None, math.nan, num_examples, reason)
