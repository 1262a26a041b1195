"""The filter for an unknown covariance, with thresholds that are simulated instead of chosen.

Diakonikolas, Kamath, Kane, Li, Moitra and Stewart, "Being Robust (in High Dimensions) Can Be Practical", ICML 2017,
https://arxiv.org/abs/1703.00893
"""

import bisect
import math
from dataclasses import dataclass

import numpy as np
import scipy.stats
import torch
from torch import Tensor

from fedrobust._linalg.number_range import in_range_by_column
from fedrobust._linalg.samples import Array, as_samples, check_contamination
from fedrobust._linalg.symmetric_operator import Polynomial, squared_norms, top_polynomials
from fedrobust._linalg.whitening import cholesky, dependent_columns, second_moment, whiten
from fedrobust.filters.results import CovarianceEstimate, Iteration
from fedrobust.notices import notice
from fedrobust.statistics.moments.null_spectrum import (
    FALSE_ALARM,
    NULL_TOLERANCE,
    NullSpectrum,
    radial_statistic,
    simulated_null,
    top_limit_bound,
)
from fedrobust.statistics.moments.quadratic_form import QuadraticFormTail
from fedrobust.statistics.moments.tail_excess import tail_excess
from fedrobust.statistics.progress import Report, no_report, progress_report
from fedrobust.types import Vector

MAX_CONTAMINATION = 1 / 3
"""A far cluster of this mass has, whitened, the fourth moments of a Gaussian: (1 - ε)/(2ε) = 1."""

_REFINED = 1e-6
_FURTHER = 4


def filter_covariance(x: Array, contamination: float, seed: int = 0, *, progress: bool = False) -> CovarianceEstimate:
    """The covariance of N(0, Σ), from a sample of which a part ε may be anything.

    Repeat: whiten the points by their second moment, y = S^{-½}x; remove those whose ‖y‖² no clean point reaches; find
    the quadratic polynomial p(y) = ⟨yyᵀ - I, M⟩, ‖M‖_F = 1, with the largest second moment λ, by Lanczos, without ever
    forming y⊗y. Stop if ½λ is within what clean samples of this n and d show, which is simulated: whitened, they have
    one law whatever Σ is. Else compare p's tails with those of Σ μⱼ(zⱼ² - 1), μ the eigenvalues of M, and remove a tail
    where it holds more than three times as many points as it should. Then the same with p = (‖y‖² - d)/√d. What is left
    is scaled so that the median of its ‖y‖² is χ²'s.

    Affine equivariant, but for rounding. On clean data it removes nothing with probability of about 0.998, and is then
    the sample's second moment exactly.

    Bound: ‖Σ^{-½}Σ̂Σ^{-½} - I‖_F = O(ε log(1/ε)) for N of the order of d²/ε² and more, for the paper's filter.
    Cost: O(Nd²) a product, some twenty to a hundred of them a step; memory for one whitened copy of x beside O(d²).

    Args:
        x: `(N, d)` of mean zero, NumPy array or torch tensor, on any device.
        contamination: ε in [0, ⅓), the part of the sample that may be corrupted; 0 gives the second moment xᵀx/N.
        seed: of the simulated null, which is remembered for each N, d and seed.
        progress: show a bar on stderr.

    Returns:
        The covariance, weights 0 or 1, and for each step the statistic (½λ, or the largest ‖y‖² where points were
        pruned by it), its limit and the number of points removed; an entry with 0 removed is why it stopped.

    Raises:
        ValueError: x that is not a finite `(N, d)` sample, or whose columns are linearly dependent, or whose squares
            are no numbers in its precision; a contamination out of range; N below
            `covariance_samples(d, contamination)`.

    Source: Diakonikolas et al., ICML 2017, https://arxiv.org/abs/1703.00893.
    Departs: λ's limit is simulated, where the paper has 1 + O(ε log²(1/ε)) and the authors' code 1; a tail is removed
        where it exceeds three times its law under the null, instead of 12e^{-kT} + 3ε/(d log(N/τ))² with k searched for
        until 0.5 to 1.5 εN points are gone; each tail on its own; ‖y‖² is tested too; nothing more is removed once
        2εN points are gone, and notice is given where more stand out; the removal that exceeds 2εN ends with half of
        the points; the result is rescaled by the median.
    """
    samples = as_samples(x)
    epsilon = check_contamination(contamination)
    n, d = samples.points.shape
    if epsilon > 0:
        needed = covariance_samples(d, epsilon)
        if n < needed:
            raise ValueError(
                f"x must have at least {needed} rows for d={d} and contamination={epsilon:g}, got {n}: with fewer, "
                "outliers cannot be told from chance"
            )
    ranged = in_range_by_column(samples.points)
    with progress_report(progress) as report:
        fit = fit_covariance(ranged.points, None, epsilon, seed=seed, report=report)
    ranged.require_without(fit.kept, epsilon)
    return CovarianceEstimate(
        method="filter for an unknown covariance",
        covariance=samples.restore(ranged.matrix_from_unit(fit.covariance, samples.points.dtype)),
        weights=samples.restore(fit.kept.to(samples.points.dtype)),
        iterations=fit.iterations,
        details=fit.details,
    )


