"""The geometric median by Weiszfeld's iteration: from the Gram matrix alone, or from the points.

From the points where n >= d, and where n is so large that the Gram matrix costs more than many reads of the data.
"""

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedrobust._linalg.columns import Points, Shards, require_finite, require_no_gradient
from fedrobust._linalg.gram import robust_gram_matrix
from fedrobust._linalg.kernels.block_sums import can_add_rows
from fedrobust._linalg.kernels.weiszfeld_kernel import centre_and_distances
from fedrobust._linalg.rows import distances_from, weighted_row_mean
from fedrobust.types import Weights

# A point so much nearer (squared) to the median than to the origin of the matrix becomes its origin.
_NEAR = 1e-2

_ROWS_A_PASS = 48
"""The Gram matrix of so many times k rows takes as long as k passes over the points (2 CPU cores, n = 200 to 1000)."""

_FEWEST_PASSES = 8
"""What an iteration mostly needs at least: with fewer rows the Gram matrix is built at once."""

_COLLAPSED = 1e-6
"""So much nearer to half of the mass than at first: that half may be one point, to which no step ever leads."""

_Array = NDArray[np.float64]


@dataclass(frozen=True)
class GeometricMedianWeights:
    """A geometric median z = Σ wᵢxᵢ.

    Attributes:
        weights: w, `(n,)` float64 on the CPU, non-negative, summing to 1.
        distances: ‖xᵢ - z‖, `(n,)` float64 on the CPU.
        objective: Σ αᵢ‖xᵢ - z‖, smoothed.
        num_iterations: how often z was moved.
        is_converged: whether it ended because of the tolerance.
    """

    weights: Weights
    distances: Tensor
    objective: float
    num_iterations: int
    is_converged: bool


class Frame(Protocol):
    """What the iteration asks of the points."""

    def distances(self, weights: _Array) -> _Array:
        """‖xᵢ - Σ wⱼxⱼ‖, `(n,)`, for `weights` that sum to 1."""
        ...

    def squared_step(self, before: _Array, after: _Array) -> float:
        """‖Σ (wⱼ - vⱼ)xⱼ‖² of two weightings that sum to 1."""
        ...


