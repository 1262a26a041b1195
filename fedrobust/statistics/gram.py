"""Gram matrices: everything a spectral rule needs to know about n points in d >> n dimensions.

With K = (X - c)(X - c)ᵀ the mean, the covariance's top eigenvector and all distances of a weighted sample are n x n
arithmetic: the data is read once to build K and once to combine the rows.
"""

from collections.abc import Callable, Iterable
from itertools import accumulate, pairwise

import torch
from torch import Tensor

from fedrobust.statistics.columns import (
    Points,
    Shards,
    all_finite,
    column_chunks,
    get_row,
    map_columns,
    require_finite,
    select_columns,
)
from fedrobust.statistics.kernels.block_sums import can_add_rows
from fedrobust.statistics.kernels.combination_kernel import combined_rows
from fedrobust.statistics.kernels.gram_kernel import can_multiply, row_products
from fedrobust.statistics.threads import full_precision_products
from fedrobust.types import Vector, Weights

# Float32 products lose (norm / distance)² of their 1e-7; at this squared ratio 1e-5 relative is left.
_CENTRED = 1e-2
_MAX_PASSES = 4

_TOO_LARGE = "updates must have squared norms below 1e308"

_SLICE = 1 << 11
"""Columns of one of the products that a GPU computes at the same time."""

_MOST_SLICES = 1 << 9
_FEWEST_DEVICE_BYTES = 1 << 25
_SAMPLE_PART = 64
_FEWEST_SAMPLED = 1 << 10
"""Chosen columns are copied so small a part of all at a time, if that is no less than so many."""

_ROWS_AT_ONCE = 64
_DEVICE_PART = 32
"""What a GPU's products take is at most so small a part of the points, if that is more than the fewest bytes."""


def gram_matrix(points: Points, *, centre: Vector | None = None, chunk_size: int | None = None) -> Tensor:
    """K = (X - c)(X - c)ᵀ, products in the points' precision (float32 at least), sums over column chunks in float64.

    On a CPU float32 goes through compiled products of pairs of rows, unless a `chunk_size` is given.

    Args:
        points: X, `(n, d)`, float, on any device; not changed.
        centre: c, `(d,)`; nothing is subtracted if `None`.
        chunk_size: columns per chunk; chosen if `None`.

    Returns:
        K, `(n, n)` float64, on the CPU: what follows is small.

    Raises:
        ValueError: points that are not finite, or whose squared norms overflow float64.
    """
    precision = _product_precision(points)
    gram = _gram(points, centre, chunk_size, precision)
    if all_finite(gram):
        return gram
    if precision == torch.float32:
        # An outlier beyond 1e19 overflows its float32 products, and must not take the honest rows with it.
        gram = _gram(points, centre, chunk_size, torch.float64)
    require_finite(gram, points)
    if not all_finite(gram):
        raise ValueError(_TOO_LARGE)
    return gram


