"""The total-variation distance between Gaussians: exact in one dimension, by Monte Carlo above, and Pinsker's bound.

TV(P, Q) = sup_A |P(A) - Q(A)| = E_P[(1 - q/p)₊], in [0, 1].
"""

import math
from dataclasses import dataclass

import torch
from scipy.special import ndtr
from torch import Tensor

from fedrobust._linalg.samples import Array, as_samples
from fedrobust.seeds import torch_generator
from fedrobust.statistics.gaussian.one_dimension import Gaussian

_CHUNK_NUMBERS = 1 << 22
"""Numbers that are drawn at a time: 32 MiB."""


@dataclass(frozen=True, kw_only=True)
class TotalVariation:
    """A Monte Carlo estimate.

    Attributes:
        distance: the mean over the draws, in [0, 1].
        standard_error: of `distance`.
        num_samples: how many draws.
    """

    distance: float
    standard_error: float
    num_samples: int

    def summary(self) -> str:
        """A line for people."""
        return f"total variation {self.distance:.6g} ± {self.standard_error:.2g} ({self.num_samples} draws)"


def gaussian_total_variation_1d(p: Gaussian, q: Gaussian) -> float:
    """The total-variation distance between two Gaussians in one dimension, exactly.

    The narrower density is the larger one between the two points where they are equal, so the distance is the
    difference of what the two put there. With equal sigma it is 2Φ(|μ_p - μ_q| / 2σ) - 1. Two point masses are at 0 or
    1, a point mass and a Gaussian at 1.

    Source: the definition. Departs: nothing.
    """
    narrow, wide = (p, q) if p.sigma <= q.sigma else (q, p)
    if narrow.sigma == 0:
        return float(narrow != wide)
    # In units in which the narrower one is N(0, 1) and the wider N(m, s²), s >= 1.
    m = (wide.mean - narrow.mean) / narrow.sigma
    excess = (wide.sigma - narrow.sigma) / narrow.sigma  # s - 1, without cancellation
    s = 1 + excess
    if not (math.isfinite(m) and math.isfinite(s * s)):
        return 1.0  # farther apart, or more unlike, than floating point can tell from it
    if excess == 0:
        return float(ndtr(abs(m) / 2) - ndtr(-abs(m) / 2))
    # (s² - 1) x² + 2m x - (m² + 2s² ln s) = 0, by the form that subtracts nothing.
    curvature = excess * (s + 1)
    log_s = math.log1p(excess)
    half = -(m + math.copysign(s * math.sqrt(m * m + 2 * curvature * log_s), m))
    one, other = half / curvature, -(m * m + 2 * s * s * log_s) / half
    low, high = min(one, other), max(one, other)
    inside = ndtr(high) - ndtr(low) - (ndtr((high - m) / s) - ndtr((low - m) / s))
    return float(min(1.0, max(0.0, inside)))


