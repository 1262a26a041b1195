"""Means by the soft spectral filter: with a bound on the covariance, and without.

Diakonikolas and Kane, "Recent Advances in Algorithmic High-Dimensional Robust Statistics", 2019,
https://arxiv.org/abs/1911.05911, and Allouah et al., ICML 2025, https://arxiv.org/abs/2505.01874 (CAF).
"""

from typing import Literal, TypeAlias

import torch
from torch import Tensor

from fedrobust._linalg.gram import weighted_combination
from fedrobust._linalg.number_range import RangedSample, in_range
from fedrobust._linalg.rows import weighted_row_mean
from fedrobust._linalg.samples import Array, as_samples, check_contamination
from fedrobust.filters.covariance_direction import sample_direction
from fedrobust.filters.filtering import check_positive, outlier_count
from fedrobust.filters.results import Iteration, MeanEstimate
from fedrobust.filters.soft_filter import soft_filter_along, tell_of_budget
from fedrobust.types import Vector, Weights

Scoring: TypeAlias = Literal["top", "quantum_entropy"]
"""What a point's suspicion is: its squared projection on the top direction, or its quantum entropy score."""


def covariance_agnostic_mean(
    x: Array, contamination: float, *, direction: Scoring = "top", entropy_alpha: float = 4.0
) -> MeanEstimate:
    """The mean of good points of unknown covariance, from a sample of which a part ε may be anything (CAF).

    Repeat w ← w(1 - τ/τ_max), τᵢ = ⟨xᵢ - μ_w, v⟩² for the top eigenvector v of the covariance under w, until more than
    2f is gone in all; of all weights, the last ones included, those with the smallest top eigenvalue give the answer.

    Bound: ‖μ̂ - μ‖ = O(√(ε‖Σ‖)) beside the good points' own sampling error √(tr Σ/N); a shift within √(ε‖Σ‖) is
    invisible to any filter.
    Equivariant under translation, rotation, scaling and permutation.

    Args:
        x: `(N, d)`, NumPy array or torch tensor, on any device.
        contamination: ε in [0, ½), the part of the sample that may be corrupted, f = ⌊εN⌋; 0 gives the mean.
        direction: τ from the top direction alone, or from all by their quantum entropy weights:
            τᵢ = Σⱼ pⱼ⟨xᵢ - μ_w, vⱼ⟩², pⱼ ∝ exp(αλⱼ/λ₁).
        entropy_alpha: α ≥ 0, how much the directions of large variance are preferred.

    Returns:
        The mean, the weights, and for each step the top eigenvalue before it and the mass removed.

    Raises:
        ValueError: x that is not a finite `(N, d)` sample; another argument out of range; N <= 2f.

    Source: Allouah et al., "Towards Trustworthy Federated Learning with Untrusted Participants", ICML 2025,
        https://arxiv.org/abs/2505.01874; quantum entropy scores: Dong, Hopkins and Li, NeurIPS 2019,
        https://arxiv.org/abs/1906.11366
    Departs: the weighting that the last step leads to, beyond 2f, is looked at like every other, where public code
        takes that step without a look. Steps go on as long as they halve the top eigenvalue. A step beyond 2f in which
        most of the points left lie equally far out is not taken. Quantum entropy scores are computed exactly, where
        their paper sketches the matrix exponential.
    """
    return _soft_mean("covariance-agnostic mean (CAF)", x, contamination, None, direction, entropy_alpha)


