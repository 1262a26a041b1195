import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from fedrobust.seeds import numpy_generator
from fedrobust.statistics import gaussian_total_variation, robust_gaussian
from fedrobust.statistics.gaussian.robust_gaussian import gaussian_samples

Floats = NDArray[np.float64]


def contaminated(adversary: str, n: int = 20_000, d: int = 10, epsilon: float = 0.1) -> tuple[Floats, Floats, Floats]:
    """Outliers first, μ and Σ of condition 100."""
    generator = numpy_generator(0, "gaussian", adversary)
    basis = np.linalg.qr(generator.standard_normal((d, d)))[0]
    covariance = basis * np.geomspace(1, 100, d) @ basis.T
    mean = 10 * generator.standard_normal(d)
    points = generator.standard_normal((n, d))
    direction = generator.standard_normal(d)
    direction /= np.linalg.norm(direction)
    m = int(epsilon * n)
    if adversary == "far":
        points[:m] = 1e4 * direction
    elif adversary == "shell":
        points[:m] = np.sqrt(d) * direction
    elif adversary == "constant":
        points[:m] = 2.0 * direction
    elif adversary == "inflate":
        points[:m] *= 3
    return points @ np.linalg.cholesky(covariance).T + mean, mean, covariance


@pytest.mark.parametrize("adversary", ["none", "far", "shell", "constant", "inflate"])
def test_total_variation(adversary: str) -> None:
    """TV <= 1.5 ε + that of the good points' own moments, by NumPy, as published figures suggest for any adversary."""
    epsilon = 0.1
    points, mean, covariance = contaminated(adversary)
    result = robust_gaussian(points, epsilon)
    good = points[2000:]
    inliers = gaussian_total_variation(mean, covariance, good.mean(axis=0), np.cov(good.T)).distance
    found = gaussian_total_variation(mean, covariance, result.mean, result.covariance).distance
    assert found <= 1.5 * epsilon + inliers
    assert result.weights[2000:].mean() > 0.95


def test_clean_data_give_the_sample_moments() -> None:
    """NumPy's mean and covariance: on clean data not one point is removed, and none is at ε = 0."""
    points, _, _ = contaminated("none", n=4000)
    for contamination in (0.0, 0.05):
        result = robust_gaussian(points, contamination)
        np.testing.assert_allclose(result.mean, points.mean(axis=0), rtol=1e-10, atol=1e-10)
        np.testing.assert_allclose(result.covariance, np.cov(points.T, bias=True), rtol=1e-9, atol=1e-9)
        assert (result.weights == 1).all()


def test_affine_equivariance() -> None:
    """μ̂(XAᵀ + b) = Aμ̂(X) + b and Σ̂(XAᵀ + b) = AΣ̂(X)Aᵀ, with the same points kept."""
    points, _, _ = contaminated("inflate", n=6000)
    generator = numpy_generator(1, "transformation")
    matrix, shift = generator.standard_normal((10, 10)) + 3 * np.eye(10), 100 * generator.standard_normal(10)
    plain, mapped = robust_gaussian(points, 0.1), robust_gaussian(points @ matrix.T + shift, 0.1)
    assert (plain.weights == mapped.weights).all()
    np.testing.assert_allclose(mapped.mean, matrix @ plain.mean + shift, rtol=1e-10)
    expected = matrix @ plain.covariance @ matrix.T
    assert np.linalg.norm(mapped.covariance - expected) < 1e-10 * np.linalg.norm(expected)


@pytest.mark.parametrize("size", [1e3, 1e6, 1e12])
def test_breakdown(size: float) -> None:
    """However far out 5 % of the points are, the mean is within half a standard deviation in every direction."""
    points, mean, covariance = contaminated("none", n=4000)
    points[:200] = size * numpy_generator(0, "gross").standard_normal((200, 10))
    result = robust_gaussian(points, 0.05)
    shift = np.linalg.solve(np.linalg.cholesky(covariance), result.mean - mean)
    assert np.linalg.norm(shift) < 0.5
    assert (result.weights[:200] == 0).all()


def test_one_dimension() -> None:
    """N(3, 4) with a tenth of the points at 50: mean and variance of the others, by NumPy, within 0.1."""
    points = 3 + 2 * numpy_generator(0, "line").standard_normal((5000, 1))
    points[:500] = 50.0
    result = robust_gaussian(points, 0.1)
    assert float(result.mean[0]) == pytest.approx(float(points[500:].mean()), abs=0.1)
    assert float(result.covariance[0, 0]) == pytest.approx(float(points[500:].var()), rel=0.1)


def test_refusals() -> None:
    """The number of points that is needed; a contamination that doubles to a third; a constant column by its index."""
    points, _, _ = contaminated("none", n=4000)
    needed = gaussian_samples(10, 0.1)
    with pytest.raises(ValueError, match=f"at least {needed} rows"):
        robust_gaussian(points[: needed - 1], 0.1)
    with pytest.raises(ValueError, match=r"must lie in \(0, 0.1835\), got 0.2"):
        robust_gaussian(points, 0.2)
    points[:, 4] = 7.0
    with pytest.raises(ValueError, match=r"no spread in columns \[4\]"):
        robust_gaussian(points, 0.1)


def test_torch_and_single_precision() -> None:
    points, _, _ = contaminated("constant", n=4000)
    wide = robust_gaussian(torch.from_numpy(points), 0.1)
    narrow = robust_gaussian(torch.from_numpy(points).float(), 0.1)
    assert wide.mean.dtype == torch.float64
    assert narrow.covariance.dtype == torch.float32
    torch.testing.assert_close(narrow.mean.double(), wide.mean, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(narrow.covariance.double(), wide.covariance, rtol=1e-2, atol=1e-2)


def test_same_seed_same_bits() -> None:
    points, _, _ = contaminated("inflate", n=3000)
    first, second = robust_gaussian(points, 0.1, seed=1), robust_gaussian(points, 0.1, seed=1)
    assert (first.mean == second.mean).all()
    assert (first.covariance == second.covariance).all()
    assert "robust Gaussian" in first.summary()
