"""The top eigenpair of a weighted sample's covariance, found from the Gram matrix."""

from dataclasses import dataclass

import numpy as np
import scipy.linalg
import scipy.sparse.linalg
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedrobust.seeds import numpy_generator
from fedrobust.statistics.gram import recentre
from fedrobust.types import Weights

_DENSE_UP_TO = 150
"""Above this n Lanczos beats LAPACK for one eigenpair."""


@dataclass(frozen=True)
class TopDirection:
    """The direction v of largest variance of a weighted sample.

    Attributes:
        eigenvalue: the variance along v, in squared units of the points.
        squared_projections: `(n,)` float64, ⟨xᵢ - μ_w, v⟩² of every point, those of weight zero included.
        eigenvector: `(n,)`, the coefficients of v, a start for the next search.
    """

    eigenvalue: float
    squared_projections: Tensor
    eigenvector: NDArray[np.float64]


def top_direction(gram: Tensor, weights: Weights, near: TopDirection | None = None) -> TopDirection:
    """The top eigenpair of Σ wᵢ(xᵢ - μ_w)(xᵢ - μ_w)ᵀ, as the n x n eigenproblem √w·K_c·√w.

    Args:
        gram: `(n, n)` float64, about any centre.
        weights: `(n,)` float64, non-negative, not all zero; normalised here.
        near: the result for a similar weighting, where the search starts.
    """
    normalised = weights / weights.sum()
    root = normalised.sqrt()
    centred = recentre(gram, normalised)
    eigenvalue, eigenvector = _top_eigenpair((root[:, None] * centred * root[None, :]).numpy(), near)
    if eigenvalue <= 0:  # all points coincide
        return TopDirection(0.0, torch.zeros_like(root), eigenvector)
    # v = Σ √wᵢ uᵢ (xᵢ - μ) / √λ, hence ⟨xⱼ - μ, v⟩ = (K_c √w u)ⱼ / √λ: v itself is never formed.
    projections = centred @ (root * torch.from_numpy(eigenvector)) / eigenvalue**0.5
    return TopDirection(eigenvalue, projections.square(), eigenvector)


def _top_eigenpair(matrix: NDArray[np.float64], near: TopDirection | None) -> tuple[float, NDArray[np.float64]]:
    n = len(matrix)
    if n <= _DENSE_UP_TO or not matrix.any():
        values, vectors = scipy.linalg.eigh(matrix, subset_by_index=[n - 1, n - 1], check_finite=False)
    else:
        # Some noise always, for the last direction may be orthogonal to this one; seeded, so the answer is too.
        start = numpy_generator(0, "lanczos", n).standard_normal(n) / n**0.5
        if near is not None:
            start = near.eigenvector + 0.1 * start
        values, vectors = scipy.sparse.linalg.eigsh(matrix, k=1, which="LA", v0=start, tol=1e-10, ncv=40)
    return float(values[0]), np.ascontiguousarray(vectors[:, 0])
