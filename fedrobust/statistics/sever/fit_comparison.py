"""Which of several fits describes most of a sample best, where a part of it may be anything: a tournament.

Lecué and Lerasle, "Robust machine learning by median-of-means: theory and practice", Annals of Statistics 2020,
https://arxiv.org/abs/1711.10306 (fits compared in pairs); Rousseeuw, "Least Median of Squares Regression", JASA 1984,
https://doi.org/10.1080/01621459.1984.10477105 (the samples that fit worst do not count).
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedrobust.statistics.sever.filtered_fit import FilteredFit, Groups
from fedrobust.statistics.sever.gradient_projections import top_projections
from fedrobust.statistics.sever.per_sample_gradients import (
    Floats,
    GradientFunction,
    Gradients,
    KernelGradients,
    OuterGradients,
    as_gradients,
)

TOLERANCE = 1.2
"""Fits whose squared gradients differ by less than a fifth are as good as one another."""


def gradient_ratios(squared_lengths: Sequence[Floats], contamination: float) -> Floats:
    """How many times longer one fit's squared gradients are than another's, over the samples that both describe.

    A fit describes the ⌈(1-ε)n⌉ samples with its shortest gradients. Over its own alone a fit that passes through the
    corrupted samples would look good, for it leaves out the tail of the others; over the common ones both do.

    Args:
        squared_lengths: for each of t fits the squared lengths of all samples' gradients, `(n,)`.
        contamination: ε in [0, ½).

    Returns:
        `(t, t)`, entry (i, j) is the mean of fit i over that of fit j; 1 where both are zero, infinite where j's is.
    """
    stacked = np.stack(squared_lengths)
    num_described = math.ceil((1 - contamination) * stacked.shape[1] - 1e-9)
    described = np.zeros(stacked.shape, dtype=bool)
    np.put_along_axis(described, stacked.argsort(axis=1, kind="stable")[:, :num_described], True, axis=1)
    ratios = np.ones((len(stacked), len(stacked)))
    for one in range(len(stacked)):
        for other in range(len(stacked)):
            common = described[one] & described[other]
            above, below = stacked[one, common].sum(), stacked[other, common].sum()
            if above != below:
                ratios[one, other] = above / below if below > 0 else np.inf
    return ratios


def as_good_as_any(ratios: Floats) -> NDArray[np.bool_]:
    """Which fits no other beats by much more than the best is beaten by: `(t,)`, true for at least one.

    Args:
        ratios: of `gradient_ratios`.
    """
    beaten_by = ratios.max(axis=1)
    found: NDArray[np.bool_] = beaten_by <= TOLERANCE * beaten_by.min()
    return found


class SampleGradients:
    """The samples' gradients at one fit after another: Sever's scores, and the lengths by which fits are compared."""

    def __init__(self, gradients: GradientFunction, X: Any, y: Any, *, is_pairwise: bool) -> None:
        """Nothing is computed yet.

        Args:
            gradients: from a fitted estimator, `X` and `y` to whatever `as_gradients` takes.
            X: of all samples, as for `filtered_fit`.
            y: of all samples.
            is_pairwise: whether X is a kernel.
        """
        self._gradients = gradients
        self._X, self._y = X, y
        self._is_pairwise = is_pairwise
        self._features: OuterGradients | KernelGradients | None = None
        self._of_kept: dict[int, Floats] = {}
        self._of_all: dict[int, Floats] = {}

    def scores(self, fitted: Any, X: Any, y: Any, groups: Groups) -> tuple[float, Floats]:
        """The largest variance of any group's gradients, and the distances from the group's mean along it."""
        gradients = as_gradients(self._gradients(fitted, X, y), len(y))
        self._of_kept[id(fitted)] = _squared_lengths(gradients)
        if self._features is None and len(y) == len(self._y) and not isinstance(gradients, np.ndarray):
            self._features = replace(gradients, coefficients=np.ones((len(y), 1)))
        return _top_projections(gradients, groups)

    def feature_scores(self, kept: NDArray[np.intp], groups: Groups) -> tuple[float, Floats] | None:
        """What `scores` would be for gradients that are the features alone, of the samples `kept`, in their `groups`.

        Only after `scores` of all samples; `None` where the gradients had no features for a factor.
        """
        return None if self._features is None else _top_projections(self._features.rows(kept), groups)

    def squared_lengths(self, fits: Sequence[FilteredFit]) -> list[Floats]:
        """‖gᵢ‖² of all samples at each fit, `(n,)`."""
        return [self._squared_lengths(fit) for fit in fits]

    def _squared_lengths(self, fit: FilteredFit) -> Floats:
        key = id(fit.estimator)
        if key not in self._of_all:
            inputs = self._X[:, fit.kept] if self._is_pairwise else self._X
            gradients = as_gradients(self._gradients(fit.estimator, inputs, self._y), len(self._y))
            if self._is_pairwise and isinstance(gradients, KernelGradients):
                lengths = (gradients.coefficients**2).sum(axis=1) * self._X.diagonal()
            else:
                lengths = _squared_lengths(gradients)
            # Of the samples that it was fitted on an SVM knows more: the slope of those on the margin.
            lengths[fit.kept] = self._kept(fit)
            self._of_all[key] = lengths
        return self._of_all[key]

    def _kept(self, fit: FilteredFit) -> Floats:
        key = id(fit.estimator)
        if key not in self._of_kept:
            rows = self._X[np.ix_(fit.kept, fit.kept)] if self._is_pairwise else self._X[fit.kept]
            gradients = as_gradients(self._gradients(fit.estimator, rows, self._y[fit.kept]), len(fit.kept))
            self._of_kept[key] = _squared_lengths(gradients)
        return self._of_kept[key]


def _top_projections(gradients: Gradients, groups: Groups) -> tuple[float, Floats]:
    largest, scores = 0.0, np.zeros(len(groups))
    for group in np.unique(groups):
        members = np.flatnonzero(groups == group)
        part = gradients[members] if isinstance(gradients, np.ndarray) else gradients.rows(members)
        variance, scores[members] = top_projections(part)
        largest = max(largest, variance)
    return largest, scores


def _squared_lengths(gradients: Gradients) -> Floats:
    return np.square(gradients).sum(axis=1) if isinstance(gradients, np.ndarray) else gradients.squared_lengths()