def gaussian_total_variation(
    mean_p: Array,
    covariance_p: Array,
    mean_q: Array,
    covariance_q: Array,
    *,
    num_samples: int = 100_000,
    seed: int = 0,
) -> TotalVariation:
    """The total-variation distance between two Gaussians in d dimensions: the mean of (1 - q(X)/p(X))₊ over X from P.

    A term lies in [0, 1], so the standard error is at most 1 / (2 √num_samples), in any dimension.

    Args:
        mean_p: `(d,)`.
        covariance_p: `(d, d)`, symmetric and positive definite.
        mean_q: `(d,)`.
        covariance_q: `(d, d)`, symmetric and positive definite.
        num_samples: how many draws, at least 2.
        seed: of the draws.

    Raises:
        ValueError: shapes that do not fit, NaN or infinity, a covariance that is not symmetric positive definite, too
            few draws.

    Source: the definition. Departs: nothing.
    """
    if num_samples < 2:
        raise ValueError(f"num_samples must be at least 2, got {num_samples}")
    mean_difference, factor_p, factor_q = _checked(mean_p, covariance_p, mean_q, covariance_q)
    d = len(mean_difference)
    log_determinants = factor_p.diagonal().log().sum() - factor_q.diagonal().log().sum()
    generator = torch_generator(seed, "gaussian_total_variation")
    total, total_of_squares = 0.0, 0.0
    chunk = max(1, _CHUNK_NUMBERS // d)
    for start in range(0, num_samples, chunk):
        size = min(chunk, num_samples - start)
        standard = torch.randn(size, d, generator=generator, dtype=torch.float64).to(factor_p.device)
        from_q = torch.linalg.solve_triangular(factor_q, factor_p @ standard.T - mean_difference[:, None], upper=False)
        log_ratio = ((standard * standard).sum(dim=1) - (from_q * from_q).sum(dim=0)) / 2 + log_determinants
        terms = (-torch.expm1(log_ratio)).clamp(min=0)
        total += float(terms.sum())
        total_of_squares += float(terms @ terms)
    distance = total / num_samples
    variance = max(0.0, total_of_squares / num_samples - distance**2) * num_samples / (num_samples - 1)
    return TotalVariation(distance=distance, standard_error=math.sqrt(variance / num_samples), num_samples=num_samples)


def gaussian_kl_divergence(mean_p: Array, covariance_p: Array, mean_q: Array, covariance_q: Array) -> float:
    """KL(P‖Q) between two Gaussians: ½ (Σⱼ (λⱼ - 1 - ln λⱼ) + ‖Σ_q^{-½}(μ_p - μ_q)‖²), λ the eigenvalues of Σ_q⁻¹Σ_p.

    Args:
        mean_p: `(d,)`.
        covariance_p: `(d, d)`, symmetric and positive definite.
        mean_q: `(d,)`.
        covariance_q: `(d, d)`, symmetric and positive definite.

    Raises:
        ValueError: shapes that do not fit, NaN or infinity, a covariance that is not symmetric positive definite.

    Source: Kullback, "Information Theory and Statistics", Wiley 1959. Departs: nothing.
    """
    mean_difference, factor_p, factor_q = _checked(mean_p, covariance_p, mean_q, covariance_q)
    whitened = torch.linalg.solve_triangular(factor_q, torch.column_stack([factor_p, mean_difference]), upper=False)
    relative = torch.linalg.svdvals(whitened[:, :-1]).square() - 1  # λ - 1
    shift = whitened[:, -1]
    return float((relative - relative.log1p()).clamp(min=0).sum() + shift @ shift) / 2


def pinsker_bound(mean_p: Array, covariance_p: Array, mean_q: Array, covariance_q: Array) -> float:
    """Pinsker's bound on the total-variation distance between two Gaussians: √(KL/2), at most 1.

    KL is the smaller of KL(P‖Q) and KL(Q‖P): the distance is symmetric, so the bound holds for either.

    Args:
        mean_p: `(d,)`.
        covariance_p: `(d, d)`, symmetric and positive definite.
        mean_q: `(d,)`.
        covariance_q: `(d, d)`, symmetric and positive definite.

    Raises:
        ValueError: shapes that do not fit, NaN or infinity, a covariance that is not symmetric positive definite.

    Source: Tsybakov, "Introduction to Nonparametric Estimation", Springer 2009, Lemma 2.5. Departs: nothing.
    """
    forward = gaussian_kl_divergence(mean_p, covariance_p, mean_q, covariance_q)
    backward = gaussian_kl_divergence(mean_q, covariance_q, mean_p, covariance_p)
    return min(1.0, math.sqrt(min(forward, backward) / 2))


def _checked(mean_p: Array, covariance_p: Array, mean_q: Array, covariance_q: Array) -> tuple[Tensor, Tensor, Tensor]:
    """μ_q - μ_p `(d,)` and the lower Cholesky factors of the two covariances `(d, d)`, float64."""
    means = [
        as_samples(mean, name=name, num_dimensions=1).points.double()
        for name, mean in (("mean_p", mean_p), ("mean_q", mean_q))
    ]
    d = len(means[0])
    if len(means[1]) != d:
        raise ValueError(f"mean_q must have shape ({d},) like mean_p, got {tuple(means[1].shape)}")
    factors = []
    for name, given in (("covariance_p", covariance_p), ("covariance_q", covariance_q)):
        covariance = as_samples(given, name=name).points.double().to(means[0].device)
        if tuple(covariance.shape) != (d, d):
            raise ValueError(f"{name} must have shape ({d}, {d}) like the means, got {tuple(covariance.shape)}")
        asymmetry = float((covariance - covariance.T).abs().max())
        if asymmetry > 1e-6 * float(covariance.abs().max()):
            raise ValueError(f"{name} must be symmetric, it differs from its transpose by {asymmetry:.3g}")
        factor, info = torch.linalg.cholesky_ex((covariance + covariance.T) / 2)
        if int(info) != 0:
            smallest = float(torch.linalg.eigvalsh(covariance)[0])
            raise ValueError(f"{name} must be positive definite, its smallest eigenvalue is {smallest:.3g}")
        factors.append(factor)
    return means[1].to(means[0].device) - means[0], factors[0], factors[1]
