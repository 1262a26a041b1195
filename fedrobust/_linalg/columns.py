"""The matrix that every rule reads, a chunk of columns at a time, wherever its columns lie.

n updates of d parameters are one tensor (in memory, or on disk behind a memory map), or `Shards` of columns on several
devices. What works on column chunks works on all of them: Gram matrices add over the chunks, whatever is
coordinate-wise is local to them, and no rule ever holds more than a chunk beside its input.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from fedrobust._linalg.kernels.gather_kernel import can_gather, gathered_columns
from fedrobust._linalg.threads import in_turns
from fedrobust.types import UnusableUpdatesError, Vector

CHUNK_SIZE = 1 << 16
"""Columns read at a time, at most: float32 products stay short sums, and a centred or widened chunk stays small."""

_CPU_CHUNK_NUMBERS = 1 << 19
_FEWEST_CHUNK_NUMBERS = 1 << 16
_CHUNK_PART = 32
"""A copy of a chunk is a small part of the whole, unless the whole is small."""

_MOST_DEVICE_COLUMNS = 1 << 24
_DEVICE_CHUNK_PART = 32
"""A GPU is given few and large chunks, a copy of which is still a small part of the whole."""

_FEWEST_COLUMNS = 512
_WORTH_THREADS = 1 << 14


@dataclass(frozen=True, eq=False)
class Shards:
    """An `(n, d)` matrix whose columns are divided over devices, in order.

    Attributes:
        parts: `(n, d_1)`, `(n, d_2)`, ..., of one dtype.

    Raises:
        ValueError: no part, or parts of different n or dtype.
    """

    parts: tuple[Tensor, ...]

    def __post_init__(self) -> None:
        """Check that the parts fit together."""
        if not self.parts or any(part.ndim != 2 for part in self.parts):
            raise ValueError("shards must be one or more (n, d_k) tensors")
        if len({(len(part), part.dtype) for part in self.parts}) > 1:
            found = ", ".join(f"{part.dtype} {tuple(part.shape)}" for part in self.parts)
            raise ValueError(f"shards must have one number of rows and one dtype, got {found}")

    @classmethod
    def split(cls, points: Tensor, devices: Sequence[torch.device | str]) -> "Shards":
        """Divide the columns of `points` `(n, d)` evenly over `devices`; nothing is copied to where it already is."""
        bounds = [points.shape[1] * index // len(devices) for index in range(len(devices) + 1)]
        return cls(
            tuple(
                points[:, start:stop].to(device)
                for start, stop, device in zip(bounds, bounds[1:], devices, strict=False)
            )
        )

    @property
    def shape(self) -> torch.Size:
        """(n, d)."""
        return torch.Size((len(self.parts[0]), sum(part.shape[1] for part in self.parts)))

    @property
    def ndim(self) -> int:
        """Two."""
        return 2

    @property
    def dtype(self) -> torch.dtype:
        """That of all parts."""
        return self.parts[0].dtype

    @property
    def device(self) -> torch.device:
        """Where answers go: the first part's device."""
        return self.parts[0].device

    def __len__(self) -> int:
        return len(self.parts[0])

    @property
    def requires_grad(self) -> bool:
        """Whether one of the parts does."""
        return any(part.requires_grad for part in self.parts)

    def detach(self) -> "Shards":
        """The same numbers, as constants."""
        return Shards(tuple(part.detach() for part in self.parts))

    def is_floating_point(self) -> bool:
        """Whether the parts hold floating point numbers."""
        return self.parts[0].is_floating_point()


Points: TypeAlias = Tensor | Shards
"""`(n, d)`, float: a tensor on any device, or shards of columns over several."""


def open_memory_map(path: str | Path, n: int, d: int, *, dtype: torch.dtype = torch.float32) -> Tensor:
    """A tensor `(n, d)` over a file of raw numbers in row-major order, which may be larger than the memory.

    It is opened for reading: nothing may write to it. The operating system reads what a chunk touches and drops it when
    memory runs short.

    Raises:
        ValueError: a file of another size.
    """
    expected, size = n * d * dtype.itemsize, Path(path).stat().st_size
    if size != expected:
        raise ValueError(f"{path} must hold {n} x {d} numbers of {dtype} ({expected} bytes), has {size} bytes")
    numpy_dtype = torch.empty(0, dtype=dtype).numpy().dtype
    # Copy-on-write: torch wants memory that could be written, and a stray write must not reach the file.
    return torch.from_numpy(np.memmap(path, dtype=numpy_dtype, mode="c", shape=(n, d)))


