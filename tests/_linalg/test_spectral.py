import numpy as np
import pytest
import torch

from fedrobust._linalg.spectral import top_eigenpair
from fedrobust.seeds import torch_generator
from fedrobust.statistics import gram_matrix, top_direction


@pytest.mark.parametrize(("n", "d"), [(2, 1), (10, 30), (40, 6), (200, 20), (160, 400)])
def test_equals_the_eigen_decomposition_of_the_covariance(n: int, d: int) -> None:
    """`np.cov` with weights, d x d; both solvers (n at most 150 and above) and points of weight zero."""
    points = torch.randn(n, d, generator=torch_generator(0, n, d), dtype=torch.float64) * torch.linspace(1, 3, d)
    weights = torch.rand(n, generator=torch_generator(1, n), dtype=torch.float64)
    weights[n // 2] = 0.0 if n > 2 else 1.0
    values, vectors = np.linalg.eigh(np.atleast_2d(np.cov(points.T.numpy(), aweights=weights.numpy(), bias=True)))
    mean = np.average(points.numpy(), axis=0, weights=weights.numpy())
    found = top_direction(gram_matrix(points), weights)
    assert found.eigenvalue == pytest.approx(values[-1], rel=1e-10)
    expected = ((points.numpy() - mean) @ vectors[:, -1]) ** 2
    np.testing.assert_allclose(found.squared_projections.numpy(), expected, atol=1e-9)
    again = top_direction(gram_matrix(points), weights, near=found)
    assert again.eigenvalue == pytest.approx(values[-1], rel=1e-10)


@pytest.mark.parametrize("n", [1, 5, 200])
def test_points_that_coincide_have_no_direction(n: int) -> None:
    found = top_direction(torch.zeros(n, n, dtype=torch.float64), torch.ones(n, dtype=torch.float64))
    assert found.eigenvalue == 0.0
    assert found.squared_projections.tolist() == [0.0] * n


def test_a_start_that_is_orthogonal_to_the_answer_finds_it_all_the_same() -> None:
    """200 points, two far out on axes of their own: without the farther, the other's axis is the top direction."""
    points = torch.zeros(200, 2, dtype=torch.float64)
    points[0, 0], points[1, 1] = 100.0, 10.0
    gram = gram_matrix(points)
    weights = torch.ones(200, dtype=torch.float64)
    first = top_direction(gram, weights)
    weights[0] = 0.0
    second = top_direction(gram, weights, near=first)
    # one value of 10 among 199: variance 100 (1/199)(1 - 1/199)
    assert second.eigenvalue == pytest.approx(100 / 199 * (1 - 1 / 199))


def test_equal_eigenvalues() -> None:
    """Of I but for rounding, for which LAPACK's search by index finds no eigenvalue in one case out of ten."""
    generator = torch_generator(0, "identity")
    for _ in range(100):
        basis, _ = torch.linalg.qr(torch.randn(12, 12, generator=generator, dtype=torch.float64))
        matrix = (basis @ basis.T).numpy()
        eigenvalue, vector = top_eigenpair((matrix + matrix.T) / 2)
        assert eigenvalue == pytest.approx(1, abs=1e-12)
        assert float(vector @ vector) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("n", [160, 300, 700])
@pytest.mark.parametrize("part", [0.3, 0.9, 0.98, 1.02, 2.0])
def test_a_search_may_end_at_any_direction_with_enough_variance(n: int, part: float) -> None:
    points = torch.randn(n, 2 * n, dtype=torch.float64, generator=torch_generator(3, "enough", n))
    gram, weights = points @ points.T, torch.rand(n, dtype=torch.float64, generator=torch_generator(4, "enough", n))
    largest = top_direction(gram, weights)
    found = top_direction(gram, weights, enough=part * largest.eigenvalue)
    assert found.eigenvalue <= largest.eigenvalue * (1 + 1e-9)
    if part > 1:
        assert found.eigenvalue == largest.eigenvalue
        assert torch.equal(found.squared_projections, largest.squared_projections)
        return
    assert found.eigenvalue >= part * largest.eigenvalue
    shares = weights / weights.sum()
    assert float(shares @ found.squared_projections) == pytest.approx(found.eigenvalue, rel=0.01)
