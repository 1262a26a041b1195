"""Fit, score the samples, drop those with the highest scores, fit again: what Sever and its rivals have in common."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.utils import get_tags

from fedrobust.statistics.per_sample_gradients import Floats
from fedrobust.statistics.results import Iteration

Groups: TypeAlias = NDArray[np.intp]
"""`(n,)`, the group of each sample: what is compared with what."""

ScoreFunction: TypeAlias = Callable[[Any, Any, Any, Groups], tuple[float, Floats]]
"""From a fitted estimator, `X`, `y` and groups to a figure for the record and the samples' scores `(n,)`."""

_ROUNDING = 1e-9
"""Copies of one sample must leave together, though their scores may differ in the last bits."""


@dataclass(frozen=True, eq=False)
class FilteredFit:
    """An estimator, and what it was fitted on.

    Attributes:
        estimator: fitted on the kept samples.
        kept: indices of the kept samples, ascending.
        scores: `(n,)`, relative to the quantile of the last round that looked at the sample: dropped from 1 on.
        iterations: one entry a round.
    """

    estimator: Any
    kept: NDArray[np.intp]
    scores: Floats
    iterations: tuple[Iteration, ...]


def filtered_fit(
    estimator: Any, X: Any, y: Any, score: ScoreFunction, *, groups: Groups, num_rounds: int, drop_fraction: float
) -> FilteredFit:
    """Fit a clone; each round drop the part with the highest scores in each group and fit another; end when none goes.

    Args:
        estimator: what to fit; one that takes kernels gets the kept rows and columns.
        X: `(n, d)`, an array or a scipy.sparse matrix in CSR format; `(n, n)` for a kernel.
        y: `(n,)` or `(n, k)`.
        score: called after each fit with the samples that are left.
        groups: `(n,)`, the samples that are compared with one another.
        num_rounds: how often to drop.
        drop_fraction: p: all scores at the (1-p)-quantile of their group and above are dropped.
    """
    kept = np.arange(len(y))
    scores = np.zeros(len(y))
    iterations: list[Iteration] = []
    is_pairwise = get_tags(estimator).input_tags.pairwise
    inputs, targets = X, y
    fitted = clone(estimator).fit(inputs, targets)
    for _ in range(num_rounds if drop_fraction > 0 else 0):
        statistic, found = score(fitted, inputs, targets, groups[kept])
        relative = relative_to_quantile(found, groups[kept], drop_fraction)
        scores[kept] = relative
        survivors = np.flatnonzero(relative < 1)
        iterations.append(Iteration(statistic=statistic, threshold=None, removed=float(len(kept) - len(survivors))))
        if len(survivors) == len(kept):
            break
        kept, targets = kept[survivors], targets[survivors]
        inputs = inputs[np.ix_(survivors, survivors)] if is_pairwise else inputs[survivors]
        fitted = clone(estimator).fit(inputs, targets)
    return FilteredFit(fitted, kept, scores, tuple(iterations))


def relative_to_quantile(scores: Floats, groups: Groups, drop_fraction: float) -> Floats:
    """Scores over the (1-p)-quantile (MATLAB's) of their group: drop from 1 on.

    All zero in a group of which nothing would be left. Scores that equal the quantile go, unless they and those above
    are more than a part 2p of the group: where p is half of what may be corrupted, so many cannot be.
    """
    relative = np.zeros(len(scores))
    for group in np.unique(groups):
        members = np.flatnonzero(groups == group)
        own = scores[members]
        threshold = float(np.quantile(own, 1 - drop_fraction, method="hazen"))
        if own.min() >= threshold:  # all alike, or most of them zero
            continue
        ratios = own / threshold
        tied = np.abs(ratios - 1) <= _ROUNDING
        at_least = int((tied | (ratios > 1)).sum())
        ratios[tied] = 1.0 if at_least <= math.ceil(2 * drop_fraction * len(members)) else np.nextafter(1.0, 0.0)
        relative[members] = ratios
    return relative
