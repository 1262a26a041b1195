import numpy as np
import pytest
import scipy.linalg
import torch

from fedrobust.filters.quantum_entropy import quantum_entropy_direction
from fedrobust.seeds import torch_generator
from fedrobust.statistics import gram_matrix, top_direction


@pytest.mark.parametrize(("n", "d"), [(5, 1), (12, 7), (8, 20), (60, 6)])
@pytest.mark.parametrize("alpha", [0.0, 4.0, 30.0])
def test_equals_the_matrix_exponential_in_d_dimensions(n: int, d: int, alpha: float) -> None:
    """τᵢ = (xᵢ - μ)ᵀU(xᵢ - μ), U = exp(αΣ/‖Σ‖)/tr; traces over d and over n directions differ, so up to a factor."""
    points = torch.randn(n, d, generator=torch_generator(0, n, d), dtype=torch.float64) * torch.linspace(1, 2, d)
    weights = torch.rand(n, generator=torch_generator(1, n), dtype=torch.float64) + 0.1
    weights[1] = 0.0
    values = points.numpy()
    covariance = np.atleast_2d(np.cov(values.T, aweights=weights.numpy(), bias=True))
    norm = np.linalg.eigvalsh(covariance)[-1]
    density = scipy.linalg.expm(alpha * covariance / norm)
    centred = values - np.average(values, axis=0, weights=weights.numpy())
    expected = np.einsum("ij,jk,ik->i", centred, density, centred)
    found = quantum_entropy_direction(gram_matrix(points), weights, alpha)
    assert found.eigenvalue == pytest.approx(norm, rel=1e-10)
    used = weights.numpy() > 0
    scores = found.squared_projections.numpy()
    np.testing.assert_allclose(scores[used] / scores[used].max(), expected[used] / expected[used].max(), atol=1e-9)


def test_the_directions_weights_sum_to_one() -> None:
    """Values -1 and 1: n = 2, Σ = 1, eigenvalues 1 and 0: τ = 1·e⁴/(e⁴ + 1) for both."""
    found = quantum_entropy_direction(gram_matrix(torch.tensor([[-1.0], [1.0]])), torch.ones(2).double(), 4.0)
    assert found.squared_projections.tolist() == pytest.approx([np.exp(4) / (np.exp(4) + 1)] * 2)


def test_large_alpha_leaves_the_top_direction() -> None:
    points = torch.randn(30, 4, generator=torch_generator(2, "alpha"), dtype=torch.float64) * torch.tensor(
        [3.0, 2, 1, 1]
    )
    gram, weights = gram_matrix(points), torch.ones(30, dtype=torch.float64)
    found = quantum_entropy_direction(gram, weights, 1e4)
    torch.testing.assert_close(found.squared_projections, top_direction(gram, weights).squared_projections)


def test_points_that_coincide_have_no_scores() -> None:
    found = quantum_entropy_direction(torch.zeros(4, 4, dtype=torch.float64), torch.ones(4, dtype=torch.float64), 4.0)
    assert found.eigenvalue == 0.0
    assert found.squared_projections.tolist() == [0.0] * 4


def test_the_scores_of_points_that_are_almost_gone_keep_their_digits() -> None:
    """τ does not depend on a point's own weight where that is nothing: 1e-15 and 1e-30 give the same."""
    points = torch.randn(40, 5, generator=torch_generator(3, "gone"), dtype=torch.float64)
    points[:4] += 3.0
    gram, found = gram_matrix(points), []
    for weight in (1e-15, 1e-30):
        weights = torch.ones(40, dtype=torch.float64)
        weights[:4] = weight
        found.append(quantum_entropy_direction(gram, weights, 4.0).squared_projections)
    torch.testing.assert_close(*found, rtol=1e-12, atol=0)
