"""A whole Gaussian from a contaminated sample: its covariance from differences of pairs, its mean, and both again.

Diakonikolas, Kamath, Kane, Li, Moitra and Stewart, "Robust Estimators in High Dimensions without the Computational
Intractability", FOCS 2016 and SIAM Journal on Computing 48, 2019, https://arxiv.org/abs/1604.06443
"""

import math

import torch
from torch import Tensor

from fedrobust._linalg.number_range import in_range_by_column
from fedrobust._linalg.rows import weighted_row_mean
from fedrobust._linalg.samples import Array, as_samples, check_contamination
from fedrobust._linalg.whitening import cholesky, dependent_columns, second_moment, whiten
from fedrobust.filters.results import GaussianEstimate, Iteration
from fedrobust.seeds import torch_generator
from fedrobust.statistics.moments.covariance_filter import MAX_CONTAMINATION, covariance_samples, fit_covariance
from fedrobust.statistics.moments.mean_filter import filter_mean
from fedrobust.statistics.progress import Report, progress_report
from fedrobust.types import Vector

MAX_GAUSSIAN_CONTAMINATION = 1 - math.sqrt(1 - MAX_CONTAMINATION)
"""0.1835: from there on a third of the pairs may be corrupted."""


def robust_gaussian(x: Array, contamination: float, seed: int = 0, *, progress: bool = False) -> GaussianEstimate:
    """The mean and the covariance of N(μ, Σ), from a sample of which a part ε may be anything.

    1. Pair the points at random: (X - X')/√2 is N(0, Σ), and a part ε' = 2ε - ε² of the pairs is corrupted.
    2. The covariance of the pairs, by `filter_covariance` at ε'.
    3. Whiten the points by it, and take the mean of what is now close to N(·, I), by `filter_mean` with σ = 1.
    4. The covariance again, of all points about that mean, at ε: twice the points, and half the contamination.
    5. The mean again, of the points that step 4 kept, whitened by its covariance; and their covariance about this mean.

    Bound: total variation O(ε log(1/ε)) for N of the order of d²/ε² and more, for the paper's filters.
    Cost: that of two covariance filters; memory for one whitened copy of x beside x, and O(d²).

    Args:
        x: `(N, d)`, NumPy array or torch tensor, on any device.
        contamination: ε in [0, 0.1835), the part of the sample that may be corrupted; 0 gives the sample's mean and its
            covariance with the divisor N.
        seed: of the pairing and of the simulated nulls.
        progress: show a bar on stderr.

    Returns:
        Mean and covariance; weights are 1 for the points that steps 4 and 5 both kept, else 0; the iterations are
        those of steps 2 to 5 in order, as in `filter_covariance` and `filter_mean`.

    Raises:
        ValueError: x that is not a finite `(N, d)` sample, or whose columns are linearly dependent, or whose squares
            are no numbers in its precision; a contamination out of range; N below
            `gaussian_samples(d, contamination)`.

    Source: Diakonikolas et al., FOCS 2016, https://arxiv.org/abs/1604.06443; the filters are those of ICML 2017,
        https://arxiv.org/abs/1703.00893.
    Departs: steps 4 and 5 are added (the paper ends with step 3); the filters depart as they say. Where N is so small
        that a clean sample's top eigenvalue, about (1 + √(d/N))², exceeds the mean filter's threshold 1 + 3ε ln(1/ε), σ
        is raised until it does not.
    """
    samples = as_samples(x)
    epsilon = check_contamination(contamination)
    points = samples.points
    n, d = points.shape
    if epsilon > 0:
        needed = gaussian_samples(d, epsilon)
        if n < needed:
            raise ValueError(
                f"x must have at least {needed} rows for d={d} and contamination={epsilon:g}, got {n}: with fewer, "
                "outliers cannot be told from chance"
            )
    ranged = in_range_by_column(points)
    with progress_report(progress) as report:
        fit = _fit(ranged.points, epsilon, seed, report)
    mean, covariance, weights, iterations, details = fit
    ranged.require_without(weights.cpu() > 0, epsilon)
    return GaussianEstimate(
        method="robust Gaussian",
        mean=samples.restore(ranged.vector_from_unit(mean).to(points.dtype)),
        covariance=samples.restore(ranged.matrix_from_unit(covariance, points.dtype)),
        weights=samples.restore(weights.to(points.dtype)),
        iterations=iterations,
        details=details,
    )


