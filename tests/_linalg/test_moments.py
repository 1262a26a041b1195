import numpy as np
import pytest
import torch
from torch import Tensor

from fedrobust._linalg import rows
from fedrobust._linalg.moments import Moments
from fedrobust.seeds import torch_generator


def check(moments: Moments, points: Tensor, weights: Tensor) -> None:
    moments.update(weights)
    exact, w = points.double().numpy(), weights.numpy()
    used = w > 0  # np.cov would take the outliers' 0 for its mean
    expected = np.atleast_2d(np.cov(exact[used].T, aweights=w[used], bias=True))
    np.testing.assert_allclose(moments.covariance(), expected, atol=1e-11 * np.abs(expected).max())
    mean = np.average(exact[used], axis=0, weights=w[used])
    np.testing.assert_allclose(moments.mean().numpy(), mean, atol=1e-13 * np.abs(exact[used]).max())


@pytest.mark.parametrize(("n", "d"), [(3000, 5), (40, 1), (300, 200), (1030, 1025)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equal_numpy_as_weights_fall(n: int, d: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """`np.cov` and `np.average` with weights: all ones, few points less, some of them partly, all of them partly."""
    monkeypatch.setattr(rows, "_CPU_CHUNK_NUMBERS", 1)
    points = torch.randn(n, d, generator=torch_generator(0, n, d), dtype=dtype) * 3 + 50
    moments = Moments(points)
    weights = torch.ones(n, dtype=torch.float64)
    check(moments, points, weights)
    weights = weights.clone()
    weights[: n // 10] = 0.0
    check(moments, points, weights)
    weights = weights.clone()
    weights[n // 10 : n // 8] = 0.3
    check(moments, points, weights)
    check(moments, points, weights * torch.rand(n, generator=torch_generator(1, n), dtype=torch.float64))


@pytest.mark.parametrize("size", [1e3, 1e6, 1e12])
def test_outliers_leave_no_trace_when_they_go(size: float) -> None:
    points = torch.randn(500, 10, generator=torch_generator(2, "outliers"), dtype=torch.float64)
    points[::10] += size
    moments = Moments(points)
    weights = torch.ones(500, dtype=torch.float64)
    moments.update(weights)
    weights = weights.clone()
    weights[::10] = 0.0
    check(moments, points, weights)


def test_points_far_from_the_origin_keep_their_digits() -> None:
    """Subtracting the centre from float64 numbers near 1e8 costs 1e8 · 1e-16 = 1e-8, and no more."""
    near = torch.randn(2000, 4, generator=torch_generator(3, "far"), dtype=torch.float64)
    near[:1000] += 5  # the pilot rows are not near the mean of all
    moments = Moments(near + 1e8)
    moments.update(torch.ones(2000, dtype=torch.float64))
    np.testing.assert_allclose(moments.covariance(), np.cov(near.T.numpy(), bias=True), atol=1e-6)


def test_squares_that_overflow_are_refused() -> None:
    points = torch.zeros(10, 2, dtype=torch.float64)
    points[3, 1] = 1e200
    with pytest.raises(ValueError, match="x must have squared norms below 1e308"):
        Moments(points).update(torch.ones(10, dtype=torch.float64))
