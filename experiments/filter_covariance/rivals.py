"""The other estimators of a covariance about zero, for comparison."""

import math
import warnings

import numpy as np
from numpy.typing import NDArray
from sklearn.covariance import MinCovDet

Floats = NDArray[np.float64]

FAILURE = 0.1
PRUNING_CONSTANT = 0.2
"""τ and C of the authors' code."""


def sample_covariance(points: Floats) -> Floats:
    """XᵀX/N."""
    return points.T @ points / len(points)


def pruned_covariance(points: Floats) -> Floats:
    """The paper's naive pruning: drop points with xᵀS⁻¹x > 0.2 d ln(N/0.1), until there are none."""
    while True:
        covariance = sample_covariance(points)
        n, d = points.shape
        distances = np.einsum("ni,ni->n", np.linalg.solve(covariance, points.T).T, points)
        kept = distances <= PRUNING_CONSTANT * d * math.log(n / FAILURE)
        if kept.all():
            return covariance
        points = points[kept]


def minimum_covariance_determinant(points: Floats, contamination: float, seed: int) -> Floats:
    """Scikit-learn's FastMCD with reweighting, told the contamination and that the mean is zero."""
    with warnings.catch_warnings():
        # The determinant rises between two of its steps where two subsets tie; the best subset seen is returned.
        warnings.filterwarnings("ignore", message="Determinant has increased", category=RuntimeWarning)
        estimator = MinCovDet(support_fraction=1 - contamination, assume_centered=True, random_state=seed)
        return np.asarray(estimator.fit(points).covariance_)
