import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from fedrobust.seeds import numpy_generator
from fedrobust.statistics import lrv_mean

Array = NDArray[np.float64]


def published(x: Array, epsilon: float) -> Array:
    """The recursion as in the paper's code, by NumPy alone."""
    n, d = x.shape
    num_kept = n - int(epsilon * n + 1e-9)
    if d == 1:
        ordered = np.sort(x[:, 0])
        windows = [ordered[start : start + num_kept] for start in range(n - num_kept + 1)]
        return np.array([min(windows, key=np.ptp).mean()])
    distances = ((x - np.median(x, axis=0)) ** 2).sum(axis=1)
    kept = x[distances <= np.sort(distances)[num_kept - 1]]
    _, vectors = np.linalg.eigh(np.cov(kept.T, bias=True))
    bottom, top = vectors[:, : d // 2], vectors[:, d // 2 :]
    return bottom @ (bottom.T @ kept.mean(axis=0)) + top @ published(x @ top, epsilon)


@pytest.mark.parametrize(("n", "d"), [(50, 1), (60, 2), (300, 7), (2500, 16), (20, 30)])
@pytest.mark.parametrize("epsilon", [0.05, 0.2])
def test_equals_the_recursion_by_numpy(n: int, d: int, epsilon: float) -> None:
    x = numpy_generator(0, n, d).standard_normal((n, d)) * np.linspace(1, 3, d) + 5
    x[: int(epsilon * n)] += 2.0
    found = lrv_mean(x, epsilon)
    # With n < d the null space's basis is arbitrary, and the answer there is the one value all points share.
    np.testing.assert_allclose(found.mean, published(x, epsilon), atol=1e-9 if n > d else 1e-6)
    assert found.details["num_levels"] == 1 + len(found.iterations)


def test_the_shortest_interval_by_hand() -> None:
    """Of 0, 1, 2, 3, 100 four are kept: the span of 0..3 is 3, that of 1..100 is 99."""
    assert lrv_mean([[0.0], [1.0], [2.0], [3.0], [100.0]], 0.2).mean.tolist() == [1.5]


def test_two_dimensions_by_hand() -> None:
    """(±2, ±1) and a far point: it is dropped, the bottom eigenvector is the second axis with mean 0.

    On the first axis -2, -2, 2, 2, 50 the shortest interval with four points is -2, ..., 2, with mean 0.
    """
    found = lrv_mean([[2.0, 1.0], [2.0, -1.0], [-2.0, 1.0], [-2.0, -1.0], [50.0, 50.0]], 0.2)
    np.testing.assert_allclose(found.mean, [0.0, 0.0], atol=1e-15)
    assert found.iterations[0].statistic == pytest.approx(4.0)
    assert found.iterations[0].removed == 1.0


@pytest.mark.parametrize("size", [1e3, 1e12])
def test_outliers_have_bounded_influence_however_far_out(size: float) -> None:
    x = numpy_generator(2, "far").standard_normal((500, 10))
    x[:50] = size
    assert np.linalg.norm(lrv_mean(x, 0.1).mean) < 0.5


def test_plain_cases() -> None:
    x = numpy_generator(3, "plain").standard_normal((40, 5))
    np.testing.assert_allclose(lrv_mean(x, 0.0).mean, x.mean(axis=0), atol=1e-13)
    np.testing.assert_allclose(lrv_mean(x[:1], 0.2).mean, x[0], atol=1e-14)
    np.testing.assert_allclose(lrv_mean(np.full((9, 3), 0.1), 0.2).mean, [0.1] * 3, atol=1e-15)
    np.testing.assert_allclose(lrv_mean(x + 100, 0.2).mean, lrv_mean(x, 0.2).mean + 100, atol=1e-9)
    np.testing.assert_allclose(lrv_mean(x[::-1], 0.2).mean, lrv_mean(x, 0.2).mean, atol=1e-12)
    single = lrv_mean(torch.from_numpy(x).float(), 0.2)
    assert single.mean.dtype == torch.float32
    np.testing.assert_allclose(single.mean.numpy(), lrv_mean(x, 0.2).mean, atol=1e-5)


def test_refusals() -> None:
    with pytest.raises(ValueError, match="contamination must lie in"):
        lrv_mean(np.ones((10, 2)), 0.5)
    with pytest.raises(ValueError, match="x must have shape"):
        lrv_mean(np.ones(10), 0.1)
