"""The top direction of a sample that loses its points one by one, without an n x n eigenproblem for each."""

import math

import numpy as np
import scipy.linalg
import scipy.sparse.linalg
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedrobust._linalg.spectral import TopDirection
from fedrobust.seeds import numpy_generator
from fedrobust.types import Weights

_MAX_LOST = 100
"""A new eigenbasis after so many points: they enter each search as a matrix of that rank."""

_MIN_SHRINKAGE = 1e-6
"""A new eigenbasis when this is left of the top eigenvalue: its rounding would no longer be small."""

_KRYLOV_SIZE = 10
_TOLERANCE = 1e-10


class ShrinkingSample:
    """What `top_direction` computes, for weights that are 0 or 1 and never rise from one call to the next.

    One decomposition gives the points coordinates in which their scatter matrix is diagonal, A = Λ. Every point lost
    since then takes away a matrix of rank one, A = Λ - VᵀV, so (A - σ)⁻¹ costs as much as V has entries (Woodbury).
    Eigenvalues only fall as points are lost: the last one is a shift σ just above the next.
    """

    def __init__(self, gram: Tensor) -> None:
        """Nothing is computed yet; `gram` `(n, n)` float64, about any centre, is not changed."""
        self._gram = gram
        self._members = torch.empty(0, dtype=torch.int64)

    def __call__(self, weights: Weights, near: TopDirection | None = None, enough: float | None = None) -> TopDirection:
        """The top direction of the points of weight 1; the squared projections of the others are 0.

        Args:
            weights: `(n,)` float64, 0 or 1, at least one of them 1.
            near: the result of the last call; without it the eigenbasis is computed anew.
            enough: not looked at: a step is cheap here.
        """
        kept = weights > 0
        if near is not None and len(self._members) - int(kept.sum()) <= _MAX_LOST:
            found = self._search(kept)
            if found is not None:
                return found
        return self._decompose(kept)

    def _decompose(self, kept: Tensor) -> TopDirection:
        self._members = kept.nonzero().squeeze(1)
        self._coordinates = np.zeros((0, 0))  # the last basis makes room: at a thousand points it would count
        m = len(self._members)
        values, vectors = scipy.linalg.eigh(self._centred().T, check_finite=False, driver="evd", overwrite_a=True)
        used = values > max(float(values[-1]), 0.0) * m * np.finfo(np.float64).eps
        self._values = values[used]
        vectors *= np.sqrt(values.clip(min=0))
        self._coordinates = np.compress(used, vectors, axis=1)
        self._highest = self._scatter = float(values[-1])
        if not used.any():
            return self._answer(kept, 0.0, np.zeros(m))
        self._direction = np.zeros(len(self._values))
        self._direction[-1] = 1.0
        return self._answer(kept, self._scatter, self._coordinates[:, -1])

    def _centred(self) -> NDArray[np.float64]:
        """The Gram matrix of the members about their mean, `(m, m)`; what `recentre` computes, in place."""
        rows = self._members.numpy()
        gram: NDArray[np.float64] = self._gram.numpy()[np.ix_(rows, rows)]
        means = gram.mean(axis=1)
        gram -= means[:, None]
        gram -= means
        gram += means.mean()
        return gram

    def _search(self, kept: Tensor) -> TopDirection | None:
        """The direction of the points that are left, or `None` where this does not find it to the last digits."""
        if self._scatter <= _MIN_SHRINKAGE * self._highest:
            return None
        remaining = kept[self._members].numpy()
        m = int(remaining.sum())
        lost = self._coordinates[~remaining]
        # The mean of the members is 0, so that of the points left is minus what was lost, over m.
        mean = -lost.sum(axis=0) / m
        taken = np.vstack([lost, mean * m**0.5])
        shift = self._scatter * (1 + 1e-3)
        if np.abs(shift - self._values).min() < 1e-6 * shift:
            shift *= 1 + 1e-5
        inverse = 1 / (shift - self._values)
        scaled = taken * inverse
        core = np.linalg.solve(np.eye(len(taken)) + scaled @ taken.T, scaled)

        unit = 2.0 ** (math.frexp(self._highest)[1] - 1)  # ARPACK's tolerance is absolute below 4e-11

        def multiply(vector: NDArray[np.float64]) -> NDArray[np.float64]:  # A, in units
            vector = vector.ravel()
            return np.asarray(self._values * vector - (taken @ vector) @ taken) / unit

        def solve(vector: NDArray[np.float64]) -> NDArray[np.float64]:  # (A - σ)⁻¹
            vector = vector.ravel()
            return np.asarray((scaled @ vector) @ core - inverse * vector) * unit

        r = len(self._values)
        if r <= 2:
            return None
        shape = {"shape": (r, r), "dtype": np.float64}
        noise = numpy_generator(0, "lanczos", r).standard_normal(r) / r**0.5
        try:
            values, vectors = scipy.sparse.linalg.eigsh(
                scipy.sparse.linalg.LinearOperator(matvec=multiply, **shape),
                k=1,
                sigma=shift / unit,
                OPinv=scipy.sparse.linalg.LinearOperator(matvec=solve, **shape),
                v0=self._direction + 0.1 * noise,  # the last direction may be orthogonal to this one
                tol=_TOLERANCE,
                ncv=min(_KRYLOV_SIZE, r),
            )
        except scipy.sparse.linalg.ArpackError:
            return None
        scatter, direction = float(values[0]) * unit, vectors[:, 0]
        if np.linalg.norm(multiply(direction) - values[0] * direction) > 10 * _TOLERANCE * values[0]:
            return None
        self._scatter, self._direction = scatter, direction
        return self._answer(kept, scatter, self._coordinates @ direction - mean @ direction)

    def _answer(self, kept: Tensor, scatter: float, projections: NDArray[np.float64]) -> TopDirection:
        everyone = torch.zeros(len(kept), dtype=torch.float64)
        everyone[self._members] = torch.from_numpy(projections)
        everyone = everyone.where(kept, 0.0)
        # u of √w·K_c·√w, whose eigenvalue is the scatter over m.
        eigenvector = (everyone / scatter**0.5).numpy() if scatter > 0 else np.zeros(len(kept))
        return TopDirection(max(scatter, 0.0) / int(kept.sum()), everyone.square(), eigenvector)