def bounded_covariance_mean(
    x: Array,
    contamination: float,
    sigma: float,
    *,
    stopping_factor: float = 1.5,
    direction: Scoring = "top",
    entropy_alpha: float = 4.0,
) -> MeanEstimate:
    """The mean of good points whose variance is at most σ² in every direction, a part ε of the sample being anything.

    Repeat w ← w(1 - τ/τ_max), τᵢ = ⟨xᵢ - μ_w, v⟩² for the top eigenvector v of the covariance under w, until its
    eigenvalue is at most Cσ² or more than 2f is gone in all; then the weights with the smallest one give the answer.

    Bound: ‖μ̂ - μ‖ = O(σ√ε) beside the good points' own sampling error √(tr Σ/N).

    Args:
        x: `(N, d)`, NumPy array or torch tensor, on any device.
        contamination: ε in [0, ½), the part of the sample that may be corrupted, f = ⌊εN⌋; 0 gives the mean.
        sigma: σ, the largest standard deviation of the good points in any direction, in the units of x.
        stopping_factor: C. The proof that a step takes more from the bad points than from the good needs 6 at ε = 0.1,
            and errors are then up to twice those at the default, which was chosen by measurement
            (`experiments/filter_budgets`). It leaves room for a clean sample's top eigenvalue, (1 + √(d/N))²σ², where N
            is 20 times d and more; with fewer points it must be larger, or `covariance_agnostic_mean` is the better
            choice, which needs no σ.
        direction: as for `covariance_agnostic_mean`.
        entropy_alpha: as for `covariance_agnostic_mean`.

    Returns:
        The mean, the weights, and for each step the top eigenvalue before it, Cσ² and the mass removed.

    Raises:
        ValueError: x that is not a finite `(N, d)` sample; another argument out of range; N <= 2f.

    Source: Diakonikolas and Kane, 2019, https://arxiv.org/abs/1911.05911; quantum entropy scores: Dong, Hopkins and Li,
        NeurIPS 2019, https://arxiv.org/abs/1906.11366
    Departs: where the budget of 2f ends the loop, the calmest weighting is the answer, that beyond the budget included.
        A step beyond 2f in which most of the points left lie equally far out is not taken. Quantum entropy scores are
        computed exactly, where their paper sketches the matrix exponential.
    """
    bound = check_positive(stopping_factor, "stopping_factor"), check_positive(sigma, "sigma")
    return _soft_mean("bounded-covariance mean", x, contamination, bound, direction, entropy_alpha)


def sample_mean(points: Tensor, weights: Weights, ranged: RangedSample | None = None) -> Vector:
    """Σ wᵢxᵢ / Σ wᵢ of `points` `(n, d)`, `(d,)` in their precision and on their device.

    Args:
        points: float, on any device; not changed.
        weights: `(n,)` float64 on the CPU, non-negative, not all zero.
        ranged: the same points in range, if it was looked at.
    """
    if ranged is not None and not ranged.is_as_given:
        return ranged.mean(points, weights)
    if len(points) >= points.shape[1]:
        return weighted_row_mean(points, weights).to(points.dtype)
    return weighted_combination(points, weights / weights.sum())


def _soft_mean(
    method: str,
    x: Array,
    contamination: float,
    bound: tuple[float, float] | None,
    direction: Scoring,
    entropy_alpha: float,
) -> MeanEstimate:
    """The answer; `bound` is C and σ."""
    samples = as_samples(x)
    epsilon = check_contamination(contamination)
    if direction not in ("top", "quantum_entropy"):
        raise ValueError(f"direction must be 'top' or 'quantum_entropy', got {direction!r}")
    if not 0 <= entropy_alpha < float("inf"):
        raise ValueError(f"entropy_alpha must be finite and not negative, got {entropy_alpha}")
    points = samples.points
    f = outlier_count(epsilon, len(points))
    ranged = in_range(points)
    weights = torch.ones(len(points), dtype=torch.float64)
    iterations: tuple[Iteration, ...] = ()
    details = {"num_outliers": float(f)}
    if f > 0:
        alpha = float(entropy_alpha) if direction == "quantum_entropy" else None
        limit = None
        if bound is not None:
            sigma = ranged.to_unit(bound[1])
            limit = bound[0] * (sigma * sigma)  # a power would raise where it overflows
        filtered = soft_filter_along(
            sample_direction(ranged.points, alpha), len(points), max_removed=2 * f, max_eigenvalue=limit
        )
        if not ranged.is_as_given:
            filtered = filtered.rescaled(lambda eigenvalue: ranged.from_unit(eigenvalue, 2))
        weights, iterations = filtered.weights, filtered.iterations
        details |= filtered.diagnostics()
        tell_of_budget(method, filtered, 2 * f)
    return MeanEstimate(
        method=method,
        mean=samples.restore(sample_mean(points, weights, ranged)),
        weights=samples.restore(weights),
        iterations=iterations,
        details=details,
    )