def default_chunk_size(points: Points) -> int:
    """Columns of which a copy is small beside the whole, and on a CPU stays in its cache."""
    if points.device.type != "cpu":
        return min(max(CHUNK_SIZE, points.shape[1] // _DEVICE_CHUNK_PART), _MOST_DEVICE_COLUMNS)
    n, d = points.shape
    numbers = min(_CPU_CHUNK_NUMBERS, max(_FEWEST_CHUNK_NUMBERS, n * d // _CHUNK_PART))
    return min(CHUNK_SIZE, max(_FEWEST_COLUMNS, numbers // max(1, n)))


def require_no_gradient(points: Points, reader: str) -> None:
    """Refuse points that require a gradient where `reader` would pass none back: it must not be lost in silence.

    Raises:
        ValueError: gradients are enabled and the points require one.
    """
    if points.requires_grad and torch.is_grad_enabled():
        raise ValueError(f"{reader} passes no gradients back: give it .detach() of what requires a gradient")


def column_chunks(points: Points, chunk_size: int | None = None) -> Iterator[tuple[slice, Tensor]]:
    """Go through the columns once: which of the d coordinates, and the `(n, width)` view of them on its device.

    Raises:
        ValueError: points that require a gradient.
    """
    require_no_gradient(points, "column_chunks")
    chunk_size = chunk_size or default_chunk_size(points)
    offset = 0
    for part in points.parts if isinstance(points, Shards) else (points,):
        width = part.shape[1]
        for start in range(0, width, chunk_size):
            stop = min(start + chunk_size, width)
            yield slice(offset + start, offset + stop), part[:, start:stop].detach()
        offset += width


def map_columns(points: Points, function: Callable[[Tensor, slice], Tensor], chunk_size: int | None = None) -> Vector:
    """Build a vector `(d,)` chunk by chunk, in the points' dtype and on their device.

    Args:
        points: `(n, d)`; not changed.
        function: from an `(n, width)` chunk, and which coordinates it holds, to their `(width,)` values.
        chunk_size: columns per chunk; chosen if `None`.
    """
    result = torch.empty(points.shape[1], dtype=points.dtype, device=points.device)
    for where, chunk in column_chunks(points, chunk_size):
        result[where] = function(chunk, where).to(result.device)
    return result


def get_row(points: Points, index: int) -> Vector:
    """One row `(d,)`, on the points' device; a view where there is one tensor.

    Raises:
        ValueError: points that require a gradient.
    """
    require_no_gradient(points, "get_row")
    if isinstance(points, Shards):
        return torch.cat([part[index].detach().to(points.device) for part in points.parts])
    return points[index].detach()


def select_columns(points: Points, indices: Tensor) -> Tensor:
    """The columns with the given ascending `indices` `(k,)` as one new tensor `(n, k)` on the points' device.

    Raises:
        ValueError: points that require a gradient.
    """
    require_no_gradient(points, "select_columns")
    if not isinstance(points, Shards):
        return _gather(points.detach(), indices)
    found, offset = [], 0
    for part in points.parts:
        inside = indices[(indices >= offset) & (indices < offset + part.shape[1])] - offset
        found.append(_gather(part.detach(), inside).to(points.device))
        offset += part.shape[1]
    return torch.cat(found, dim=1)


def _gather(points: Tensor, indices: Tensor) -> Tensor:
    """Each number waits for memory, and torch's own `index_select` waits for one at a time, on one thread only."""
    if can_gather(points, indices):
        return gathered_columns(points, indices)
    num_parts = min(torch.get_num_threads(), len(points)) if points.device.type == "cpu" else 1
    if num_parts == 1 or len(points) * len(indices) < _WORTH_THREADS:
        return points.index_select(1, indices.to(points.device))
    result = torch.empty(len(points), len(indices), dtype=points.dtype)
    parts = list(zip(points.chunk(num_parts), result.chunk(num_parts), strict=True))
    in_turns(parts, lambda part: torch.index_select(part[0], 1, indices, out=part[1]))
    return result


def all_finite(values: Tensor) -> bool:
    """Whether no number is NaN or infinite, without a copy; `isfinite` makes one."""
    low, high = torch.aminmax(values)  # one pass; NaN is both
    return math.isfinite(low) and math.isfinite(high)


def require_finite(values: Tensor, points: Points) -> None:
    """Refuse points of which some are NaN or infinite, if `values` computed from all of them show it.

    Looking at a small result is free, and the points themselves are read again only to name the rows.

    Raises:
        UnusableUpdatesError: with the rows that hold NaN or infinity.
    """
    if all_finite(values):
        return
    is_finite = torch.ones(len(points), dtype=torch.bool)
    for _, chunk in column_chunks(points):
        is_finite &= chunk.isfinite().all(dim=1).cpu()
    if not bool(is_finite.all()):
        rows = (~is_finite).nonzero().flatten().tolist()
        raise UnusableUpdatesError(f"updates must be finite, rows {rows} hold NaN or infinity")
