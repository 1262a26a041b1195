"""Quantum entropy scores: every direction of large variance counts, not the top one alone.

Dong, Hopkins and Li, "Quantum Entropy Scoring for Fast Robust Mean Estimation and Improved Outlier Detection", NeurIPS
2019, https://arxiv.org/abs/1906.11366
"""

import math

import numpy as np
import scipy.linalg
import torch
from torch import Tensor

from fedrobust._linalg.gram import recentre
from fedrobust._linalg.spectral import TopDirection
from fedrobust.types import Weights


def quantum_entropy_direction(gram: Tensor, weights: Weights, alpha: float) -> TopDirection:
    """Like `top_direction`, with τᵢ = Σⱼ pⱼ⟨xᵢ - μ_w, vⱼ⟩² in place of the squared projections on the top direction.

    pⱼ ∝ exp(αλⱼ/λ₁) over all eigenpairs of the covariance: τᵢ is (xᵢ - μ_w)ᵀU(xᵢ - μ_w) for U ∝ exp(αΣ/‖Σ‖). At α = 0
    it is the squared distance from the mean over n; for α → ∞ only the top direction is left.

    Args:
        gram: `(n, n)` float64, about any centre.
        weights: `(n,)` float64, non-negative, not all zero; normalised here.
        alpha: how much the directions of large variance are preferred.

    Returns:
        λ₁, τ (of n points in d > n dimensions, as if the directions beyond their span had λ = 0) and the top
        eigenvector.
    """
    normalised = weights / weights.sum()
    root = normalised.sqrt()
    centred = recentre(gram, normalised)
    matrix = (root[:, None] * centred * root[None, :]).numpy()
    values, vectors = scipy.linalg.eigh(matrix, check_finite=False)
    top, eigenvector = float(values[-1]), np.ascontiguousarray(vectors[:, -1])
    if top <= 0:  # all points coincide
        return TopDirection(0.0, torch.zeros_like(root), eigenvector)
    unit = 2.0 ** (math.frexp(top)[1] - 1)  # there are squares of eigenvalues below, which may leave float64's range
    values, centred = values.clip(min=0) / unit, centred / unit
    preferences, least = np.exp(alpha * (values / values[-1] - 1)), np.exp(-alpha)
    # ⟨xᵢ - μ, vⱼ⟩² = (K_c √w u)ᵢⱼ² / λⱼ. Every direction counts e^-α, seen in the distance from the mean, and what it
    # counts beyond that vanishes like λⱼ: nothing is divided by a small λⱼ, nor by the weight of a point almost gone.
    excess = np.full(len(values), alpha * least / values[-1])
    np.divide(-preferences * np.expm1(-alpha * values / values[-1]), values, out=excess, where=values > 0)
    squares = (centred.numpy() @ (root.numpy()[:, None] * vectors)) ** 2
    scores = least * centred.diagonal().clamp_min(0) + torch.from_numpy(squares @ excess)
    return TopDirection(top, scores / preferences.sum() * unit, eigenvector)
