"""Rows times factors."""

import torch
from torch import Tensor

from fedrobust._linalg.columns import Points, Shards, column_chunks

_CHUNK_NUMBERS = 1 << 20
_DEVICE_CHUNK_NUMBERS = 1 << 23
"""A chunk of so many numbers is widened at a time."""


def scale_rows(points: Points, factors: Tensor) -> Points:
    """fᵢ·xᵢ, in the points' dtype and where they are (shards stay shards); the points themselves if all factors are 1.

    Args:
        points: X, `(n, d)`, float, finite; not changed.
        factors: f, `(n,)`, any dtype and device. Products are float64: factors may be smaller than a float32.
    """
    changed = (factors != 1).nonzero().squeeze(1).cpu()
    if len(changed) == 0:
        return points
    coefficients = factors.cpu()[changed].double()[:, None]
    if isinstance(points, Shards):
        return Shards(tuple(_scale(part, changed, coefficients) for part in points.parts))
    return _scale(points, changed, coefficients)


def _scale(points: Tensor, changed: Tensor, coefficients: Tensor) -> Tensor:
    scaled = torch.empty(points.shape, dtype=points.dtype, device=points.device)
    rows, coefficients = changed.to(points.device), coefficients.to(points.device)
    at_once = _CHUNK_NUMBERS if points.device.type == "cpu" else _DEVICE_CHUNK_NUMBERS
    for where, chunk in column_chunks(points, max(1, at_once // len(points))):
        scaled[:, where] = chunk
        scaled[rows, where] = (chunk[rows].double() * coefficients).to(points.dtype)
    return scaled
