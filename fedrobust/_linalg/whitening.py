"""Second moments of a sample of many points, and whitening by them, a few rows at a time."""

import torch
from torch import Tensor

from fedrobust._linalg.rows import Chunks, like_chunks, over_rows
from fedrobust.types import Vector

_DEPENDENT = 1e-10
"""A column of which no larger part of the variance is its own depends on the others, as far as float64 can tell."""


def second_moment(points: Tensor, centre: Vector, rows: Tensor | None) -> Tensor:
    """(1/n) Σ (x - c)(x - c)ᵀ, `(d, d)` float64 on the points' device.

    Args:
        points: `(N, d)`, float, on any device; not changed.
        centre: c, `(d,)` float64 on the same device.
        rows: the n rows that count, on the CPU; all if `None`.
    """

    def add_up(chunks: Chunks) -> Tensor:
        return torch.as_tensor(sum(chunk.T @ chunk for _, chunk in chunks))

    parts = over_rows(points, centre, add_up, rows)
    return torch.stack(parts).sum(dim=0) / (len(points) if rows is None else len(rows))


def cholesky(moment: Tensor) -> Tensor | None:
    """The lower Cholesky factor, or `None` where the columns are linearly dependent as far as float64 can tell.

    Args:
        moment: `(d, d)` float64, symmetric, positive semi-definite.
    """
    scale = moment.diagonal().sqrt()
    if not bool(moment.isfinite().all() & (scale > 0).all()):
        return None
    factor, info = torch.linalg.cholesky_ex(moment / scale[:, None] / scale)
    if int(info) != 0 or float(factor.diagonal().min()) ** 2 < _DEPENDENT:
        return None
    scaled: Tensor = factor * scale[:, None]
    return scaled


def whiten(points: Tensor, centre: Vector, rows: Tensor | None, factor: Tensor, out: Tensor) -> Tensor:
    """Compute y = L⁻¹(x - c) for the rows that count, written to the first rows of `out`, which is returned.

    Args:
        points: `(N, d)`, float, on any device; changed only if it is `out`.
        centre: c, `(d,)` float64 on the same device.
        rows: as for `second_moment`.
        factor: L, `(d, d)` float64, lower triangular.
        out: `(n or more, d)`, float, on the same device.
    """
    identity = torch.eye(len(factor), dtype=torch.float64, device=factor.device)
    inverse = like_chunks(torch.linalg.solve_triangular(factor, identity, upper=False), points)

    def write(chunks: Chunks) -> None:
        for where, chunk in chunks:
            out[where] = torch.as_tensor(chunk @ inverse.T)

    over_rows(points, centre, write, rows)
    return out[: len(points) if rows is None else len(rows)]


def dependent_columns(points: Tensor, centre: Vector) -> str:
    """What is wrong with points that cannot be whitened, for an error message."""
    moment = second_moment(points, centre, None)
    constant = (moment.diagonal() == 0).nonzero().flatten().tolist()
    if constant:
        return f"x has no spread in columns {constant[:10]}: no covariance can be whitened; leave them out"
    scale = moment.diagonal().sqrt()
    rank = int(torch.linalg.matrix_rank(moment / scale[:, None] / scale, rtol=_DEPENDENT, hermitian=True))
    return f"x must have linearly independent columns, got {len(moment)} columns of rank {rank}"