def covariance_samples(d: int, contamination: float) -> int:
    """The least N for which `filter_covariance` can see a far cluster of mass ε, in d dimensions.

    Whitened, the cluster makes ½λ = (1 - ε)/(2ε), which must exceed what a clean sample may show, about
    (1 + √(d(d+1)/2N))². And ten points for each dimension in any case.

    Raises:
        ValueError: a contamination outside (0, ⅓).

    Source: the fourth moments of two points; Marchenko and Pastur, 1967, for the edge. Departs: nothing.
    """
    if not 0 < contamination < MAX_CONTAMINATION:
        raise ValueError(
            f"contamination must lie in (0, 1/3), got {contamination:g}: from 1/3 on a far cluster of outliers has the "
            "fourth moments of a Gaussian"
        )
    visible = (1 - contamination) / (2 * contamination)
    fewest = 10 * (d + 1)
    enough = fewest
    while top_limit_bound(enough, d) > visible:
        enough *= 2
    return fewest + bisect.bisect_left(range(fewest, enough), True, key=lambda n: top_limit_bound(n, d) <= visible)


@dataclass(frozen=True, eq=False)
class CovarianceFit:
    """A covariance, `(d, d)` float64 on the points' device, the mask of the kept points on the CPU, and the steps."""

    covariance: Tensor
    kept: Tensor
    iterations: tuple[Iteration, ...]
    details: dict[str, float]


