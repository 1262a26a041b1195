"""Coordinate-wise order statistics of n points: the one primitive of the coordinate-wise rules.

On a CPU and on a GPU float32 columns go through compiled sorting networks. Whatever else there is (float64, few
columns, a machine on which nothing can be compiled) is sorted a transposed chunk at a time, to the same bits.
"""

import functools
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor

from fedrobust._linalg.columns import Points, Shards, map_columns, require_finite, require_no_gradient
from fedrobust._linalg.gradients import needs_gradient, parts_of, pull_back_ranks, with_gradient
from fedrobust._linalg.kernels.gpu_order_statistics import reduced_on_gpu, suits_gpu_kernels
from fedrobust._linalg.kernels.kernel_parts import INFINITY
from fedrobust._linalg.kernels.native import can_compile, over_column_spans
from fedrobust._linalg.kernels.network_kernels import (
    Reduction,
    columns_at_once,
    order_statistics_kernel,
    pairs_for,
    tile_for,
)
from fedrobust._linalg.memory import new_vector
from fedrobust.types import Vector

_CHUNK_BYTES = 1 << 20
"""A transposed chunk of this size stays in a CPU core's cache while it is sorted."""

_MOST_DEVICE_CHUNK_BYTES = 1 << 28
_FEWEST_DEVICE_CHUNK_BYTES = 1 << 22
_DEVICE_CHUNK_PART = 64
"""Beside a chunk a GPU's sort holds its transpose, the sorted values, 64-bit indices and room to work: six chunks."""

_WIDENED_COLUMNS = 1 << 16
_WORTH_COMPILING = 1 << 16
"""Numbers from which on a kernel's compilation (a fiftieth of a second, and at n = 100 a third) pays within rounds."""

_LARGEST_NETWORK = 2048
"""Above this n sorting, O(n log n), catches up with a network, O(n log² n)."""

Reduce = Callable[[Tensor], Tensor]
"""From `(width, n)` ascending rows to `(width,)` float64."""


def mean_of_order_statistics(points: Points, first: int, last: int, *, chunk_size: int | None = None) -> Vector:
    """For each coordinate the mean of its order statistics first, ..., last - 1 (counted from 0), `(d,)`.

    The kept values are added up directly, in float64: a total minus the extremes would lose every digit to an outlier.
    Differentiable in the points.

    Args:
        points: `(n, d)`, float, on any device; not changed.
        first: rank of the smallest value that counts, 0 <= first < last.
        last: one past the rank of the largest, last <= n.
        chunk_size: columns sorted at a time where nothing is compiled; chosen for the cache if `None`.

    Raises:
        ValueError: ranks that select nothing or do not exist; points that are not finite.
    """
    n = len(points)
    if not 0 <= first < last <= n:
        raise ValueError(f"ranks must satisfy 0 <= first < last <= n, got first={first}, last={last}, n={n}")
    if needs_gradient(points):
        return with_gradient(
            partial(mean_of_order_statistics, points, first, last, chunk_size=chunk_size),
            pull_back_ranks(first, last),
            *parts_of(points),
        )

    def reduce(ordered: Tensor) -> Tensor:
        if n > _LARGEST_NETWORK:  # no network adds these up one rank at a time, so nothing has to
            return ordered[:, first:last].double().sum(dim=1) / (last - first)
        total = torch.zeros(len(ordered), dtype=torch.float64, device=ordered.device)
        for rank in range(first, last):
            total += ordered[:, rank]
        return total / (last - first)

    return _reduce_sorted(points, torch.arange(n), "mean_of_ranks", (first, last), reduce, chunk_size)


def mean_nearest_to_median(
    points: Points, count: int, *, rows: Tensor | None = None, chunk_size: int | None = None
) -> Vector:
    """For each coordinate the mean of the `count` values nearest to its median, `(d,)`, added up in float64.

    The median of an even number is the midpoint; of two values equally near to it the lower one counts first.

    Args:
        points: `(n, d)`, float, on any device; not changed.
        count: 1 <= count <= the number of rows.
        rows: indices of the rows that take part, on the CPU; all if `None`.
        chunk_size: columns sorted at a time where nothing is compiled; chosen for the cache if `None`.

    Raises:
        ValueError: a count that does not exist; points that are not finite, or that require a gradient.
    """
    rows = torch.arange(len(points)) if rows is None else rows
    n = len(rows)
    if not 1 <= count <= n:
        raise ValueError(f"count must be from 1 to the number of rows {n}, got {count}")
    require_no_gradient(points, "mean_nearest_to_median")
    reduce = functools.partial(window_mean, count=count)
    return _reduce_sorted(points, rows, "mean_nearest_to_median", (count, 0), reduce, chunk_size)


