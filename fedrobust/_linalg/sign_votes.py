"""Coordinate-wise votes on the direction of a step: every point's sign counts once."""

from collections.abc import Iterator

import torch
from torch import Tensor

from fedrobust._linalg.columns import (
    Points,
    Shards,
    column_chunks,
    default_chunk_size,
    require_finite,
    require_no_gradient,
)
from fedrobust._linalg.kernels.sign_kernel import can_count, counted_signs

_CHUNK_BYTES = 1 << 21
"""A chunk of this size mostly stays in a CPU core's cache between the check, the signs and their sum."""

_DEVICE_CHUNK_BYTES = 1 << 28
_COMPILED_PART = 16
_FEWEST_COMPILED_COLUMNS = 1 << 16
_COLUMNS_ON_ONE_THREAD = 1 << 15
"""What follows is so little for each vote that to wake torch's threads would take longer."""


def sign_votes(points: Points) -> Iterator[tuple[slice, Tensor]]:
    """Go through the columns once: which of the d coordinates, and Σᵢ sign(xᵢ) there, `(width,)` float32, exact.

    Args:
        points: `(n, d)`, float, on any device; not changed. An exact zero votes for neither side.

    Raises:
        ValueError: points that are not finite, or that require a gradient.
    """
    require_no_gradient(points, "sign_votes")
    parts = points.parts if isinstance(points, Shards) else (points,)
    if all(can_count(part) for part in parts):
        at_once = max(_FEWEST_COMPILED_COLUMNS, points.shape[1] // _COMPILED_PART)
        for where, chunk in column_chunks(points, at_once):
            start = where.start
            for votes in counted_signs(chunk, points).split(_COLUMNS_ON_ONE_THREAD):
                yield slice(start, start + len(votes)), votes.float()
                start += len(votes)
        return
    on_cpu = points.device.type == "cpu"
    at_once = _CHUNK_BYTES if on_cpu else _DEVICE_CHUNK_BYTES
    chunk_size = max(1, at_once // (len(points) * points.dtype.itemsize))
    for where, chunk in column_chunks(points, min(chunk_size, default_chunk_size(points)) if on_cpu else chunk_size):
        rows = chunk if chunk.dtype in (torch.float32, torch.float64) else chunk.float()
        ones = torch.ones(len(rows), dtype=rows.dtype, device=rows.device)
        # A product sums over rows faster than `sum` does; whole numbers are exact in any of its precisions.
        require_finite(ones @ rows, chunk)  # no sum over NaN or infinity is finite
        yield where, (ones @ rows.sign()).float()
