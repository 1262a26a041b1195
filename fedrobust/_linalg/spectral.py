"""The top eigenpair of a weighted sample's covariance, found from the Gram matrix."""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import scipy.linalg.lapack
import scipy.sparse.linalg
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedrobust._linalg.gram import recentre
from fedrobust._linalg.threads import on_one_thread
from fedrobust.seeds import numpy_generator
from fedrobust.types import Weights

_DENSE_UP_TO = 150
"""Above this n Lanczos beats LAPACK for one eigenpair."""

_UNTHREADED_UP_TO = 32
"""So small a matrix LAPACK takes on one thread anyway, and it is not worth telling it."""

_KRYLOV_SIZE = 20
_MAX_RESTARTS = 60
"""By then LAPACK would have been as fast: eigenvalues so close together are left to it."""

_TOLERANCE, _ROUGH_TOLERANCE = 1e-10, 1e-3
"""Of an eigenvector. Any vector's variance is a lower bound of the largest, so a rough one may be enough."""


@dataclass(frozen=True)
class TopDirection:
    """The direction v of largest variance of a weighted sample.

    Attributes:
        eigenvalue: the variance along v, in squared units of the points.
        squared_projections: `(n,)` float64, ⟨xᵢ - μ_w, v⟩² of every point, those of weight zero included.
        eigenvector: what the search found, a start for the next one: `(n,)`, the coefficients of v, from a Gram matrix;
            `(d,)`, v itself, from a covariance.
        projections: `(n,)` float64, ⟨xᵢ - μ_w, v⟩; `None` where the squares are not those of one direction.
    """

    eigenvalue: float
    squared_projections: Tensor
    eigenvector: NDArray[np.float64]
    projections: Tensor | None = None


class Direction(Protocol):
    """Where a filter looks: from a weighting to what it finds most suspicious under it.

    There is one over the Gram matrix, for n < d, and one over the covariance, for n >= d; the filters know neither.
    """

    def __call__(self, weights: Weights, near: TopDirection | None = None, enough: float | None = None) -> TopDirection:
        """The direction under `weights` `(n,)`, not all zero.

        Args:
            weights: of the points.
            near: the result for a similar weighting.
            enough: a variance at which the search may end: any direction with at least that will do.
        """
        ...


def top_direction(
    gram: Tensor, weights: Weights, near: TopDirection | None = None, enough: float | None = None
) -> TopDirection:
    """The top eigenpair of Σ wᵢ(xᵢ - μ_w)(xᵢ - μ_w)ᵀ, as the n x n eigenproblem √w·K_c·√w.

    Args:
        gram: `(n, n)` float64, about any centre.
        weights: `(n,)` float64, non-negative, not all zero; normalised here.
        near: the result for a similar weighting, where the search starts.
        enough: any direction with at least this variance will do.
    """
    find = _top_direction if len(gram) <= _UNTHREADED_UP_TO else _top_direction_on_one_thread
    return find(gram, weights, near, enough)


def _top_direction(gram: Tensor, weights: Weights, near: TopDirection | None, enough: float | None) -> TopDirection:
    normalised = weights / weights.sum()
    root = normalised.sqrt()
    found = _lanczos(gram.numpy(), root.numpy(), near, enough) if len(gram) > _DENSE_UP_TO else None
    eigenvalue, eigenvector = _lapack(gram, normalised) if found is None else found
    if eigenvalue <= 0:  # all points coincide
        return TopDirection(0.0, torch.zeros_like(root), eigenvector)
    # v = Σ √wᵢ uᵢ (xᵢ - μ) / √λ, hence ⟨xⱼ - μ, v⟩ = (K_c √w u)ⱼ / √λ: v itself is never formed.
    coefficients = root * torch.from_numpy(eigenvector)
    projections = gram @ (coefficients - normalised * coefficients.sum())
    projections = (projections - normalised @ projections) / eigenvalue**0.5
    return TopDirection(eigenvalue, projections.square(), eigenvector, projections)


_top_direction_on_one_thread = on_one_thread(_top_direction)


