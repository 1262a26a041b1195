"""The means that the filters are compared with: coordinate by coordinate, by distances, or by naive pruning."""

import math

import torch
from torch import Tensor

from fedrobust._linalg.gram import robust_gram_matrix
from fedrobust._linalg.number_range import RangedSample, in_range
from fedrobust._linalg.order_statistics import mean_of_order_statistics
from fedrobust._linalg.rows import distances_from
from fedrobust._linalg.samples import Array, as_samples, check_contamination
from fedrobust._linalg.weiszfeld import GeometricMedianWeights, GramFrame, PointsFrame, weiszfeld
from fedrobust.filters.filtering import check_positive, outlier_count
from fedrobust.filters.results import MeanEstimate
from fedrobust.statistics.moments.soft_mean import sample_mean
from fedrobust.types import Vector

_FAILURE = 0.1


def coordinate_median(x: Array) -> MeanEstimate:
    """The median of each coordinate.

    Bound: an error of the order of ε√d·σ, for outliers may bias every coordinate alike. Not equivariant under rotation.

    Args:
        x: `(N, d)`, NumPy array or torch tensor, on any device; of an even number the midpoint is the median.

    Raises:
        ValueError: x that is not a finite `(N, d)` sample.

    Source: Yin et al., ICML 2018, https://arxiv.org/abs/1803.01498
    Departs: nothing
    """
    samples = as_samples(x)
    return MeanEstimate(method="coordinate-wise median", mean=samples.restore(median_of_columns(samples.points)))


def trimmed_mean(x: Array, contamination: float) -> MeanEstimate:
    """The mean of each coordinate without its f smallest and f largest values.

    Bound: an error of the order of ε√d·σ. Not equivariant under rotation.

    Args:
        x: `(N, d)`, NumPy array or torch tensor, on any device.
        contamination: ε in [0, ½), the part of the sample that may be corrupted, f = ⌊εN⌋; 0 gives the mean.

    Raises:
        ValueError: x that is not a finite `(N, d)` sample; a contamination out of range; N <= 2f.

    Source: Yin et al., ICML 2018, https://arxiv.org/abs/1803.01498
    Departs: nothing
    """
    samples = as_samples(x)
    n = len(samples.points)
    f = outlier_count(check_contamination(contamination), n)
    mean = mean_of_order_statistics(samples.points, f, n - f)
    return MeanEstimate(
        method="coordinate-wise trimmed mean",
        mean=samples.restore(mean),
        details={"num_trimmed_per_side": float(f)},
    )


def geometric_median(
    x: Array, *, smoothing: float = 1e-6, tolerance: float = 1e-12, max_iterations: int = 1000
) -> MeanEstimate:
    """The point whose summed distance to the sample is smallest, by Weiszfeld's iteration.

    Bound: an error of the order of ε√d·σ: each point pulls with the same force, and outliers that agree on a direction
    pull together. Equivariant under translation, rotation, scaling and permutation.

    Args:
        x: `(N, d)`, NumPy array or torch tensor, on any device.
        smoothing: ν as a part of the median distance to the answer: within ν a point pulls less.
        tolerance: stop when a step's guaranteed decrease is this part of the median distance.
        max_iterations: stop at the latest after so many steps.

    Returns:
        The median; no weights, for no point is removed. `details["is_converged"]` is 0 where `max_iterations` were too
        few.

    Raises:
        ValueError: x that is not a finite `(N, d)` sample; an argument out of range.

    Source: Pillutla, Kakade and Harchaoui, IEEE Transactions on Signal Processing, 2022,
        https://arxiv.org/abs/1912.13445
    Departs: ν is relative, where the paper's is 1e-6 whatever the points' size; the tolerance is relative to the median
        distance, not to the objective, which one far outlier inflates.
    """
    samples = as_samples(x)
    ranged = in_range(samples.points)
    points = ranged.points
    n, d = points.shape
    if max_iterations < 1:
        raise ValueError(f"max_iterations must be at least 1, got {max_iterations}")
    found = weiszfeld(
        PointsFrame(points) if n >= d else GramFrame(robust_gram_matrix(points).numpy()),
        torch.full((n,), 1 / n, dtype=torch.float64),
        smoothing=check_positive(smoothing, "smoothing"),
        tolerance=check_positive(tolerance, "tolerance"),
        max_iterations=max_iterations,
    )
    return MeanEstimate(
        method="geometric median",
        mean=samples.restore(ranged.vector_from_unit(sample_mean(points, found.weights)).to(samples.points.dtype)),
        details={
            "num_iterations": float(found.num_iterations),
            "is_converged": float(found.is_converged),
            "mean_distance": _mean_distance(samples.points, ranged, found),
        },
    )


def _mean_distance(given: Tensor, ranged: RangedSample, found: GeometricMedianWeights) -> float:
    """The objective in the unit of the given points; a point that was shortened is as far away as it is long."""
    total = ranged.from_unit(found.objective)
    if ranged.shortened is not None:
        rows = given[ranged.shortened.to(given.device)].double()
        sizes = rows.abs().amax(dim=1)
        total += float((sizes / len(given) * (rows / sizes[:, None]).norm(dim=1)).sum())
    return total


def pruned_mean(x: Array, sigma: float = 1.0) -> MeanEstimate:
    """The mean of the points that are not plainly too far out to come from N(μ, σ²I): naive pruning.

    Keep xᵢ if ‖xᵢ - m‖² <= σ²(d + 2√(dL) + 2L), L = ln(N/τ), τ = 0.1, m the coordinate-wise median: no good point is
    farther from μ with probability 1 - τ.

    Bound: an error of the order of ε√d·σ: outliers at the radius of the good points are not seen.

    Args:
        x: `(N, d)`, NumPy array or torch tensor, on any device.
        sigma: σ, the standard deviation of the good points in every direction, in the units of x.

    Returns:
        The mean and the weights, 0 or 1.

    Raises:
        ValueError: x that is not a finite `(N, d)` sample; a σ out of range, or so small that no point is kept.

    Source: Diakonikolas et al., ICML 2017, https://arxiv.org/abs/1703.00893 (naive pruning)
    Departs: the radius is the explicit χ² bound of Laurent and Massart (2000), where the authors' code has
        0.33√(d ln(N/ε)), which cuts into the good points where d is small.
    """
    samples = as_samples(x)
    points = samples.points
    n, d = points.shape
    ranged = in_range(points, in_float64=True)
    log = math.log(n / _FAILURE)
    radius = check_positive(sigma, "sigma") * math.sqrt(d + 2 * math.sqrt(d * log) + 2 * log)
    kept = distances_from(ranged.points, median_of_columns(ranged.points).double()) <= ranged.to_unit(radius)
    if not bool(kept.any()):
        raise ValueError(f"sigma={sigma} is too small: no point lies within {radius:.6g} of the median")
    weights = kept.double()
    return MeanEstimate(
        method="mean after naive pruning",
        mean=samples.restore(sample_mean(points, weights, ranged)),
        weights=samples.restore(weights),
        details={"radius": radius},
    )


def median_of_columns(points: Tensor) -> Vector:
    """The median of each column of `points` `(n, d)`, the midpoint for an even n, `(d,)` in their precision."""
    n = len(points)
    return mean_of_order_statistics(points, (n - 1) // 2, n // 2 + 1)
