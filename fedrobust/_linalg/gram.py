"""Gram matrices: everything a spectral rule needs to know about n points in d >> n dimensions.

With K = (X - c)(X - c)ᵀ the mean, the covariance's top eigenvector and all distances of a weighted sample are n x n
arithmetic: the data is read once to build K and once to combine the rows.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import accumulate, pairwise
from typing import NoReturn

import numpy as np
import torch
from torch import Tensor

from fedrobust._linalg.columns import (
    Points,
    Shards,
    all_finite,
    column_chunks,
    get_row,
    map_columns,
    require_finite,
    require_no_gradient,
    select_columns,
)
from fedrobust._linalg.gradients import (
    needs_gradient,
    parts_of,
    pull_back_combination,
    pull_back_mixing,
    with_gradient,
)
from fedrobust._linalg.kernels.block_sums import can_add_rows
from fedrobust._linalg.kernels.combination_kernel import combined_rows
from fedrobust._linalg.kernels.gram_kernel import can_multiply, row_products
from fedrobust._linalg.kernels.row_sums_kernel import can_sum_rows, row_sums
from fedrobust._linalg.threads import full_precision_products
from fedrobust.types import UnusableUpdatesError, Vector, Weights

# Float32 products lose (norm / distance)² of their 1e-7; at this squared ratio 1e-5 relative is left.
_CENTRED = 1e-2
_MAX_PASSES = 4

_TOO_LARGE = "updates must have squared norms below 1e308"
_TOO_SMALL = "updates must be zero or have squared norms above 1e-285: scale them up"

_TINY_WEIGHT = 1e-31
"""A weight below this, which makes up for a huge norm, has not all of its digits in float32."""

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

    On a CPU float32 goes through compiled products of pairs of rows, unless a `chunk_size` is given. Products that
    leave float32's range, above or below, are computed again in float64.

    Args:
        points: X, `(n, d)`, float, on any device; not changed.
        centre: c, `(d,)`; nothing is subtracted if `None`.
        chunk_size: columns per chunk; chosen if `None`.

    Returns:
        K, `(n, n)` float64, on the CPU: what follows is small.

    Raises:
        UnusableUpdatesError: points that are not finite, or whose squared norms leave float64's range: any above it, or
            the typical one below.
    """
    require_no_gradient(points, "gram_matrix")
    return _sound_gram([lambda: points], lambda _: centre, None, chunk_size)


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
        UnusableUpdatesError: as for `gram_matrix`.
    """
    require_no_gradient(points, "robust_gram_matrix")
    pieces: list[Callable[[], Points]] = [lambda: points]
    if columns is not None:
        at_once = max(_FEWEST_SAMPLED, points.shape[1] // _SAMPLE_PART)
        pieces = [partial(select_columns, points, some) for some in columns.split(at_once)]

    def build(medoid: int | None) -> Tensor:
        def centre(piece: Points) -> Vector | None:
            return None if medoid is None else get_row(piece, medoid)

        return _sound_gram(pieces, centre, medoid, chunk_size)

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
    """‖xᵢ‖², `(n,)` float64 on the CPU; 0 where it is below float64's range.

    Args:
        points: `(n, d)`, float; not changed.
        chunk_size: columns per chunk; chosen if `None`.

    Raises:
        UnusableUpdatesError: points that are not finite, or whose squared norms overflow float64.
    """
    squared = _squared_norms(points, chunk_size)
    if not all_finite(squared):
        raise UnusableUpdatesError(_TOO_LARGE)
    return squared


def row_norms(points: Points) -> Tensor:
    """‖xᵢ‖, `(n,)` float64 on the CPU, to the last digits wherever float64 holds the norm itself.

    Args:
        points: `(n, d)`, float; not changed.

    Raises:
        UnusableUpdatesError: points that are not finite, or whose norms overflow float64.
    """
    squared = _squared_norms(points, None)
    least = _least_sum(points, torch.float64)
    if points.dtype != torch.float64 or (all_finite(squared) and float(squared.min()) >= least):
        return squared.sqrt()
    largest = torch.zeros(len(points), dtype=torch.float64)
    for _, chunk in column_chunks(points):
        largest = torch.maximum(largest, chunk.abs().amax(dim=1).cpu())
    # Powers of two, by which products are exact.
    scales = torch.from_numpy(np.ldexp(1.0, -np.frexp(largest.numpy())[1].clip(-1000, 1000)))
    scaled = torch.zeros_like(largest)
    for _, chunk in column_chunks(points):
        scaled += torch.linalg.vector_norm(chunk * scales[:, None].to(chunk.device), dim=1).cpu().square()
    norms = scaled.sqrt() / scales
    if not all_finite(norms):
        raise UnusableUpdatesError("updates must have norms below 1e308")
    return norms


def _squared_norms(points: Points, chunk_size: int | None) -> Tensor:
    """Squared norms of finite points, infinite where they overflow float64."""
    sums = _row_sums(points, None, chunk_size)
    require_finite(sums, points)
    return sums


def inner_products(points: Points, vector: Vector, *, chunk_size: int | None = None) -> Tensor:
    """⟨xᵢ, v⟩, `(n,)` float64 on the CPU: products on a CPU and sums over chunks in float64.

    Args:
        points: `(n, d)`, float; not changed.
        vector: v, `(d,)`, on any device; rounded to the points' precision.
        chunk_size: columns per chunk; chosen if `None`.

    Raises:
        UnusableUpdatesError: points that are not finite, or products that overflow float64.
        ValueError: a vector of another length.
    """
    if vector.shape != (points.shape[1],):
        raise ValueError(f"vector must have shape ({points.shape[1]},), got {tuple(vector.shape)}")
    products = _row_sums(points, vector, chunk_size)
    require_finite(products, points)
    if not all_finite(products):
        raise UnusableUpdatesError("updates must have inner products below 1e308")
    return products


def _row_sums(points: Points, vector: Vector | None, chunk_size: int | None) -> Tensor:
    """Σⱼ xᵢⱼvⱼ, `(n,)` float64 on the CPU, and Σⱼ xᵢⱼ² without v."""
    for one, reader in ((points, "norms of rows"), (vector, "inner_products")):
        if one is not None:
            require_no_gradient(one, reader)
    parts = points.parts if isinstance(points, Shards) else (points,)
    if chunk_size is None and all(can_sum_rows(part) for part in parts):
        bounds = pairwise(accumulate((part.shape[1] for part in parts), initial=0))
        vectors = [None if vector is None else vector[slice(*span)].detach().to("cpu", points.dtype) for span in bounds]
        return _added(row_sums(part.detach(), some) for part, some in zip(parts, vectors, strict=True))

    def in_precision(precision: torch.dtype) -> Tensor:
        def add_up(chunk: Tensor, where: slice) -> Tensor:
            rows = chunk.to(precision)
            if vector is None:
                norms: Tensor = torch.linalg.vector_norm(rows, dim=1)
                return norms.double().square()
            return rows @ vector[where].detach().to(chunk.device, precision)

        return _sum_over_chunks(points, (len(points),), add_up, chunk_size)

    precision = torch.float64 if points.device.type == "cpu" else _product_precision(points)
    sums = in_precision(precision)
    if precision == torch.float32 and not (
        all_finite(sums) and float(sums.abs().min()) >= _least_sum(points, precision)
    ):
        sums = in_precision(torch.float64)
    return sums


def weighted_combination(points: Points, weights: Weights, *, chunk_size: int | None = None) -> Vector:
    """Σ wᵢxᵢ, in the points' dtype and on their device; a row of weight zero is not read, so never 0·inf.

    Differentiable in both.

    Args:
        points: `(n, d)`, float; not changed.
        weights: `(n,)`, any dtype and device.
        chunk_size: columns per chunk; chosen if `None`.

    Raises:
        ValueError: points of non-zero weight that are not finite.
    """
    if needs_gradient(points, weights):
        compute = partial(weighted_combination, points, weights, chunk_size=chunk_size)
        return with_gradient(compute, pull_back_combination, *parts_of(points), weights)
    used = (weights != 0).nonzero().squeeze(1).cpu()
    parts = points.parts if isinstance(points, Shards) else (points,)
    if chunk_size is None and all(can_add_rows(part) for part in parts):
        found = [combined_rows(part.detach(), used, weights.cpu()[used]) for part in parts]
        if not all(is_finite for _, is_finite in found):
            _refuse_combination(points)
        sums = [one for one, _ in found]
        return sums[0] if len(sums) == 1 else torch.cat(sums)
    precision = _product_precision(points)
    coefficients = weights.cpu()[used]
    if len(used) > 0 and float(coefficients.abs().min()) < _TINY_WEIGHT:
        precision = torch.float64
    coefficients = coefficients.to(precision)
    on_device = {part.device: (used.to(part.device), coefficients.to(part.device)) for part in parts}

    def combine(chunk: Tensor, where: slice) -> Tensor:
        indices, factors = on_device[chunk.device]
        return factors @ (chunk if len(used) == len(points) else chunk[indices]).to(precision)

    with full_precision_products():
        combined = map_columns(points, combine, chunk_size)
    if not all_finite(combined):
        _refuse_combination(points)
    return combined


def _refuse_combination(points: Points) -> NoReturn:
    require_finite(torch.tensor(float("nan")), points)
    raise UnusableUpdatesError(f"a combination of updates must stay within {points.dtype}")


def combine_rows(points: Points, mixing: Tensor, *, chunk_size: int | None = None) -> Points:
    """A·X: m combinations of n rows, in the points' dtype, where the points are (shards stay shards).

    Differentiable in the points.

    Args:
        points: X, `(n, d)`, float; not changed.
        mixing: A, `(m, n)`, any dtype and device.
        chunk_size: columns per chunk; chosen if `None`.

    Raises:
        ValueError: points that are not finite.
    """
    require_no_gradient(mixing, "combine_rows")
    if isinstance(points, Shards):
        return Shards(tuple(_combine_tensor(part, mixing, chunk_size) for part in points.parts))
    return _combine_tensor(points, mixing, chunk_size)


def _combine_tensor(points: Tensor, mixing: Tensor, chunk_size: int | None) -> Tensor:
    if needs_gradient(points):
        compute = partial(_combine_tensor, points, mixing, chunk_size)
        return with_gradient(compute, pull_back_mixing(mixing), points)
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


def _least_sum(points: Points, precision: torch.dtype) -> float:
    """Below this a sum of d products may have lost digits, as each of them may be off by the smallest number."""
    limits = torch.finfo(precision)
    return points.shape[1] * limits.tiny / limits.eps


def _sound_gram(
    pieces: Sequence[Callable[[], Points]],
    centre: Callable[[Points], Vector | None],
    zero_row: int | None,
    chunk_size: int | None,
) -> Tensor:
    """The Gram matrix of points given as pieces, columns of theirs each, about what `centre` says.

    Args:
        pieces: each is made when it is its turn.
        centre: from a piece to the point that is subtracted, or `None`.
        zero_row: the row that is known to be at the centre.
        chunk_size: columns per chunk; chosen if `None`.

    Raises:
        UnusableUpdatesError: points that are not finite, or squared norms beyond float64.
    """
    least = 0.0

    def build(piece: Points) -> Tensor:
        nonlocal least
        precision, about = _product_precision(piece), centre(piece)
        gram = _gram(piece, about, chunk_size, precision)
        # A row beyond 1e19 overflows its float32 products, and must not take the others along; below 1e-19 they are 0.
        if precision == torch.float32 and (
            not all_finite(gram) or _has_lost(piece, about, gram.diagonal(), _least_sum(piece, precision), zero_row)
        ):
            del gram
            gram = _gram(piece, about, chunk_size, torch.float64)
        require_finite(gram, piece)
        least += _least_sum(piece, torch.float64)
        return gram

    gram = _added(build(piece()) for piece in pieces)
    norms = gram.diagonal()
    if not math.isfinite(4 * len(norms) * float(norms.max())):  # what follows adds them up
        raise UnusableUpdatesError(_TOO_LARGE)
    # A row so short among others counts as zero, as it would be rounded to; but not if it is the typical one.
    if (
        float(norms.min()) < least
        and float(norms.median()) < least
        and any(_has_lost(one, centre(one), norms, least, zero_row) for one in (piece() for piece in pieces))
    ):
        raise UnusableUpdatesError(_TOO_SMALL)
    return gram


def _has_lost(points: Points, centre: Vector | None, sums: Tensor, least: float, zero_row: int | None) -> bool:
    """Whether one of the rows whose sums are below `least` is away from the centre all the same."""
    if float(sums.min()) >= least:
        return False
    rows = [row for row in (sums < least).nonzero().flatten().tolist() if row != zero_row]
    for where, chunk in column_chunks(points) if rows else ():
        short = chunk[rows]
        if bool((short if centre is None else short != centre[where].to(short)).any()):
            return True
    return False


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