def robust_gram_matrix(points: Points, *, columns: Tensor | None = None, chunk_size: int | None = None) -> Tensor:
    """The Gram matrix about a centre in whose neighbourhood distances do not cancel, `(n, n)` float64 on the CPU.

    Updates lie near the origin, so mostly the origin will do and the data is read once. Where the typical distance is
    small against the typical norm, K is built again about the medoid. Never about the mean: one outlier at 1e6 times
    the honest norm would take every honest distance's digits with it.

    Args:
        points: `(n, d)`, float, on any device; not changed.
        columns: ascending indices of the coordinates that count, on the CPU; all if `None`. They are copied a part at a
            time.
        chunk_size: columns per chunk; chosen if `None`.

    Raises:
        ValueError: points that are not finite, or whose squared norms overflow float64.
    """

    def build(medoid: int | None) -> Tensor:
        if columns is None:
            return gram_matrix(
                points, centre=None if medoid is None else get_row(points, medoid), chunk_size=chunk_size
            )
        at_once = max(_FEWEST_SAMPLED, points.shape[1] // _SAMPLE_PART)
        return _added(build_part(medoid, some) for some in columns.split(at_once))

    def build_part(medoid: int | None, some: Tensor) -> Tensor:
        sample = select_columns(points, some)
        return gram_matrix(sample, centre=None if medoid is None else sample[medoid], chunk_size=chunk_size)

    gram = build(None)
    for _ in range(_MAX_PASSES - 1):
        medoid, squared_radius = medoid_and_squared_radius(gram)
        if squared_radius >= _CENTRED * float(gram.diagonal().median()):
            break
        del gram  # the next one takes its place
        gram = build(medoid)
    return gram


def squared_distances(gram: Tensor) -> Tensor:
    """D²ᵢⱼ = Kᵢᵢ + Kⱼⱼ - 2Kᵢⱼ, `(n, n)` and never negative, from a Gram matrix `(n, n)` about any centre."""
    return _squared_distances_from(gram, slice(0, len(gram)))


def map_squared_distances(gram: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
    """`function` from some rows `(k, n)` of the squared distances to `(k,)`, over all rows, `(n,)`: no other matrix."""
    spans = (slice(start, start + _ROWS_AT_ONCE) for start in range(0, len(gram), _ROWS_AT_ONCE))
    return torch.cat([function(_squared_distances_from(gram, rows)) for rows in spans])


def _squared_distances_from(gram: Tensor, rows: slice) -> Tensor:
    norms = gram.diagonal()
    squared = norms[rows, None] + norms[None, :]
    squared.sub_(gram[rows], alpha=2).clamp_min_(0)
    squared[:, rows].fill_diagonal_(0)
    return squared


def medoid_and_squared_radius(gram: Tensor) -> tuple[int, float]:
    """The point whose median squared distance to all points is smallest, and that squared distance.

    Outliers can move neither while they are fewer than half.
    """
    medians = map_squared_distances(gram, lambda squared: squared.median(dim=1).values)
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


def squared_norms(points: Points, *, chunk_size: int | None = None) -> Tensor:
    """‖xᵢ‖², `(n,)` float64 on the CPU.

    Args:
        points: `(n, d)`, float; not changed.
        chunk_size: columns per chunk; chosen if `None`.

    Raises:
        ValueError: points that are not finite, or whose squared norms overflow float64.
    """
    precision = _product_precision(points)

    def square(chunk: Tensor, where: slice) -> Tensor:
        norms: Tensor = torch.linalg.vector_norm(chunk.to(precision), dim=1)
        return norms.double().square()

    def square_wide(chunk: Tensor, where: slice) -> Tensor:
        norms: Tensor = torch.linalg.vector_norm(chunk.double(), dim=1)
        return norms.square()

    norms = _sum_over_chunks(points, (len(points),), square, chunk_size)
    if precision == torch.float32 and not all_finite(norms):  # a norm above 1e19 overflowed
        norms = _sum_over_chunks(points, (len(points),), square_wide, chunk_size)
    require_finite(norms, points)
    if not all_finite(norms):
        raise ValueError(_TOO_LARGE)
    return norms


def inner_products(points: Points, vector: Vector, *, chunk_size: int | None = None) -> Tensor:
    """⟨xᵢ, v⟩, `(n,)` float64 on the CPU: products in the points' precision, sums over chunks in float64.

    Args:
        points: `(n, d)`, float; not changed.
        vector: v, `(d,)`, on any device.
        chunk_size: columns per chunk; chosen if `None`.

    Raises:
        ValueError: points that are not finite, or a vector of another length.
    """
    if vector.shape != (points.shape[1],):
        raise ValueError(f"vector must have shape ({points.shape[1]},), got {tuple(vector.shape)}")
    precision = _product_precision(points)

    def multiply(chunk: Tensor, where: slice) -> Tensor:
        return chunk.to(precision) @ vector[where].to(chunk.device, precision)

    def multiply_wide(chunk: Tensor, where: slice) -> Tensor:
        return chunk.double() @ vector[where].to(chunk.device, torch.float64)

    products = _sum_over_chunks(points, (len(points),), multiply, chunk_size)
    if precision == torch.float32 and not all_finite(products):
        products = _sum_over_chunks(points, (len(points),), multiply_wide, chunk_size)
    require_finite(products, points)
    return products


def weighted_combination(points: Points, weights: Weights, *, chunk_size: int | None = None) -> Vector:
    """Σ wᵢxᵢ, in the points' dtype and on their device; a row of weight zero is not read, so never 0·inf.

    Args:
        points: `(n, d)`, float; not changed.
        weights: `(n,)`, any dtype and device.
        chunk_size: columns per chunk; chosen if `None`.

    Raises:
        ValueError: points of non-zero weight that are not finite.
    """
    used = (weights != 0).nonzero().squeeze(1).cpu()
    parts = points.parts if isinstance(points, Shards) else (points,)
    if chunk_size is None and all(can_add_rows(part) for part in parts):
        found = [combined_rows(part.detach(), used, weights.cpu()[used]) for part in parts]
        if not all(is_finite for _, is_finite in found):
            require_finite(torch.tensor(float("nan")), points)
        sums = [one for one, _ in found]
        return sums[0] if len(sums) == 1 else torch.cat(sums)
    precision = _product_precision(points)
    coefficients = weights.cpu()[used].to(precision)
    on_device = {part.device: (used.to(part.device), coefficients.to(part.device)) for part in parts}

    def combine(chunk: Tensor, where: slice) -> Tensor:
        indices, factors = on_device[chunk.device]
        return factors @ (chunk if len(used) == len(points) else chunk[indices]).to(precision)

    with full_precision_products():
        combined = map_columns(points, combine, chunk_size)
    require_finite(combined, points)
    return combined


def combine_rows(points: Points, mixing: Tensor, *, chunk_size: int | None = None) -> Points:
    """A·X: m combinations of n rows, in the points' dtype, where the points are (shards stay shards).

    Args:
        points: X, `(n, d)`, float; not changed.
        mixing: A, `(m, n)`, any dtype and device.
        chunk_size: columns per chunk; chosen if `None`.

    Raises:
        ValueError: points that are not finite.
    """
    if isinstance(points, Shards):
        return Shards(tuple(_combine_tensor(part, mixing, chunk_size) for part in points.parts))
    return _combine_tensor(points, mixing, chunk_size)


def _combine_tensor(points: Tensor, mixing: Tensor, chunk_size: int | None) -> Tensor:
    precision = _product_precision(points)
    coefficients = mixing.to(points.device, precision)
    combined = points.new_empty((len(mixing), points.shape[1]), requires_grad=False)
    with full_precision_products():
        for where, chunk in column_chunks(points, chunk_size):
            combined[:, where] = coefficients @ chunk.to(precision)
            require_finite(combined[:, where], points)
    return combined


def _product_precision(points: Points) -> torch.dtype:
    return torch.float64 if points.dtype == torch.float64 else torch.float32


def _gram(points: Points, centre: Vector | None, chunk_size: int | None, precision: torch.dtype) -> Tensor:
    parts = points.parts if isinstance(points, Shards) else (points,)
    if chunk_size is None and precision == torch.float32 and all(can_multiply(part) for part in parts):
        bounds = accumulate((part.shape[1] for part in parts), initial=0)
        centres = [None if centre is None else centre[start:stop].cpu() for start, stop in pairwise(bounds)]
        return _added(row_products(part.detach(), c) for part, c in zip(parts, centres, strict=True))

    def multiply(chunk: Tensor, where: slice) -> Tensor:
        rows = chunk.to(precision)
        if centre is not None:
            rows = rows - centre[where].to(chunk.device, precision)
        return rows @ rows.T if rows.device.type == "cpu" else sliced_products(rows)

    if chunk_size is None and any(part.device.type != "cpu" for part in parts):
        chunk_size = _device_columns(*points.shape)
    gram = _sum_over_chunks(points, (len(points), len(points)), multiply, chunk_size)
    return (gram + gram.T) / 2


def sliced_products(rows: Tensor) -> Tensor:
    """R·Rᵀ of a wide `(n, width)` matrix, `(n, n)`: products of slices of columns, their sum in float64.

    Of one product of long and few rows a GPU computes all sums in one corner of itself; of many slices, everywhere.
    """
    num_slices = rows.shape[1] // _SLICE
    slices = rows[:, : num_slices * _SLICE].unflatten(1, (num_slices, _SLICE)).transpose(0, 1)
    rest = rows[:, num_slices * _SLICE :]
    return torch.bmm(slices, slices.mT).sum(dim=0, dtype=torch.float64) + rest @ rest.T


def _device_columns(n: int, d: int) -> int:
    """Columns multiplied at a time on a GPU: of each slice there is a product, and a copy where it is centred."""
    at_once = max(_FEWEST_DEVICE_BYTES, n * d * 4 // _DEVICE_PART)
    return _SLICE * max(1, min(_MOST_SLICES, at_once // (4 * n * max(n, _SLICE))))


def _sum_over_chunks(
    points: Points, shape: tuple[int, ...], function: Callable[[Tensor, slice], Tensor], chunk_size: int | None
) -> Tensor:
    """The sum over column chunks in float64, on the CPU; each device adds up its own."""
    totals: dict[torch.device, Tensor] = {}
    with full_precision_products():
        for where, chunk in column_chunks(points, chunk_size):
            if chunk.device not in totals:
                totals[chunk.device] = torch.zeros(shape, dtype=torch.float64, device=chunk.device)
            totals[chunk.device] += function(chunk, where)
    return _added(total.cpu() for total in totals.values())


def _added(tensors: Iterable[Tensor]) -> Tensor:
    """Their sum, in place of the first: at a thousand clients a Gram matrix is large enough to count."""
    given = iter(tensors)
    first = next(given)
    for other in given:
        first += other
        del other  # before the next one is made
    return first
