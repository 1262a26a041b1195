"""The recursive projection estimator of the mean of Lai, Rao and Vempala (LRV).

Lai, Rao and Vempala, "Agnostic Estimation of Mean and Covariance", FOCS 2016, https://arxiv.org/abs/1604.06968
"""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedrobust._linalg.moments import Moments
from fedrobust._linalg.number_range import in_range
from fedrobust._linalg.rows import distances_from, project_rows
from fedrobust._linalg.samples import Array, as_samples, check_contamination
from fedrobust._linalg.spectral import eigenpairs
from fedrobust.filters.filtering import outlier_count
from fedrobust.filters.results import Iteration, MeanEstimate
from fedrobust.statistics.moments.rival_means import median_of_columns


def lrv_mean(x: Array, contamination: float) -> MeanEstimate:
    """The mean by halving the dimension: where the variance is small the plain mean will do, the rest is done again.

    Drop the part ε of the points that lies farthest from the coordinate-wise median. Of the covariance of the others
    take the ⌊d/2⌋ bottom eigenvectors: along them the answer is the mean of those points. Project all points on the
    other eigenvectors and repeat, down to one dimension, whose answer is the mean of the shortest interval that holds
    the part 1 - ε of the points.

    Bound: ‖μ̂ - μ‖ = O(√(ε log d ‖Σ‖)) for bounded fourth moments: it grows with d, if slowly.
    Cost: O(Nd²) and a sort of every coordinate; memory for a copy of half of x and a d x d matrix.

    Args:
        x: `(N, d)`, NumPy array or torch tensor, on any device.
        contamination: ε in [0, ½), the part of the sample that may be corrupted, f = ⌊εN⌋; 0 gives the mean.

    Returns:
        The mean; no weights, for each level has its own. For each level but the last the top eigenvalue of the
        covariance of the points that were kept, and how many were not.

    Raises:
        ValueError: x that is not a finite `(N, d)` sample; a contamination out of range; N <= 2f; more points whose
            squares overflow than the part ε that is dropped.

    Source: Lai, Rao and Vempala, FOCS 2016, https://arxiv.org/abs/1604.06968, the algorithm for bounded fourth moments
        as in the authors' code (AgnosticMeanGeneral)
    Departs: all levels use the same points, as in the authors' code, where the paper splits the sample.
    """
    samples = as_samples(x)
    epsilon = check_contamination(contamination)
    ranged = in_range(samples.points, in_float64=True)
    points = ranged.points
    num_kept = len(points) - outlier_count(epsilon, len(points))
    answer = torch.zeros(points.shape[1], dtype=torch.float64, device=points.device)
    basis: Tensor | None = None  # of the subspace that the level's points live in, (d, k)
    iterations: list[Iteration] = []
    while points.shape[1] > 1:
        moments, kept = _nearest_to_median(points, num_kept)
        values, vectors = eigenpairs(moments.covariance())
        directions = torch.from_numpy(vectors).to(points.device)
        half = points.shape[1] // 2
        bottom, top = directions[:, :half], directions[:, half:]
        found = bottom @ (bottom.T @ moments.mean())
        answer += found if basis is None else basis @ found
        ranged.require_without(kept, epsilon)
        statistic, removed = ranged.from_unit(float(values[-1]), 2), len(points) - int(kept.sum())
        iterations.append(Iteration(statistic=statistic, threshold=None, removed=float(removed)))
        points = project_rows(points, torch.zeros_like(top[:, 0]), top)
        basis = top if basis is None else basis @ top
    mean, used = _mean_of_shortest_interval(points[:, 0].double().cpu().numpy(), num_kept)
    ranged.require_without(torch.from_numpy(used), epsilon)
    last = torch.tensor([mean], dtype=torch.float64).to(answer)
    answer += last if basis is None else basis @ last
    return MeanEstimate(
        method="mean by recursive projection (LRV)",
        mean=samples.restore(ranged.vector_from_unit(answer).to(samples.points.dtype)),
        iterations=tuple(iterations),
        details={"num_levels": float(len(iterations) + 1)},
    )


def _nearest_to_median(points: Tensor, num_kept: int) -> tuple[Moments, Tensor]:
    """The moments of the `num_kept` points nearest to the coordinate-wise median, all as near included, and which."""
    distances = distances_from(points, median_of_columns(points).double())
    kept = distances <= distances.kthvalue(num_kept).values
    moments = Moments(points)
    moments.update(kept.double())
    return moments, kept


def _mean_of_shortest_interval(values: NDArray[np.float64], num_kept: int) -> tuple[float, NDArray[np.bool_]]:
    """The mean of the `num_kept` consecutive order statistics that lie closest together, and which values they are.

    Of equal spans the lowest.
    """
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    spans = ordered[num_kept - 1 :] - ordered[: len(ordered) - num_kept + 1]
    start = int(spans.argmin())
    used = np.zeros(len(values), dtype=bool)
    used[order[start : start + num_kept]] = True
    return math.fsum(ordered[start : start + num_kept]) / num_kept, used