def geometric_median_weights(
    points: Points, masses: Weights, *, smoothing: float, tolerance: float, max_iterations: int
) -> GeometricMedianWeights:
    """`weiszfeld` on wide `points` `(n, d)`, float, on any device.

    Many rows are read once an iteration, for as long as this has taken less time than their Gram matrix would; then
    that is built, and the iteration goes on with it. So the time is at most twice that of the faster way.

    Raises:
        ValueError: points that are not finite.
    """
    require_no_gradient(points, "geometric_median_weights")
    passes = min(max_iterations, len(points) // _ROWS_A_PASS)
    parts = points.parts if isinstance(points, Shards) else (points,)
    start, num_before = masses, 0
    if passes >= min(_FEWEST_PASSES, max_iterations) and all(can_add_rows(part) for part in parts):
        found = weiszfeld(ColumnFrame(points), masses, smoothing=smoothing, tolerance=tolerance, max_iterations=passes)
        if found.is_converged or passes == max_iterations:
            return found
        start, num_before = found.weights, passes
    found = weiszfeld(
        GramFrame(robust_gram_matrix(points).numpy()),
        masses,
        start=start,
        smoothing=smoothing,
        tolerance=tolerance,
        max_iterations=max_iterations - num_before,
    )
    return replace(found, num_iterations=num_before + found.num_iterations)


def weiszfeld(
    frame: Frame,
    masses: Weights,
    *,
    smoothing: float,
    tolerance: float,
    max_iterations: int,
    start: Weights | None = None,
) -> GeometricMedianWeights:
    """Minimise Σ αᵢ φ(‖xᵢ - z‖), φ(r) = r, or r²/2ν + ν/2 where r < ν, by wᵢ ← αᵢ / max(ν, ‖xᵢ - z‖), made to sum to 1.

    ν is a part `smoothing` of the weighted median distance m to the present z. A step moves z by s and, for this ν,
    lowers the objective by s²/2 Σ αᵢ / max(ν, ‖xᵢ - z‖) at least. The iteration ends when that is a part `tolerance` of
    m: not of the objective, which far outliers make so large that nothing among the others would count. A point with
    half of the mass is the median, and m is then zero.

    Args:
        frame: the points.
        masses: α, `(n,)` non-negative, summing to 1.
        smoothing: ν/m.
        tolerance: relative.
        max_iterations: at least 1.
        start: the first weighting; `masses` if `None`.
    """
    alpha = masses.cpu().numpy().astype(np.float64)
    weights = alpha if start is None else start.cpu().numpy().astype(np.float64)
    is_converged = False
    distances = frame.distances(weights)
    scale = first_scale = _weighted_median(distances, alpha)
    may_collapse = True
    for num_iterations in range(1, max_iterations + 1):  # noqa: B007
        if scale == 0:
            is_converged = True
            break
        if may_collapse and scale < _COLLAPSED * first_scale:
            may_collapse = False
            nearest = _alone(distances)
            apart = frame.distances(nearest)
            if _weighted_median(apart, alpha) == 0:
                weights, distances, scale, is_converged = nearest, apart, 0.0, True
                break
        pull = alpha / np.maximum(smoothing * scale, distances)
        moved = pull / pull.sum()
        squared_step = frame.squared_step(weights, moved)
        limit = tolerance * scale
        weights = moved
        distances = frame.distances(weights)
        scale = _weighted_median(distances, alpha)
        is_converged = bool(pull.sum() * squared_step / 2 <= limit)
        if is_converged:
            break
    return GeometricMedianWeights(
        torch.from_numpy(weights),
        torch.from_numpy(distances),
        float(alpha @ _smooth(distances, smoothing * scale)),
        num_iterations,
        is_converged,
    )


def _alone(distances: _Array) -> _Array:
    """The weighting of the nearest point alone."""
    weights = np.zeros(len(distances))
    weights[int(distances.argmin())] = 1.0
    return weights


def _smooth(distances: _Array, nu: float) -> _Array:
    """φ(r)."""
    within = distances < nu
    smoothed = distances.copy()
    smoothed[within] = distances[within] ** 2 / (2 * nu) + nu / 2
    return smoothed


class GramFrame:
    """The Gram matrix about an origin that follows the median.

    ‖xᵢ - z‖² = Kᵢᵢ - 2(Kw)ᵢ + wᵀKw cancels where xᵢ is much nearer to z than to the origin. About xᵢ itself there is
    nothing to cancel, for then the row and column of the one large weight are zero.
    """

    def __init__(self, gram: _Array) -> None:
        self._original = gram
        self._gram = gram

    def distances(self, weights: _Array) -> _Array:
        """‖xᵢ - Σ wⱼxⱼ‖, `(n,)`, for `weights` that sum to 1."""
        squared = self._squared_distances(weights)
        closest = int(squared.argmin())
        if squared[closest] < _NEAR * self._gram[closest, closest]:
            row = self._original[closest]
            self._gram = self._original - row[None, :] - row[:, None] + row[closest]
            squared = self._squared_distances(weights)
        return np.sqrt(squared)

    def squared_step(self, before: _Array, after: _Array) -> float:
        """‖Σ (wⱼ - vⱼ)xⱼ‖² of two weightings that sum to 1."""
        coefficients = after - before
        return max(0.0, float(coefficients @ self._gram @ coefficients))

    def _squared_distances(self, weights: _Array) -> _Array:
        projected = self._gram @ weights
        return np.maximum(0.0, self._gram.diagonal() - 2 * projected + weights @ projected)


class ColumnFrame:
    """Wide points on a CPU: one read of them a step, and one centre."""

    def __init__(self, points: Points) -> None:
        """`points` `(n, d)` of parts for which `can_add_rows` holds; not changed."""
        self._points = points
        self._parts = points.parts if isinstance(points, Shards) else (points,)
        self._bounds = np.cumsum([0] + [part.shape[1] for part in self._parts])
        self._centre = np.zeros(points.shape[1])
        self._last: tuple[_Array, _Array, float] | None = None

    def distances(self, weights: _Array) -> _Array:
        """‖xᵢ - Σ wⱼxⱼ‖, `(n,)`, for `weights` that sum to 1."""
        return self._step_to(weights)[1]

    def squared_step(self, before: _Array, after: _Array) -> float:
        """‖Σ (wⱼ - vⱼ)xⱼ‖² of two weightings that sum to 1; the distances under `after` are then known."""
        self._step_to(before)
        return self._step_to(after)[2]

    def _step_to(self, weights: _Array) -> tuple[_Array, _Array, float]:
        if self._last is None or self._last[0] is not weights:
            squared, step = np.zeros(len(weights)), 0.0
            for part, (start, stop) in zip(self._parts, pairwise(self._bounds), strict=True):
                found, moved = centre_and_distances(part.detach(), weights, self._centre[start:stop])
                squared, step = squared + found, step + moved
            require_finite(torch.from_numpy(squared), self._points)
            self._last = weights, np.sqrt(squared), step
        return self._last


class PointsFrame:
    """The points themselves: two reads of them a step, and no n x n matrix."""

    def __init__(self, points: Tensor) -> None:
        """`points` `(n, d)`, float, on any device; not changed."""
        self._points = points
        self._centres: list[tuple[_Array, Tensor]] = []

    def distances(self, weights: _Array) -> _Array:
        """‖xᵢ - Σ wⱼxⱼ‖, `(n,)`, for `weights` that sum to 1."""
        distances: _Array = distances_from(self._points, self._centre(weights)).numpy()
        return distances

    def squared_step(self, before: _Array, after: _Array) -> float:
        """‖Σ (wⱼ - vⱼ)xⱼ‖² of two weightings that sum to 1."""
        return float((self._centre(after) - self._centre(before)).square().sum())

    def _centre(self, weights: _Array) -> Tensor:
        """Σ wⱼxⱼ; each weighting is asked for several times, the last two are remembered."""
        for known, centre in self._centres:
            if known is weights:
                return centre
        centre = weighted_row_mean(self._points, torch.from_numpy(weights))
        self._centres = [*self._centres[-1:], (weights, centre)]
        return centre


def _weighted_median(values: _Array, weights: _Array) -> float:
    order = np.argsort(values, kind="stable")
    return float(values[order[np.searchsorted(np.cumsum(weights[order]), 0.5)]])