def gaussian_samples(d: int, contamination: float) -> int:
    """The least N for `robust_gaussian`: two for each pair that `covariance_samples` asks for at 2ε - ε².

    Raises:
        ValueError: a contamination outside (0, 0.1835).

    Source and Departs: as for `covariance_samples`.
    """
    if not 0 < contamination < MAX_GAUSSIAN_CONTAMINATION:
        raise ValueError(
            f"contamination must lie in (0, {MAX_GAUSSIAN_CONTAMINATION:.4f}), got {contamination:g}: from there on a "
            "third of the pairs of points may be corrupted, and their covariance cannot be told"
        )
    return 2 * covariance_samples(d, _of_pairs(contamination))


def _of_pairs(epsilon: float) -> float:
    return 2 * epsilon - epsilon**2


def _fit(
    points: Tensor, epsilon: float, seed: int, report: Report
) -> tuple[Vector, Tensor, Tensor, tuple[Iteration, ...], dict[str, float]]:
    centre = _coordinate_median(points)  # whatever is near the points: numbers stay small
    if epsilon == 0:
        mean = weighted_row_mean(points, torch.ones(len(points), dtype=torch.float64))
        return mean, second_moment(points, mean, None), torch.ones(len(points)), (), {}

    pairs = fit_covariance(
        _differences(points, seed), None, _of_pairs(epsilon), seed=seed, report=_staged(report, "pairs", 0.0, 0.4)
    )
    report("mean", 0.4)
    mean, _, first_steps = _mean(points, centre, None, pairs.covariance, epsilon)
    fit = fit_covariance(points, mean, epsilon, seed=seed, report=_staged(report, "covariance", 0.5, 0.9))
    report("mean again", 0.9)
    kept = fit.kept.nonzero().squeeze(1)
    mean, last_weights, last_steps = _mean(points, mean, kept, fit.covariance, epsilon)
    covariance = second_moment(points, mean, kept) * fit.details["consistency_factor"]
    weights = torch.zeros(len(points), dtype=torch.float64)
    weights[kept] = last_weights.cpu().double()
    iterations = pairs.iterations + first_steps + fit.iterations + last_steps
    details = {
        "num_pairs_removed": pairs.details["num_removed"],
        "num_removed_for_covariance": fit.details["num_removed"],
        "consistency_factor": fit.details["consistency_factor"],
    }
    return mean, covariance, weights, iterations, details


def _differences(points: Tensor, seed: int) -> Tensor:
    """(X - X')/√2 for pairs drawn at random, `(N/2, d)`; an odd point is left out."""
    order = torch.randperm(len(points), generator=torch_generator(seed, "pairs")).to(points.device)
    half = len(points) // 2
    differences = points[order[:half]]
    differences -= points[order[half : 2 * half]]
    differences *= 0.5**0.5
    return differences


def _mean(
    points: Tensor, centre: Vector, rows: Tensor | None, covariance: Tensor, epsilon: float
) -> tuple[Vector, Tensor, tuple[Iteration, ...]]:
    """The mean of the rows that count, with the weights and the steps of the filter that found it."""
    factor = cholesky(covariance)
    if factor is None:
        raise ValueError(dependent_columns(points, centre))
    n, d = len(points) if rows is None else len(rows), points.shape[1]
    out = torch.empty(n, d, dtype=points.dtype, device=points.device)
    whitened = whiten(points, centre, rows, factor, out)
    threshold = 1 + 3 * epsilon * math.log(1 / epsilon)
    estimate = filter_mean(whitened, epsilon, sigma=max(1.0, (1 + math.sqrt(d / n)) / math.sqrt(threshold)))
    mean: Vector = centre + factor @ estimate.mean.double()
    return mean, torch.as_tensor(estimate.weights), estimate.iterations


def _coordinate_median(points: Tensor) -> Vector:
    return torch.stack([points[:, column].median() for column in range(points.shape[1])]).double()


def _staged(report: Report, stage: str, start: float, end: float) -> Report:
    return lambda what, done: report(f"{stage}: {what}", start + (end - start) * done)