@on_one_thread
def top_eigenpair(
    matrix: NDArray[np.float64], near: NDArray[np.float64] | None = None, enough: float | None = None
) -> tuple[float, NDArray[np.float64]]:
    """The largest eigenvalue of a symmetric matrix `(d, d)` and its unit eigenvector; the search starts at `near`.

    With `enough`, any unit vector will do along which the matrix has at least that value, which is returned with it.
    """
    d = len(matrix)
    found = _search(lambda vector: matrix @ vector.ravel(), d, near, enough) if d > _DENSE_UP_TO else None
    if found is not None:
        return found
    return _largest(matrix)


@on_one_thread
def eigenpairs(matrix: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """All eigenvalues of a symmetric matrix `(d, d)`, ascending, and its eigenvectors, in columns."""
    values, vectors = scipy.linalg.eigh(matrix, check_finite=False)
    return values, vectors


def _largest(matrix: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
    n = len(matrix)
    work, integer_work = _work_sizes(n)
    # What `scipy.linalg.eigh` calls for one eigenpair: its checks take longer than ten points do.
    values, vectors, num_found, _, info = scipy.linalg.lapack.dsyevr(
        matrix, range="I", il=n, iu=n, lower=1, lwork=work, liwork=integer_work
    )
    if info != 0 or num_found == 0:  # none where all eigenvalues are equal but for rounding: I, whitened points
        values, vectors = scipy.linalg.eigh(matrix, check_finite=False)
        return float(values[-1]), np.ascontiguousarray(vectors[:, -1])
    return float(values[0]), np.ascontiguousarray(vectors[:, 0])


@functools.lru_cache(maxsize=256)
def _work_sizes(n: int) -> tuple[int, int]:
    work, integer_work, _ = scipy.linalg.lapack.dsyevr_lwork(n, lower=1)
    return int(work), int(integer_work)


def _lapack(gram: Tensor, normalised: Weights) -> tuple[float, NDArray[np.float64]]:
    root = normalised.sqrt()
    matrix = (root[:, None] * recentre(gram, normalised) * root[None, :]).numpy()
    return _largest(matrix)


def _lanczos(
    gram: NDArray[np.float64], root: NDArray[np.float64], near: TopDirection | None, enough: float | None
) -> tuple[float, NDArray[np.float64]] | None:
    """The top eigenpair, or `None` where this iteration does not find it.

    No n x n matrix is formed: √w·K_c·√w = P·√w·K·√w·P, where P takes out the component along the unit vector √w.
    """
    n = len(gram)

    def multiply(vector: NDArray[np.float64]) -> NDArray[np.float64]:
        vector = vector.ravel()
        product = root * (gram @ (root * (vector - root * (root @ vector))))
        return np.asarray(product - root * (root @ product))

    return _search(multiply, n, None if near is None else near.eigenvector, enough)


def _search(
    multiply: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    n: int,
    near: NDArray[np.float64] | None,
    enough: float | None,
) -> tuple[float, NDArray[np.float64]] | None:
    """The top eigenpair of a symmetric operator by Lanczos, or `None` where this iteration does not find it."""
    # Some noise always, for the last direction may be orthogonal to this one; seeded, so the answer is too.
    start = numpy_generator(0, "lanczos", n).standard_normal(n) / n**0.5
    if near is not None:
        start = near + 0.1 * start
    first = multiply(start)
    if not first.any():
        return None
    # ARPACK's tolerance is absolute below 4e-11. By a power of two, so that no digit changes.
    unit = 2.0 ** (math.frexp(float(np.abs(first).max()))[1] - 1)
    operator = scipy.sparse.linalg.LinearOperator((n, n), matvec=lambda v: multiply(v) / unit, dtype=np.float64)

    def find(tolerance: float) -> tuple[float, NDArray[np.float64]] | None:
        try:
            values, vectors = scipy.sparse.linalg.eigsh(
                operator, k=1, which="LA", v0=start, tol=tolerance, ncv=_KRYLOV_SIZE, maxiter=_MAX_RESTARTS
            )
        except scipy.sparse.linalg.ArpackError:
            return None
        return float(values[0]) * unit, np.ascontiguousarray(vectors[:, 0])

    if enough is not None:
        rough = find(_ROUGH_TOLERANCE)
        if rough is not None and rough[0] >= enough:
            return rough
    return find(_TOLERANCE)