def window_mean(ordered: Tensor, count: int) -> Tensor:
    """Of each ascending row of `ordered` `(width, n)` the mean of the `count` values nearest to its median, float64.

    The nearest values lie in a row. From the lowest `count` on the window moves up while the value it would gain is
    nearer than the one it loses. Distances to lose fall and those to gain rise, so all moves that pay come first.
    """
    n = ordered.shape[1]
    median = (ordered[:, (n - 1) // 2].double() + ordered[:, n // 2].double()) / 2
    low = torch.zeros(len(ordered), dtype=torch.int64, device=ordered.device)
    for rank in range(n - count):
        low += median - ordered[:, rank].double() > ordered[:, rank + count].double() - median
    total = torch.zeros_like(median)
    for rank in range(n):
        total += torch.where((rank >= low) & (rank < low + count), ordered[:, rank].double(), 0.0)
    return total / count


def _reduce_sorted(
    points: Points,
    rows: Tensor,
    reduction: Reduction,
    arguments: tuple[int, int],
    reduce: Reduce,
    chunk_size: int | None,
) -> Vector:
    """`reduce` of the sorted `rows` of each coordinate; by the compiled `reduction` where it can."""
    n = len(rows)
    on_cpu = points.device.type == "cpu"
    parts = points.parts if isinstance(points, Shards) else (points,)
    narrowest = min(part.shape[1] for part in parts)
    if (
        all(part.device.type == "cpu" for part in parts)
        and points.dtype != torch.float64
        and columns_at_once(n) <= narrowest
        and len(rows) * points.shape[1] >= _WORTH_COMPILING
        and n <= _LARGEST_NETWORK
        and can_compile()
    ):

        def run(chunk: Tensor) -> Tensor:
            return run_compiled(chunk, rows, reduction, arguments, points)

        if points.dtype == torch.float32 and all(part.stride(1) == 1 for part in parts):
            found = [run(part.detach()) for part in parts]
            return found[0] if len(found) == 1 else torch.cat(found)
        return map_columns(points, lambda chunk, _: run(_widened(chunk, n))[: chunk.shape[1]], _WIDENED_COLUMNS)
    if suits_gpu_kernels(parts, n):
        found_on_gpu = reduced_on_gpu(parts, rows, reduction, arguments, points)
        if found_on_gpu is not None:
            return found_on_gpu
    if chunk_size is None:
        at_once = _CHUNK_BYTES if on_cpu else _device_chunk_bytes(points)
        chunk_size = max(1, at_once // (n * max(4, points.dtype.itemsize)))
    everyone = n == len(points)

    def sort_and_reduce(chunk: Tensor, where: slice) -> Tensor:
        chunk = chunk if everyone else chunk[rows.to(chunk.device)]
        require_finite(chunk, points)
        return reduce(_sorted_by_coordinate(chunk))

    return map_columns(points, sort_and_reduce, chunk_size)


def _device_chunk_bytes(points: Points) -> int:
    """So much that a GPU is busy, and a small part of the points."""
    size = len(points) * points.shape[1] * points.dtype.itemsize
    return min(_MOST_DEVICE_CHUNK_BYTES, max(_FEWEST_DEVICE_CHUNK_BYTES, size // _DEVICE_CHUNK_PART))


def _sorted_by_coordinate(chunk: Tensor) -> Tensor:
    """An `(n, width)` chunk transposed, each coordinate's n values ascending: over dim 0 a sort would stride."""
    values = chunk if chunk.dtype == torch.float64 else chunk.float()
    if values.device.type != "cpu":
        return values.T.contiguous().sort(dim=1).values
    ordered = np.array(values.numpy().T, order="C")  # NumPy's vectorised sort is several times faster than torch's
    ordered.sort(axis=1)
    return torch.from_numpy(ordered)


def _widened(chunk: Tensor, n: int) -> Tensor:
    """The chunk in float32 and contiguous; repeated columns make up what a narrow last chunk lacks."""
    wide = chunk.float()
    missing = columns_at_once(n) - wide.shape[1]
    return torch.cat([wide, wide[:, :1].expand(-1, missing)], dim=1) if missing > 0 else wide.contiguous()


def run_compiled(
    points: Tensor, rows: Tensor, reduction: Reduction, arguments: tuple[int, int], whole: Points
) -> Vector:
    """A compiled reduction of float32 `points` `(n, d)` with unit column stride, on as many threads as torch uses.

    Args:
        points: at least `columns_at_once` columns.
        rows: indices of the rows that take part.
        reduction: which.
        arguments: its two numbers.
        whole: what `points` are a part of, to name the rows that are not finite.

    Raises:
        UnusableUpdatesError: rows that hold NaN or infinity.
    """
    n, d = len(rows), points.shape[1]
    kernel = order_statistics_kernel(n, reduction, *arguments)
    pairs = pairs_for(n, reduction, *arguments)
    offsets = rows.numpy().astype(np.int64) * points.stride(0)
    result = new_vector(d)
    multiple = columns_at_once(n)
    source, target = points.data_ptr(), result.data_ptr()

    def work(start: int, stop: int) -> bool:
        tile = tile_for(n)
        # What is left over at the end is done once more together with columns before it.
        spans = [(start, stop // multiple * multiple)] + ([(stop - multiple, stop)] if stop % multiple else [])
        return all(
            kernel(source, offsets.ctypes.data, *span, pairs.ctypes.data, len(pairs), tile.ctypes.data, target)
            < INFINITY
            for span in spans
            if span[0] < span[1]
        )

    if not all(over_column_spans((n, d), multiple, work)):
        require_finite(torch.tensor(float("nan")), whole)
    return result
