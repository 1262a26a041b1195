"""The top direction of a weighted sample from its d x d covariance: what `spectral` does for n < d, for n >= d."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedrobust._linalg.gram import robust_gram_matrix
from fedrobust._linalg.moments import TOO_LARGE, Moments
from fedrobust._linalg.rows import Chunks, like_chunks, over_rows, project_rows
from fedrobust._linalg.spectral import Direction, TopDirection, eigenpairs, top_eigenpair
from fedrobust.filters.soft_filter import gram_direction
from fedrobust.types import Weights


def sample_direction(points: Tensor, entropy_alpha: float | None = None) -> Direction:
    """Where a filter of `points` `(n, d)` looks: over the Gram matrix if n < d, else over the covariance.

    Both give the same τ, up to rounding and, for quantum entropy, a factor.

    Args:
        points: float, on any device; not changed.
        entropy_alpha: if given, τ are the quantum entropy scores with this α instead of the top projections squared.

    Raises:
        ValueError: (here, or when the direction is first asked for) points whose squares overflow float64.
    """
    if len(points) >= points.shape[1]:
        return CovarianceDirection(points, entropy_alpha)
    try:
        gram = robust_gram_matrix(points)
    except ValueError:
        raise ValueError(TOO_LARGE) from None  # the message is about updates
    return gram_direction(gram, entropy_alpha)


class CovarianceDirection:
    """A `Direction` over points in few dimensions: one symmetric product and one read of them a step, O(nd²)."""

    def __init__(self, points: Tensor, entropy_alpha: float | None = None) -> None:
        """Nothing is computed yet.

        Args:
            points: `(n, d)`, float, on any device; not changed.
            entropy_alpha: as for `sample_direction`.
        """
        self._points = points
        self._moments = Moments(points)
        self._entropy_alpha = entropy_alpha

    def __call__(self, weights: Weights, near: TopDirection | None = None, enough: float | None = None) -> TopDirection:
        """The direction under `weights` `(n,)` float64 on the CPU; the search starts at `near`, ends at `enough`."""
        self._moments.update(weights)
        covariance = self._moments.covariance()
        if self._entropy_alpha is not None:
            return self._entropy_scores(covariance, self._entropy_alpha)
        eigenvalue, vector = top_eigenpair(covariance, None if near is None else near.eigenvector, enough)
        if eigenvalue <= 0:  # all points coincide
            return self._nothing(vector)
        direction = torch.from_numpy(vector).to(self._points.device)
        projections = project_rows(self._points, self._moments.mean(), direction).cpu()
        return TopDirection(eigenvalue, projections.square(), vector, projections)

    def _entropy_scores(self, covariance: NDArray[np.float64], alpha: float) -> TopDirection:
        """τᵢ = Σⱼ pⱼ⟨xᵢ - μ_w, vⱼ⟩², pⱼ ∝ exp(αλⱼ/λ₁), see `quantum_entropy`; normalised over d directions."""
        values, vectors = eigenpairs(covariance)
        top = float(values[-1])
        if top <= 0:
            return self._nothing(vectors[:, -1])
        preferences = np.exp(alpha * (values.clip(min=0) / top - 1))
        basis = like_chunks(torch.from_numpy(vectors * np.sqrt(preferences / preferences.sum())), self._points)

        def add_squares(chunks: Chunks) -> Tensor:
            projections = (chunk @ basis for _, chunk in chunks)
            return torch.cat([torch.as_tensor((one * one).sum(axis=1)) for one in projections])

        scores = torch.cat(over_rows(self._points, self._moments.mean(), add_squares)).cpu()
        return TopDirection(top, scores, np.ascontiguousarray(vectors[:, -1]))

    def _nothing(self, vector: NDArray[np.float64]) -> TopDirection:
        zeros = torch.zeros(len(self._points), dtype=torch.float64)
        return TopDirection(0.0, zeros, np.ascontiguousarray(vector), zeros)
