"""The filter for the unknown mean of a Gaussian with known covariance.

Diakonikolas, Kamath, Kane, Li, Moitra and Stewart, "Being Robust (in High Dimensions) Can Be Practical", ICML 2017,
https://arxiv.org/abs/1703.00893
"""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import erfc

from fedrobust._linalg.number_range import in_range
from fedrobust._linalg.samples import Array, as_samples, check_contamination
from fedrobust.filters.covariance_direction import sample_direction
from fedrobust.filters.filtering import check_positive, outlier_count
from fedrobust.filters.results import Iteration, MeanEstimate
from fedrobust.notices import notice
from fedrobust.statistics.moments.soft_mean import sample_mean

_FAILURE = 0.1
"""τ, the probability of failure that the tail bound is made for."""

_SLACK = 2.5
"""How many times the expected tail is still taken for chance."""

_BEYOND_ALL = 1e100
"""A deviation that tells as much as any larger one; its square is a number."""


def filter_mean(x: Array, contamination: float, sigma: float = 1.0) -> MeanEstimate:
    """The mean of N(μ, σ²I), from a sample of which a part ε may be anything.

    Repeat: λ, v are the top eigenpair of the covariance; stop if λ < σ²(1 + 3ε ln(1/ε)). Sort aᵢ = |⟨xᵢ, v⟩ -
    median|/σ; at the first i with N - i > 2.5 N [½erfc((aᵢ - 2ε)/√2) + ε/(d ln(dε/τ))] keep the points 1, ..., i.

    The thresholds are absolute. This is no safe default: a σ that is too large makes it a silent no-op, one that is too
    small makes it remove good points, and so does a sample that is not much larger than d/ε² (a clean one of ten times
    d has a top eigenvalue above the threshold). `covariance_agnostic_mean` needs neither σ nor so many points.

    Bound: ‖μ̂ - μ‖ = O(ε√log(1/ε))σ for N of the order of d/ε² and more.
    Cost: O(Nd²) for the first covariance, less for each of the following (two or three in practice).

    Args:
        x: `(N, d)`, NumPy array or torch tensor, on any device.
        contamination: ε in [0, ½), the part of the sample that may be corrupted; 0 gives the mean.
        sigma: σ, the standard deviation of the good points in every direction, in the units of x.

    Returns:
        The mean of what is left, its weights 0 or 1, and for each step λ/σ² and the number of points removed.

    Raises:
        ValueError: x that is not a finite `(N, d)` sample; a contamination or σ out of range; N <= 2⌊εN⌋.

    Source: Diakonikolas et al., ICML 2017, https://arxiv.org/abs/1703.00893, and the constants of the authors' code
        (τ = 0.1, 2.5).
    Departs: nothing more is removed once 2εN points are gone, where the authors' code goes on, if need be, to the last
        point; the removal that exceeds 2εN ends with half of the points. Notice is given where the eigenvalue is then
        still above the threshold.
        Points farther out along v than any two of N good ones are from one another, with probability 1 - τ, go in any
        case: the code keeps a part ε/(d ln(dε/τ)) of them however far out they are, and leaves it to the paper's naive
        pruning to remove them first. Where ln(dε/τ) < 1, for which that part is not small or not defined, it is the
        paper's ε/(T² ln(d ln(d/(ετ)))), T = aᵢ - 2ε.
    """
    samples = as_samples(x)
    epsilon, sigma = check_contamination(contamination), check_positive(sigma, "sigma")
    points = samples.points
    n, d = points.shape
    outlier_count(epsilon, n)
    threshold = 1 + 3 * epsilon * math.log(1 / epsilon) if epsilon > 0 else math.inf
    budget = math.floor(2 * epsilon * n + 1e-9)
    ranged = in_range(points)
    sigma = ranged.to_unit(sigma)
    direction = sample_direction(ranged.points)
    weights = torch.ones(n, dtype=torch.float64)
    kept = np.arange(n)
    iterations: list[Iteration] = []
    top = direction(weights)
    while _over_square(top.eigenvalue, sigma) >= threshold and n - len(kept) < budget and top.projections is not None:
        projections = top.projections.numpy()[kept]
        with np.errstate(over="ignore"):  # a σ of nothing
            deviations = np.abs(projections - np.median(projections)) / sigma
        order = np.argsort(deviations, kind="stable")
        num_kept = max(n - max(budget, n // 2), _num_kept(deviations[order], d, epsilon))
        if num_kept == len(kept):
            break
        removed = len(kept) - num_kept
        statistic = _over_square(top.eigenvalue, sigma)
        iterations.append(Iteration(statistic=statistic, threshold=threshold, removed=float(removed)))
        kept = kept[np.sort(order[:num_kept])]
        weights = torch.zeros(n, dtype=torch.float64)
        weights[torch.from_numpy(kept)] = 1.0
        top = direction(weights, near=top)
    final = _over_square(top.eigenvalue, sigma)
    if n - len(kept) >= budget > 0 and final >= threshold:
        notice(
            f"filter_mean: {n - len(kept)} of {n} points are removed, all of the budget of {budget}, and the top "
            f"eigenvalue is still {final:.3g}σ², where {threshold:.3g}σ² is expected; the "
            "contamination or σ is too small, or N is"
        )
    return MeanEstimate(
        method="filter for an unknown mean",
        mean=samples.restore(sample_mean(points, weights, ranged)),
        weights=samples.restore(weights),
        iterations=tuple(iterations),
        details={"top_eigenvalue_over_squared_sigma": final, "stops_below": threshold},
    )


def _over_square(eigenvalue: float, sigma: float) -> float:
    """λ/σ², also where σ² alone is no number."""
    squared = sigma * sigma
    if 0 < squared < math.inf:
        return eigenvalue / squared
    if sigma == 0:
        return math.inf if eigenvalue > 0 else 0.0
    ratio = math.sqrt(eigenvalue) / sigma
    return ratio * ratio


def _num_kept(deviations: NDArray[np.float64], d: int, epsilon: float) -> int:
    """How many of the points to keep, from their ascending deviations in units of σ; all if the tail is as expected."""
    n = len(deviations)
    beyond = n - np.arange(1, n + 1)
    excess = (deviations - 2 * epsilon).clip(max=_BEYOND_ALL)
    first = np.flatnonzero(beyond > _SLACK * n * (erfc(excess / math.sqrt(2)) / 2 + _chance(excess, d, epsilon)))
    num_kept = int(first[0]) + 1 if len(first) else n
    if num_kept == 1:  # even the nearest point is too far out: the scale is wrong, and nothing is removed
        return n
    return min(num_kept, max(1, int(np.searchsorted(deviations, farthest_pair(n, d), side="right"))))


def _chance(excess: NDArray[np.float64], d: int, epsilon: float) -> NDArray[np.float64] | float:
    """What a tail may have beyond its probability, as a part of the sample."""
    log = math.log(d * epsilon / _FAILURE)
    if log >= 1:
        return epsilon / (d * log)
    squared = np.maximum(excess, 1 / _BEYOND_ALL) ** 2
    return epsilon / (squared * math.log(d * math.log(d / (epsilon * _FAILURE))))


def farthest_pair(n: int, d: int) -> float:
    """The distance that no two of n points from N(0, I) exceed, with probability 1 - τ: a χ² bound on all pairs.

    χ² with d degrees of freedom exceeds d + 2√(dL) + 2L with probability e⁻ᴸ at most (Laurent and Massart, Annals of
    Statistics, 2000, https://doi.org/10.1214/aos/1015957395); differences have twice the variance.
    """
    log = math.log(n * n / _FAILURE)
    return math.sqrt(2 * (d + 2 * math.sqrt(d * log) + 2 * log))
