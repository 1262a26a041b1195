import numpy as np
import pytest
import torch

from fedrobust.filters.covariance_direction import CovarianceDirection, sample_direction
from fedrobust.filters.soft_filter import gram_direction, soft_filter_along
from fedrobust.seeds import torch_generator
from fedrobust.statistics import gram_matrix


@pytest.mark.parametrize(("n", "d"), [(30, 1), (60, 59), (400, 20), (300, 200), (90, 120)])
@pytest.mark.parametrize("max_eigenvalue", [None, 1.2])
@pytest.mark.parametrize("entropy_alpha", [None, 4.0])
def test_the_filter_is_the_same_over_the_gram_matrix_and_over_the_covariance(
    n: int, d: int, max_eigenvalue: float | None, entropy_alpha: float | None
) -> None:
    points = torch.randn(n, d, generator=torch_generator(0, n, d), dtype=torch.float64) * torch.linspace(1, 2, d)
    points[: n // 10] += 4.0
    points[: n // 20] *= 30.0
    directions = gram_direction(gram_matrix(points), entropy_alpha), CovarianceDirection(points, entropy_alpha)
    max_removed = n / 3 if entropy_alpha is None else n / 2  # scores alike in many directions take more a step
    found = [soft_filter_along(one, n, max_removed=max_removed, max_eigenvalue=max_eigenvalue) for one in directions]
    assert found[0].num_steps == found[1].num_steps > 0
    torch.testing.assert_close(found[0].weights, found[1].weights, rtol=0, atol=1e-10)
    assert found[0].eigenvalue == pytest.approx(found[1].eigenvalue, rel=1e-10)
    assert [step.removed for step in found[0].iterations] == pytest.approx([one.removed for one in found[1].iterations])


@pytest.mark.parametrize(("n", "d"), [(20, 1), (50, 6), (400, 160)])
def test_equals_the_eigen_decomposition_of_the_covariance(n: int, d: int) -> None:
    """`np.cov` with weights and NumPy's `eigh`; both solvers (d at most 150 and above)."""
    points = torch.randn(n, d, generator=torch_generator(1, n, d), dtype=torch.float64) * torch.linspace(1, 3, d)
    weights = torch.rand(n, generator=torch_generator(2, n), dtype=torch.float64)
    weights[n // 2] = 0.0
    values, vectors = np.linalg.eigh(np.atleast_2d(np.cov(points.T.numpy(), aweights=weights.numpy(), bias=True)))
    direction = CovarianceDirection(points)
    found = direction(weights)
    assert found.eigenvalue == pytest.approx(values[-1], rel=1e-10)
    mean = np.average(points.numpy(), axis=0, weights=weights.numpy())
    expected = (points.numpy() - mean) @ vectors[:, -1]
    assert found.projections is not None
    assert abs(float(found.projections @ torch.from_numpy(expected))) == pytest.approx(expected @ expected)
    np.testing.assert_allclose(found.squared_projections.numpy(), expected**2, atol=1e-9)
    assert direction(weights, near=found).eigenvalue == pytest.approx(values[-1], rel=1e-10)


@pytest.mark.parametrize("entropy_alpha", [None, 4.0])
def test_points_that_coincide_have_no_direction(entropy_alpha: float | None) -> None:
    found = CovarianceDirection(torch.full((6, 2), 3.0), entropy_alpha)(torch.ones(6, dtype=torch.float64))
    assert found.eigenvalue == 0.0
    assert found.squared_projections.tolist() == [0.0] * 6


@pytest.mark.parametrize("d", [3, 30])
def test_squares_that_overflow_are_refused(d: int) -> None:
    points = torch.zeros(10, d, dtype=torch.float64)
    points[3, 1] = 1e200
    with pytest.raises(ValueError, match="x must have squared norms below 1e308"):
        sample_direction(points)(torch.ones(10, dtype=torch.float64))
