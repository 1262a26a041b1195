"""Norms and pairwise cosine distances: what the rules that compare directions read."""

from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fedrobust._linalg.columns import Points, column_chunks
from fedrobust._linalg.gram import gram_matrix, inner_products, row_norms, sliced_products
from fedrobust._linalg.row_scaling import scale_rows
from fedrobust.types import UnusableUpdatesError, Vector

# Float32 products know a cosine to about 1e-7: where 1 - cos is typically smaller than this, digits are missing.
_NARROW = 1e-2
# What float64 leaves of 1 - cos between parallel points, which must not decide who is nearer.
_ROUNDING = 1e-12
# A squared norm, or a product of norms, below this may have lost digits to float64's range.
_LEAST_SQUARE = 1e-280
_ROWS_AT_ONCE = 64
_WIDE_CHUNK = 1 << 12
"""Columns turned into float64 at a time on a CPU."""


@dataclass(frozen=True)
class Directions:
    """How long n points are and how far apart they point.

    Attributes:
        norms: `(n,)` float64, ‖xᵢ‖.
        distances: `(n, n)` float64, 1 - cos(xᵢ, xⱼ), exactly symmetric, in [0, 2], 0 on the diagonal. A point of norm
            zero has no direction: 1 from every other.
    """

    norms: Tensor
    distances: Tensor


def measure_directions(points: Points) -> Directions:
    """Norms and cosine distances of `points` `(n, d)`, on the CPU, from one pass over them.

    Where most points lie in so narrow a cone that float32 products cannot tell them apart (weights instead of updates,
    say), a second pass multiplies in float64. Where squared norms leave float64's range, the products are those of a
    copy whose rows have been brought to norms of about 1.

    Raises:
        UnusableUpdatesError: points that are not finite, or whose norms overflow float64.
    """
    if points.dtype == torch.float64:
        return _float64_directions(points)
    found = _directions(gram_matrix(points))
    if float(found.distances.median(dim=1).values.min()) < _NARROW:
        return _directions(_float64_gram_matrix(points))
    return found


def _float64_directions(points: Points) -> Directions:
    gram: Tensor | None = None
    with suppress(UnusableUpdatesError):  # if norms are within range, it was only their squares that were not
        gram = gram_matrix(points)
        if float(gram.diagonal().min()) >= _LEAST_SQUARE:
            return _directions(gram)
    norms = row_norms(points)
    if gram is not None and not bool(norms[gram.diagonal() < _LEAST_SQUARE].any()):
        return _directions(gram)
    distances = _directions(gram_matrix(scale_rows(points, powers_of_two(norms)))).distances
    return Directions(norms, distances)


def cosines_to(points: Points, norms: Tensor, vector: Vector) -> Tensor:
    """cos(xᵢ, v), `(n,)` float64 on the CPU, within [-1, 1]; 0 where a norm is zero.

    Args:
        points: `(n, d)`, float; not changed.
        norms: ‖xᵢ‖, `(n,)` float64 on the CPU.
        vector: v, `(d,)`, float, on any device.
    """
    length = row_norms(vector[None])
    extent = torch.cat([norms[norms > 0] * length, torch.ones(1)])
    if points.dtype == torch.float64 and not _LEAST_SQUARE <= float(extent.min()) <= float(extent.max()) < torch.inf:
        scale = powers_of_two(length)  # products of float32 numbers stay within float64
        vector, length = vector.double() * float(scale), length * scale
    return (inner_products(points, vector) / norms / length).nan_to_num(0, 0, 0).clamp(-1, 1)


def powers_of_two(norms: Tensor) -> Tensor:
    """`(n,)` float64: by which rows of these `norms` `(n,)` are multiplied, exactly, to norms of about 1."""
    scales: Tensor = torch.from_numpy(np.ldexp(1.0, -np.frexp(norms.numpy())[1].clip(-1000, 1000)))
    return scales


def _directions(gram: Tensor) -> Directions:
    """In place of `gram`: at a thousand points a matrix is large enough to count."""
    norms = gram.diagonal().sqrt()
    inverse = torch.where(norms > 0, 1 / norms, 0.0)
    distances = gram.mul_(-inverse[:, None]).mul_(inverse).add_(1)
    for start in range(0, len(gram), _ROWS_AT_ONCE):
        # Multiplied in another order, (i, j) and (j, i) may differ in the last bit.
        stop = start + _ROWS_AT_ONCE
        mean = (distances[start:stop, start:] + distances[start:, start:stop].T) / 2
        distances[start:stop, start:] = mean
        distances[start:, start:stop] = mean.T
    distances.clamp_(0, 2).fill_diagonal_(0)
    distances.masked_fill_(distances <= _ROUNDING, 0.0)
    return Directions(norms, distances)


def _float64_gram_matrix(points: Points) -> Tensor:
    totals: dict[torch.device, Tensor] = {}
    chunk_size = _WIDE_CHUNK if points.device.type == "cpu" else None
    for _, chunk in column_chunks(points, chunk_size):
        rows = chunk.double()
        products = rows @ rows.T if chunk.device.type == "cpu" else sliced_products(rows)
        totals[chunk.device] = totals[chunk.device] + products if chunk.device in totals else products
    gram = torch.stack([total.cpu() for total in totals.values()]).sum(dim=0)
    return (gram + gram.T) / 2
