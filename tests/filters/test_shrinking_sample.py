import numpy as np
import pytest
import torch

import fedrobust.filters.shrinking_sample as shrinking
from fedrobust.filters.shrinking_sample import ShrinkingSample
from fedrobust.seeds import torch_generator
from fedrobust.statistics import gram_matrix


@pytest.mark.parametrize(("n", "d"), [(30, 1), (30, 2), (60, 5), (60, 200)])
@pytest.mark.parametrize("max_lost", [0, 7, 100])
def test_equals_the_covariance_of_the_points_that_are_left(
    n: int, d: int, max_lost: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`np.cov` and its eigen-decomposition after each loss, of one to three points."""
    monkeypatch.setattr(shrinking, "_MAX_LOST", max_lost)
    points = torch.randn(n, d, generator=torch_generator(0, n, d), dtype=torch.float64) * torch.linspace(1, 3, d)
    points[:3] += 20.0
    sample, weights, top = ShrinkingSample(gram_matrix(points)), torch.ones(n, dtype=torch.float64), None
    order = torch.randperm(n, generator=torch_generator(1, n)).tolist()
    while int(weights.sum()) > n // 2:
        top = sample(weights, top)
        kept = points.numpy()[weights.numpy() > 0]
        values, vectors = np.linalg.eigh(np.atleast_2d(np.cov(kept.T, bias=True)))
        assert top.eigenvalue == pytest.approx(values[-1], rel=1e-9)
        expected = ((kept - kept.mean(axis=0)) @ vectors[:, -1]) ** 2
        np.testing.assert_allclose(top.squared_projections.numpy()[weights.numpy() > 0], expected, atol=1e-6)
        assert np.linalg.norm(top.eigenvector) == pytest.approx(1)
        for _ in range(1 + len(order) % 3):
            weights[order.pop()] = 0.0


def test_gross_outliers_leave_no_rounding_behind() -> None:
    """Outliers at 1e9, then 1e6, then 1e3: what is left afterwards has variance near 1, to nine digits."""
    points = torch.randn(40, 60, generator=torch_generator(2, "points"), dtype=torch.float64)
    for index, scale in enumerate((1e9, 1e6, 1e3)):
        points[index, index] += scale
    sample, weights = ShrinkingSample(gram_matrix(points)), torch.ones(40, dtype=torch.float64)
    top = sample(weights)
    for index in range(3):
        assert int(top.squared_projections.argmax()) == index
        weights[index] = 0.0
        top = sample(weights, top)
    assert top.eigenvalue == pytest.approx(np.linalg.eigvalsh(np.cov(points.numpy()[3:].T, bias=True))[-1], rel=1e-9)


def test_equal_top_eigenvalues_give_one_of_their_directions() -> None:
    """Pairs ±10 on each of four axes among points at 0: all four variances are equal, and fall one after another."""
    points = torch.zeros(40, 4, dtype=torch.float64)
    for axis in range(4):
        points[2 * axis, axis], points[2 * axis + 1, axis] = 10.0, -10.0
    sample, weights, top = ShrinkingSample(gram_matrix(points)), torch.ones(40, dtype=torch.float64), None
    for _ in range(8):
        top = sample(weights, top)
        kept = points.numpy()[weights.numpy() > 0]
        assert top.eigenvalue == pytest.approx(np.linalg.eigvalsh(np.cov(kept.T, bias=True))[-1], rel=1e-9)
        variance = float(top.squared_projections[weights > 0].mean())
        assert variance == pytest.approx(top.eigenvalue, rel=1e-9)
        weights[int(top.squared_projections.argmax())] = 0.0
    assert sample(weights, top).eigenvalue == 0.0
    assert weights[:8].sum() == 0


def test_points_that_coincide_have_no_direction() -> None:
    found = ShrinkingSample(torch.zeros(5, 5, dtype=torch.float64))(torch.ones(5, dtype=torch.float64))
    assert found.eigenvalue == 0.0
    assert found.squared_projections.tolist() == [0.0] * 5