def fit_covariance(
    points: Tensor, centre: Vector | None, epsilon: float, *, seed: int, report: Report = no_report
) -> CovarianceFit:
    """`filter_covariance` for checked points about a given centre.

    Args:
        points: `(N, d)`, float, on any device; not changed.
        centre: `(d,)` float64 on the same device; zero if `None`.
        epsilon: in [0, ⅓).
        seed: of the simulated null.
        report: told what goes on.
    """
    n, d = points.shape
    centre = torch.zeros(d, dtype=torch.float64, device=points.device) if centre is None else centre
    kept = torch.ones(n, dtype=torch.bool)
    if epsilon == 0:
        return CovarianceFit(second_moment(points, centre, None), kept, (), {})
    null = simulated_null(n, d, seed=seed, device=str(points.device), report=report)
    budget = math.floor(2 * epsilon * n + 1e-9)
    buffer = torch.empty_like(points, memory_format=torch.contiguous_format)
    iterations: list[Iteration] = []
    while True:
        rows = kept.nonzero().squeeze(1)
        num_kept = len(rows)
        report(f"step {len(iterations) + 1}: {n - num_kept} of {n} points removed", (n - num_kept) / max(budget, 1))
        moment = second_moment(points, centre, rows)
        factor = cholesky(moment)
        if factor is None:  # outliers so far out that float64 does not see the rest beside them
            outliers, statistic, limit = beyond_scale(points, centre, rows, epsilon)
            if len(outliers) == 0:
                raise ValueError(dependent_columns(points, centre))
        else:
            whitened = whiten(points, centre, rows, factor, buffer)
            squared_radii = squared_norms(whitened)
            outliers, statistic, limit = _look(whitened, squared_radii, null)
        gone = n - num_kept
        if gone >= budget and len(outliers) > 0:
            notice(
                f"filter_covariance: {gone} of {n} points are removed, all of the budget of {budget}, and "
                f"{len(outliers)} more stand out; the contamination is too small"
            )
        outliers = outliers[: max(budget, n // 2) - gone if gone < budget else 0]
        iterations.append(Iteration(statistic=statistic, threshold=limit, removed=float(len(outliers))))
        if len(outliers) == 0:
            break
        kept[rows[outliers]] = False
    if factor is None:
        raise ValueError(dependent_columns(points, centre))
    consistency = 1.0
    if num_kept < n:
        # The law of ‖y‖² where y was whitened by its own sample, which tends to χ² as n grows.
        median = num_kept * scipy.stats.beta.median(d / 2, (num_kept - d) / 2)
        consistency = float(np.median(squared_radii.cpu().numpy()) / median)
    details = {"num_removed": float(n - num_kept), "consistency_factor": consistency}
    return CovarianceFit(moment * consistency, kept, tuple(iterations), details)


def _look(whitened: Tensor, squared_radii: Tensor, null: NullSpectrum) -> tuple[Tensor, float, float]:
    """The outliers among whitened points, the farthest out first, with the statistic and its limit; or none of them."""
    n, d = whitened.shape
    reach = n * float(scipy.stats.beta.isf(FALSE_ALARM / n, d / 2, (n - d) / 2))
    pruned = (squared_radii > reach).nonzero().squeeze(1)
    if len(pruned) > 0:
        order = squared_radii[pruned].argsort(descending=True, stable=True)
        return pruned[order].cpu(), float(squared_radii.max()), reach

    limit = null.top_limit_at(n)
    top = top_polynomials(whitened, tolerance=NULL_TOLERANCE)[0]
    if top.second_moment > limit:
        # Chosen among so many polynomials, even a clean one has this much more than its law's second moment.
        stretch = max(1.0, null.top_mean_at(n)) ** 0.5
        refined = top_polynomials(whitened, tolerance=_REFINED, near=top)
        outliers = _in_tails(whitened, refined, limit, stretch)
        if len(outliers) == 0 and d > 1:  # subtle ones in the top direction may hide others
            further = top_polynomials(whitened, tolerance=NULL_TOLERANCE / 10, count=_FURTHER, near=top)
            outliers = _in_tails(whitened, further[1:], limit, stretch)
        if len(outliers) > 0:
            return outliers, top.second_moment, limit

    radial, radial_limit = radial_statistic(squared_radii, d), null.radial_limit_at(n)
    if radial > radial_limit:
        law = QuadraticFormTail.of(np.full(d, d**-0.5))
        outliers = tail_excess((squared_radii - d) / d**0.5, law, false_alarm=FALSE_ALARM)
        if len(outliers) > 0:
            return outliers, radial, radial_limit
    return torch.empty(0, dtype=torch.int64), top.second_moment, limit


def _in_tails(whitened: Tensor, polynomials: list[Polynomial], limit: float, stretch: float) -> Tensor:
    for polynomial in polynomials:
        if polynomial.second_moment > limit:
            law = QuadraticFormTail.of(torch.linalg.eigvalsh(polynomial.matrix).cpu().numpy())
            outliers = tail_excess(polynomial.values(whitened), law, stretch=stretch, false_alarm=FALSE_ALARM)
            if len(outliers) > 0:
                return outliers
    return torch.empty(0, dtype=torch.int64)


def beyond_scale(points: Tensor, centre: Vector, rows: Tensor, epsilon: float) -> tuple[Tensor, float, float]:
    """Points with a coordinate that no clean one reaches, the farthest out first; with the largest ratio and its limit.

    Column by column: the median of |x| over all points is at least the (½-ε)/(1-ε) quantile of the clean ones, which
    bounds their standard deviation. Not affine equivariant, hence only for what whitening cannot see.
    """
    n, d = len(rows), points.shape[1]
    least = scipy.stats.norm.ppf(0.5 + (0.5 - epsilon) / (1 - epsilon) / 2)
    limit = float(scipy.stats.norm.isf(FALSE_ALARM / (2 * n * d)) / least)
    largest = torch.zeros(n, dtype=torch.float64)
    for column in range(d):
        sizes = (points[:, column].double() - centre[column]).abs().cpu()[rows]
        scale = float(np.median(sizes.numpy()))
        if scale > 0:
            largest = largest.maximum(sizes / scale)
    outliers = (largest > limit).nonzero().squeeze(1)
    order = largest[outliers].argsort(descending=True, stable=True)
    return outliers[order], float(largest.max()), limit
