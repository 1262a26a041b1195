"""What the filters share: their result, how much a round tells against each point, and how many may be removed."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fedrobust._linalg.spectral import TopDirection
from fedrobust.filters.results import Iteration
from fedrobust.notices import notice
from fedrobust.types import Weights

AS_FAR = 0.9
"""From this part of the largest squared projection on a point lies as far out as the farthest: a soft step leaves
hardly anything of it. Up to 48 % of points at one place are told from the others, at (0.48/0.52)² < 0.9 then."""


@dataclass(frozen=True)
class Filtered:
    """A sample after filtering.

    Attributes:
        weights: `(n,)` float64 in [0, 1], what is left of each point; 0 is removed.
        scores: `(n,)` float64, larger is more suspicious: over the weightings from the first to this one, the sum of
            the point's squared projection on the top direction relative to the largest, or 1 once it is removed. So
            whoever was removed earlier scores higher, and subtle outliers are not dwarfed by gross ones.
        first_eigenvalue: the top eigenvalue of the covariance of all points.
        eigenvalue: that of the covariance under `weights`.
        num_steps: how often the weights were changed.
        iterations: one entry a step, in order, those beyond this weighting included; empty where none are kept.
        removed_beyond_budget: the mass, in points, that this weighting lacks beyond what might be removed.
        num_refused: steps that were not taken, since they would have removed most of the points left.
        lowest_within_budget: the smallest top eigenvalue of a weighting within the budget; `None` if this is one.
        num_alike: points that the step beyond the budget took at one go, but for a tenth of their weight at most.
    """

    weights: Weights
    scores: Weights
    first_eigenvalue: float
    eigenvalue: float
    num_steps: int
    iterations: tuple[Iteration, ...] = ()
    removed_beyond_budget: float = 0.0
    num_refused: int = 0
    lowest_within_budget: float | None = None
    num_alike: int = 0

    def diagnostics(self) -> dict[str, float]:
        """What is worth a line in the log."""
        return {
            "first_top_eigenvalue": self.first_eigenvalue,
            "top_eigenvalue": self.eigenvalue,
            "num_steps": float(self.num_steps),
            "removed_mass": float((1 - self.weights).sum()),
            "removed_beyond_budget": self.removed_beyond_budget,
            "num_refused": float(self.num_refused),
        }

    def rescaled(self, change: Callable[[float], float]) -> "Filtered":
        """The same with all eigenvalues and their limits changed to another unit."""
        return replace(
            self,
            first_eigenvalue=change(self.first_eigenvalue),
            eigenvalue=change(self.eigenvalue),
            lowest_within_budget=None if self.lowest_within_budget is None else change(self.lowest_within_budget),
            iterations=tuple(
                replace(
                    one,
                    statistic=change(one.statistic),
                    threshold=None if one.threshold is None else change(one.threshold),
                )
                for one in self.iterations
            ),
        )


def relative_projections(top: TopDirection, weights: Weights) -> Tensor:
    """Squared projections over the largest of a remaining point, `(n,)` in [0, 1]; 1 for a removed point.

    All zero among the remaining if they coincide.
    """
    remaining = weights > 0
    peak = top.squared_projections[remaining].max()
    relative = top.squared_projections / peak if float(peak) > 0 else torch.zeros_like(weights)
    return torch.where(remaining, relative.clamp(max=1), 1.0)


def assumed_count(assumed_fraction: float, n: int) -> int:
    """Count f = ⌊εn + 1e-9⌋, the clients (or points) out of n that are believed malicious (or corrupted).

    Gives notice where an ε above zero comes to none: a robust rule is then the mean, or no better.
    """
    f = math.floor(assumed_fraction * n + 1e-9)
    if f == 0 < assumed_fraction:
        notice(says_none(assumed_fraction, n))
    return f


def says_none(assumed_fraction: float, n: int) -> str:
    """Say that ε of n is none, and from which ε on f is 1."""
    return (
        f"an assumed fraction of {assumed_fraction:g} of {n} is none (f = ⌊εn⌋ = 0), so nothing is done against "
        f"outliers; from {math.ceil(1e4 / n) / 1e4:g} on f is 1"
    )


def outlier_count(contamination: float, n: int) -> int:
    """F = ⌊εn + 1e-9⌋, the points out of n that are believed to be corrupted.

    Raises:
        ValueError: n <= 2f.
    """
    f = assumed_count(contamination, n)
    if n <= 2 * f:
        raise ValueError(f"more than half of x must be sound, got n={n} rows and f={f} corrupted ones")
    return f


def check_positive(value: float, name: str) -> float:
    """`value` as a float.

    Raises:
        ValueError: not finite, or not above zero.
    """
    number = float(value)
    if not 0 < number < math.inf:
        raise ValueError(f"{name} must be positive and finite, got {value}")
    return number
