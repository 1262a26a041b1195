"""Where a sample's tail holds more points than its law allows."""

from typing import Protocol

import numpy as np
import scipy.special
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

TAIL_FACTOR = 3.0
"""A tail is in excess with more than so many times the points that it should hold: then 2/3 of them are outliers."""


class Tail(Protocol):
    """A law with its two tails."""

    def above(self, t: ArrayLike) -> NDArray[np.float64]:
        """P(Q > t)."""

    def below(self, t: ArrayLike) -> NDArray[np.float64]:
        """P(Q < t)."""

    @property
    def median(self) -> float:
        """The law's median."""


def tail_excess(values: Tensor, law: Tail, *, stretch: float = 1.0, false_alarm: float) -> Tensor:
    """The points beyond the cut, in either tail, at which the sample exceeds three times its law by most.

    Values are taken about their median, and compared with the law about its own: outliers move the mean of the values,
    and shrink the whole sample where it is whitened with them, but hardly move the median. The cut is where as many
    points as possible lie beyond it in excess of three times the expected number, so it comes where the sample's
    density falls below three times the law's; and only if that many would lie there by chance with probability
    `false_alarm` at most (Poisson).

    Args:
        values: `(n,)` float64.
        law: of a clean sample's values.
        stretch: the standard deviation of clean values over that of the law: more than 1 where the values are those of
            a direction that was chosen by looking at the sample.
        false_alarm: for one cut.

    Returns:
        Indices, the farthest out first; empty if neither tail is in excess.
    """
    array = values.cpu().numpy()
    deviations = array - np.median(array)
    standard = deviations / stretch + law.median
    upper = _beyond(standard, law.above(standard), false_alarm)
    lower = _beyond(-standard, law.below(standard), false_alarm)
    outliers = np.flatnonzero(upper | lower)
    outliers = outliers[np.argsort(-np.abs(deviations[outliers]), kind="stable")]
    return torch.from_numpy(outliers)


def _beyond(values: NDArray[np.float64], probabilities: NDArray[np.float64], false_alarm: float) -> NDArray[np.bool_]:
    n = len(values)
    order = np.argsort(-values, kind="stable")[: n // 2]
    count = np.arange(1, len(order) + 1)
    expected = n * probabilities[order]
    excess = count - TAIL_FACTOR * expected
    candidates = np.flatnonzero(excess > 0)
    # P(Poisson(expected) >= count)
    chance = scipy.special.gammainc(count[candidates], expected[candidates])
    candidates = candidates[chance <= false_alarm]
    if len(candidates) == 0:
        return np.zeros(n, dtype=bool)
    best = candidates[np.argmax(excess[candidates])]
    result: NDArray[np.bool_] = values >= values[order[best]]
    return result
