"""Gram matrices: everything a spectral rule needs to know about n points in d >> n dimensions.

With K = (X - c)(X - c)ᵀ the mean, the covariance's top eigenvector and all distances of a weighted sample are n x n
arithmetic: the data is read once to build K and once to combine the rows.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from fedrobust.types import Updates, Vector, Weights

CHUNK_SIZE = 1 << 16
"""Columns read at a time: float32 products stay short sums, and a centred or widened chunk stays small."""

# Float32 products lose (norm / distance)² of their 1e-7; at this squared ratio 1e-5 relative is left.
_CENTRED = 1e-2
_MAX_PASSES = 4


def gram_matrix(points: Updates, *, centre: Vector | None = None, chunk_size: int = CHUNK_SIZE) -> Tensor:
    """K = (X - c)(X - c)ᵀ, products in the points' precision (float32 at least), sums over column chunks in float64.

    Args:
        points: X, `(n, d)`, float, on any device; not changed.
        centre: c, `(d,)`; nothing is subtracted if `None`.
        chunk_size: columns per chunk.

    Returns:
        K, `(n, n)` float64, on the CPU: what follows is small.

    Raises:
        ValueError: squared norms that overflow float64.
    """
    precision = _product_precision(points)
    gram = _accumulate(points, centre, chunk_size, precision)
    if precision == torch.float32 and not bool(torch.isfinite(gram).all()):
        # An outlier beyond 1e19 overflows its float32 products, and must not take the honest rows with it.
        gram = _accumulate(points, centre, chunk_size, torch.float64)
    if not bool(torch.isfinite(gram).all()):
        raise ValueError("points must be finite with squared norms below 1e308")
    return gram


def robust_gram_matrix(points: Updates, *, chunk_size: int = CHUNK_SIZE) -> Tensor:
    """The Gram matrix about a centre in whose neighbourhood distances do not cancel, `(n, n)` float64 on the CPU.

    Updates lie near the origin, so mostly the origin will do and the data is read once. Where the typical distance is
    small against the typical norm, K is built again about the medoid. Never about the mean: one outlier at 1e6 times
    the honest norm would take every honest distance's digits with it.

    Args:
        points: `(n, d)`, float, on any device; not changed.
        chunk_size: columns per chunk.

    Raises:
        ValueError: squared norms that overflow float64.
    """
    gram = gram_matrix(points, chunk_size=chunk_size)
    for _ in range(_MAX_PASSES - 1):
        medoid, squared_radius = medoid_and_squared_radius(gram)
        if squared_radius >= _CENTRED * float(gram.diagonal().median()):
            break
        gram = gram_matrix(points, centre=points[medoid].detach(), chunk_size=chunk_size)
    return gram


def squared_distances(gram: Tensor) -> Tensor:
    """D²ᵢⱼ = Kᵢᵢ + Kⱼⱼ - 2Kᵢⱼ, `(n, n)` and never negative, from a Gram matrix `(n, n)` about any centre."""
    norms = gram.diagonal()
    return (norms[:, None] + norms[None, :] - 2 * gram).clamp_min(0).fill_diagonal_(0)


def medoid_and_squared_radius(gram: Tensor) -> tuple[int, float]:
    """The point whose median squared distance to all points is smallest, and that squared distance.

    Outliers can move neither while they are fewer than half.
    """
    medians = squared_distances(gram).median(dim=1).values
    medoid = int(medians.argmin())
    return medoid, float(medians[medoid])


def recentre(gram: Tensor, weights: Weights) -> Tensor:
    """The Gram matrix about the weighted mean of its points: K - Kw1ᵀ - 1wᵀK + wᵀKw.

    Args:
        gram: K, `(n, n)` float64, about any centre.
        weights: w, `(n,)` float64, summing to 1.
    """
    projected = gram @ weights
    return gram - projected[:, None] - projected[None, :] + weights @ projected


def weighted_combination(points: Updates, weights: Weights, *, chunk_size: int = CHUNK_SIZE) -> Vector:
    """Σ wᵢxᵢ, in the points' dtype and on their device; a row of weight zero is not read, so never 0·inf.

    Args:
        points: `(n, d)`, float; not changed.
        weights: `(n,)`, any dtype and device.
        chunk_size: columns per chunk.
    """
    points = points.detach()
    used = (weights != 0).nonzero().squeeze(1).to(points.device)
    precision = _product_precision(points)
    coefficients = weights.to(points.device)[used].to(precision)
    combined = points.new_empty(points.shape[1])
    with _full_precision_products():
        for start in range(0, points.shape[1], chunk_size):
            chunk = points[:, start : start + chunk_size]
            rows = chunk if len(used) == len(points) else chunk[used]
            combined[start : start + chunk_size] = coefficients @ rows.to(precision)
    return combined


def _product_precision(points: Updates) -> torch.dtype:
    return torch.float64 if points.dtype == torch.float64 else torch.float32


def _accumulate(points: Updates, centre: Vector | None, chunk_size: int, precision: torch.dtype) -> Tensor:
    n, d = points.shape
    gram = torch.zeros((n, n), dtype=torch.float64, device=points.device)
    with _full_precision_products():
        for start in range(0, d, chunk_size):
            chunk = points[:, start : start + chunk_size].detach().to(precision)
            if centre is not None:
                chunk = chunk - centre[start : start + chunk_size].to(precision)
            gram += chunk @ chunk.T
    return ((gram + gram.T) / 2).cpu()


@contextmanager
def _full_precision_products() -> Iterator[None]:
    """Keep TF32 out, which training may have switched on: it leaves too few digits. The caller's choice is put back."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
