"""Fit, score the samples, drop those with the highest scores, fit again: what Sever and its rivals have in common."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.utils import get_tags

from fedrobust.filters.results import Iteration
from fedrobust.statistics.sever.per_sample_gradients import Floats

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
    rounds = FilterRounds(estimator, X, y, score, groups=groups, drop_fraction=drop_fraction)
    for _ in range(num_rounds):
        if not rounds.play():
            break
    return rounds.fit_after(len(rounds.fits) - 1)


class FilterRounds:
    """The fits of `filtered_fit`, round by round.

    Attributes:
        fits: the fit on all samples, and one more for each round that dropped something; their `iterations` are empty.
        iterations: one entry for each round that was played.
    """

    def __init__(
        self,
        estimator: Any,
        X: Any,
        y: Any,
        score: ScoreFunction,
        *,
        groups: Groups,
        drop_fraction: float,
        start: tuple[NDArray[np.intp], Floats] | None = None,
    ) -> None:
        """Fit on all samples, or on those to `start` with.

        Args:
            estimator: this and the following as for `filtered_fit`.
            X: likewise.
            y: likewise.
            score: likewise.
            groups: likewise.
            drop_fraction: likewise.
            start: indices of the samples to start with, ascending, and the scores of all.
        """
        self._estimator = estimator
        self._is_pairwise = bool(get_tags(estimator).input_tags.pairwise)
        kept, scores = (np.arange(len(y)), np.zeros(len(y))) if start is None else start
        self._inputs, self._targets = X, y
        if start is not None:
            self._take(kept)
        self._score = score
        self._groups = groups
        self._sizes = np.bincount(groups)
        self._drop_fraction = drop_fraction
        self._is_over = drop_fraction == 0
        first = clone(estimator).fit(self._inputs, self._targets)
        self.fits = [FilteredFit(first, kept, scores, ())]
        self.iterations: list[Iteration] = []

    def play(self, *, least_kept: float = 0.0) -> bool:
        """Play a round; false if it dropped nothing, or was not played.

        Args:
            least_kept: the part of each group that must be left; else the round is not played.
        """
        last = self.fits[-1]
        if self._is_over:
            return False
        groups = self._groups[last.kept]
        statistic, found = self._score(last.estimator, self._inputs, self._targets, groups)
        relative = relative_to_quantile(found, groups, self._drop_fraction, sizes=self._sizes)
        survivors = np.flatnonzero(relative < 1)
        left = np.bincount(groups[survivors], minlength=len(self._sizes))
        if (left < least_kept * self._sizes).any():
            return False
        removed = len(groups) - len(survivors)
        self.iterations.append(Iteration(statistic=statistic, threshold=None, removed=float(removed)))
        scores = last.scores.copy()
        scores[last.kept] = relative
        if removed == 0:
            self.fits[-1] = replace(last, scores=scores)
            self._is_over = True
            return False
        self._take(survivors)
        fitted = clone(self._estimator).fit(self._inputs, self._targets)
        self.fits.append(FilteredFit(fitted, last.kept[survivors], scores, ()))
        return True

    def _take(self, rows: NDArray[np.intp]) -> None:
        self._targets = self._targets[rows]
        self._inputs = self._inputs[np.ix_(rows, rows)] if self._is_pairwise else self._inputs[rows]

    def fit_after(self, num_rounds: int) -> FilteredFit:
        """The fit after so many rounds, with the iterations of all that were played."""
        return replace(self.fits[num_rounds], iterations=tuple(self.iterations))


def relative_to_quantile(
    scores: Floats, groups: Groups, drop_fraction: float, *, sizes: NDArray[np.intp] | None = None
) -> Floats:
    """Scores over the (1-p)-quantile (MATLAB's) of their group: drop from 1 on.

    All zero in a group of which nothing would be left. Scores that equal the quantile go, unless they alone are more
    than a part 2p of the group: where p is half of what may be corrupted, so many cannot be. Those above always go, and
    do not count: they may be good samples that copies of a bad one have below them.

    Args:
        scores: `(n,)`, not negative.
        groups: `(n,)`.
        drop_fraction: p.
        sizes: how many samples each group had before any was dropped, of which 2p is a part; now, if `None`.
    """
    relative = np.zeros(len(scores))
    for group in np.unique(groups):
        members = np.flatnonzero(groups == group)
        own = scores[members]
        threshold = float(np.quantile(own, 1 - drop_fraction, method="hazen"))
        if own.min() >= threshold * (1 - _ROUNDING):  # all alike, or most of them zero
            continue
        ratios = own / threshold
        tied = np.abs(ratios - 1) <= _ROUNDING
        size = len(members) if sizes is None else int(sizes[group])
        may_be_corrupted = int(tied.sum()) <= math.ceil(2 * drop_fraction * size)
        ratios[tied] = 1.0 if may_be_corrupted else np.nextafter(1.0, 0.0)
        relative[members] = ratios
    return relative
