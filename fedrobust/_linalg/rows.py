"""A sample of many points read a chunk of rows at a time: the counterpart of column chunks, for n >= d.

Everything is computed in float64, where the points are, and no more than a few chunks are held beside the input. On a
CPU each thread has rows of its own and BLAS works on one thread: threaded BLAS waits for its slowest thread at every
chunk, which on a busy machine takes ten times as long.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeAlias, TypeVar

import numpy as np
import torch
from torch import Tensor

from fedrobust._linalg.threads import on_one_thread
from fedrobust.types import Vector, Weights

Chunk: TypeAlias = Any
"""`(k, d)` float64: a NumPy array on a CPU, where torch would start threads within threads; a tensor on a GPU."""

Chunks: TypeAlias = Iterator[tuple[slice, Chunk]]

R = TypeVar("R")

_ARRAYS_ON = "cpu"
_CPU_CHUNK_NUMBERS = 1 << 19
_DEVICE_CHUNK_NUMBERS = 1 << 25
_FEWEST_ROWS = 1024
_MANY_COLUMNS = 1024
"""Beyond, what each thread adds up would no longer be small beside the points, and BLAS threads have enough to do."""


def over_rows(points: Tensor, centre: Vector, work: Callable[[Chunks], R], rows: Tensor | None = None) -> list[R]:
    """Go through xᵢ - c once; each thread does `work` on its part of the rows, a few thousand at a time.

    Args:
        points: `(n, d)`, float, on any device; not changed.
        centre: c, `(d,)` float64 on the same device.
        work: from the chunks, and which of the rows each holds, to a result. The next chunk overwrites the last.
        rows: indices of the rows to go through, on the CPU; all if `None`. The slices then count within them.

    Returns:
        The results, in the order of the rows.
    """
    total = len(points) if rows is None else len(rows)
    is_cpu = points.device.type == _ARRAYS_ON
    numbers = _CPU_CHUNK_NUMBERS if is_cpu else _DEVICE_CHUNK_NUMBERS
    size = max(1, min(total, max(_FEWEST_ROWS, numbers // points.shape[1])))
    if not is_cpu:
        return [work(_device_chunks(points, centre, rows, size))]
    if points.shape[1] > _MANY_COLUMNS:
        return [work(_cpu_chunks(points, centre, rows, size, slice(0, total)))]
    num_chunks = -(-total // size)
    num_threads = max(1, min(torch.get_num_threads(), num_chunks))
    bounds = [num_chunks * index // num_threads * size for index in range(num_threads)] + [total]
    spans = [slice(bounds[index], bounds[index + 1]) for index in range(num_threads)]
    return _on_threads(lambda span: work(_cpu_chunks(points, centre, rows, size, span)), spans)


def like_chunks(tensor: Tensor, points: Tensor) -> Chunk:
    """`tensor` in float64 and of the kind, and in the place, that chunks of `points` have."""
    wide = tensor.to(points.device, torch.float64)
    return wide.numpy() if points.device.type == _ARRAYS_ON else wide


def weighted_row_mean(points: Tensor, weights: Weights) -> Vector:
    """Σ wᵢxᵢ / Σ wᵢ, `(d,)` float64 on the points' device.

    Args:
        points: `(n, d)`, float, on any device; not changed.
        weights: `(n,)` float64 on the CPU, non-negative, not all zero.
    """
    normalised = like_chunks(weights / weights.sum(), points)

    def combine(chunks: Chunks) -> Tensor:
        return torch.as_tensor(sum(normalised[where] @ chunk for where, chunk in chunks))

    # About one of the points that count: far from the origin, and in constant columns, no digit is lost.
    centre = points[int(weights.argmax())].double()
    return centre + torch.stack(over_rows(points, centre, combine)).sum(dim=0)


def distances_from(points: Tensor, centre: Vector) -> Tensor:
    """‖xᵢ - c‖, `(n,)` float64 on the CPU; `centre` is `(d,)` float64 on the points' device."""

    def measure(chunks: Chunks) -> Tensor:
        return torch.cat([torch.as_tensor((chunk * chunk).sum(axis=1)) for _, chunk in chunks])

    return torch.cat(over_rows(points, centre, measure)).sqrt().cpu()


def project_rows(points: Tensor, centre: Vector, basis: Tensor) -> Tensor:
    """⟨xᵢ - c, vⱼ⟩, `(n,)` for one v `(d,)` and `(n, m)` for m of them `(d, m)`, float64 on the points' device."""
    columns = like_chunks(basis, points)
    projections = torch.empty((len(points), *basis.shape[1:]), dtype=torch.float64, device=points.device)
    target = like_chunks(projections, points)

    def project(chunks: Chunks) -> None:
        for where, chunk in chunks:
            target[where] = chunk @ columns

    over_rows(points, centre, project)
    return projections


@on_one_thread
def _on_threads(work: Callable[[slice], R], spans: list[slice]) -> list[R]:
    if len(spans) == 1:
        return [work(spans[0])]
    with ThreadPoolExecutor(len(spans)) as pool:
        return list(pool.map(work, spans))


def _cpu_chunks(points: Tensor, centre: Vector, rows: Tensor | None, size: int, span: slice) -> Chunks:
    array, origin = points.numpy(), centre.numpy()
    chosen = None if rows is None else rows.numpy()
    buffer = np.empty((min(size, span.stop - span.start), points.shape[1]))
    for start in range(span.start, span.stop, size):
        where = slice(start, min(start + size, span.stop))
        chunk = array[where] if chosen is None else array[chosen[where]]
        yield where, np.subtract(chunk, origin, out=buffer[: len(chunk)])


def _device_chunks(points: Tensor, centre: Vector, rows: Tensor | None, size: int) -> Chunks:
    total = len(points) if rows is None else len(rows)
    for start in range(0, total, size):
        where = slice(start, min(start + size, total))
        yield where, (points[where] if rows is None else points[rows[where].to(points.device)]).double() - centre
