"""Points of 1e200, units of 1e-200: what the estimators answer where squares overflow or vanish."""

from functools import partial

import numpy as np
import pytest
import torch

from fedrobust._linalg.number_range import in_range, in_range_by_column
from fedrobust.seeds import numpy_generator
from fedrobust.statistics import (
    bounded_covariance_mean,
    coordinate_median,
    covariance_agnostic_mean,
    filter_covariance,
    filter_mean,
    geometric_median,
    lrv_mean,
    pruned_mean,
    robust_gaussian,
    trimmed_mean,
    tukey_median,
)

E = {"contamination": 0.1}
MEANS = {
    "filter_mean": (partial(filter_mean, **E), True),
    "bounded_covariance_mean": (partial(bounded_covariance_mean, **E), True),
    "bounded_covariance_mean_entropy": (partial(bounded_covariance_mean, direction="quantum_entropy", **E), True),
    "covariance_agnostic_mean": (partial(covariance_agnostic_mean, **E), False),
    "covariance_agnostic_mean_entropy": (partial(covariance_agnostic_mean, direction="quantum_entropy", **E), False),
    "lrv_mean": (partial(lrv_mean, **E), False),
    "geometric_median": (geometric_median, False),
    "pruned_mean": (pruned_mean, True),
    "coordinate_median": (coordinate_median, False),
    "trimmed_mean": (partial(trimmed_mean, **E), False),
}
SHAPES = [(300, 4), (40, 60), (301, 1)]
TOLERANCES = {np.float32: 1e-5, np.float64: 2e-6}


def sample(n: int, d: int) -> np.ndarray:
    """N(0, I), of which four in a hundred are shifted by 8 along the diagonal."""
    x = numpy_generator(0, "range", n, d).standard_normal((n, d))
    x[: n // 25] += 8.0
    return x


def answer(name: str, x: np.ndarray, sigma: float = 1.0) -> np.ndarray:
    estimator, has_sigma = MEANS[name]
    result = estimator(x, sigma=sigma) if has_sigma else estimator(x)
    figures = [one for step in result.iterations for one in (step.statistic, step.threshold, step.removed) if one]
    assert not np.isnan([*figures, *result.details.values()]).any()
    return np.asarray(result.mean)


@pytest.mark.parametrize("name", MEANS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("scale", [1e-280, 1e-200, 1e-120, 1e120, 1e200, 1e300])
def test_the_unit_does_not_matter(name: str, shape: tuple[int, int], scale: float) -> None:
    x = sample(*shape)
    np.testing.assert_allclose(answer(name, x * scale, scale) / scale, answer(name, x), rtol=0, atol=1e-7)


@pytest.mark.parametrize("name", MEANS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("scale", [1e-30, 1e-15, 1e15, 1e30, 1e37])
def test_nor_does_it_in_float32(name: str, shape: tuple[int, int], scale: float) -> None:
    x = sample(*shape).astype(np.float32)
    found = answer(name, x * np.float32(scale), scale)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found.astype(np.float64) / scale, answer(name, x), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", MEANS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    ("dtype", "size", "scale"),
    [
        (np.float64, 1e155, 1.0),
        (np.float64, 1e200, 1.0),
        (np.float64, 1e300, 1.0),
        (np.float64, 1e200, 1e-200),
        (np.float64, 1e100, 1e200),
        (np.float32, 1e30, 1.0),
        (np.float32, 1e38, 1.0),
        (np.float32, 1e30, 1e-20),
    ],
)
@pytest.mark.parametrize("part", [0.0, 0.01, 0.03, 0.05])
def test_points_however_far_out_do_as_much_as_far_points(
    name: str, shape: tuple[int, int], dtype: type, size: float, scale: float, part: float
) -> None:
    """As much as points at 1e25 along the same directions, which is a limit already; `part` 0 is one point."""
    x = sample(*shape)
    num_far = max(1, round(part * len(x)))
    far = numpy_generator(1, "directions").standard_normal((num_far, shape[1]))
    far /= np.abs(far).max(axis=1)[:, None]
    x[-num_far:] = far * 1e25
    expected = answer(name, x)
    x[-num_far:] = far * size
    found = answer(name, (x * scale).astype(dtype), scale)
    np.testing.assert_allclose(found.astype(np.float64) / scale, expected, rtol=0, atol=TOLERANCES[dtype])


@pytest.mark.parametrize("estimator", [covariance_agnostic_mean, filter_mean, bounded_covariance_mean, lrv_mean])
@pytest.mark.parametrize("shape", SHAPES)
def test_with_no_contamination_the_far_point_is_in_the_mean_or_refused(estimator, shape: tuple[int, int]) -> None:
    """Exactly: it is 1e200 over n."""
    x = sample(*shape)
    x[5] = 1e200
    arguments = {"sigma": 1.0} if estimator in (filter_mean, bounded_covariance_mean) else {}
    if estimator is lrv_mean:
        with pytest.raises(ValueError, match=r"x must have squared norms below 1e308 .* rows \[5\] are too far out"):
            estimator(x, 0.0)
        return
    mean = estimator(x, 0.0, **arguments).mean
    np.testing.assert_allclose(mean, 1e200 / shape[0], rtol=1e-14)


@pytest.mark.parametrize("contamination", [0.1, 0.0])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("estimator", [filter_covariance, robust_gaussian])
def test_covariances_that_are_no_numbers_are_refused(estimator, dtype: type, contamination: float) -> None:
    x = numpy_generator(2, "covariance").standard_normal((1500, 3))
    for scale in (1e-30, 1e30) if dtype is np.float32 else (1e-200, 1e200, 1e300):
        with pytest.raises(ValueError, match=r"x must have columns whose squares are numbers in torch\.float"):
            estimator((x * scale).astype(dtype), contamination)


@pytest.mark.parametrize("scales", [(1e-150, 1.0, 1e150), (1e-120, 1e-120, 1e-120), (1e150, 1e140, 1e150)])
def test_covariances_in_any_unit_that_has_squares(scales: tuple[float, float, float]) -> None:
    """Column by column: both are affine equivariant."""
    x = numpy_generator(2, "covariance").standard_normal((1500, 3))
    x[:60] = 9.0
    units = np.array(scales)
    there, here = filter_covariance(x, 0.1).covariance, filter_covariance(x * units, 0.1).covariance
    np.testing.assert_allclose(here / units[:, None] / units, there, atol=1e-9)
    there, here = robust_gaussian(x + 1, 0.1), robust_gaussian((x + 1) * units, 0.1)
    np.testing.assert_allclose(here.covariance / units[:, None] / units, there.covariance, atol=1e-9)
    np.testing.assert_allclose(here.mean / units, there.mean, atol=1e-9)


@pytest.mark.parametrize("num_far", [1, 20, 60])
@pytest.mark.parametrize(("dtype", "size"), [(np.float64, 1e200), (np.float64, 1e300), (np.float32, 1e38)])
def test_covariances_beside_points_however_far_out(dtype: type, size: float, num_far: int) -> None:
    """They are removed: what is left is as if they were at 1e6, and weights say which they were."""
    x = numpy_generator(2, "covariance").standard_normal((1500, 3))
    far = numpy_generator(3, "directions").standard_normal((num_far, 3))
    far /= np.abs(far).max(axis=1)[:, None]
    nearer, farther = np.vstack([far * 1e6, x[num_far:]]), np.vstack([far * size, x[num_far:]]).astype(dtype)
    tolerance = 1e-4 if dtype is np.float32 else 1e-7
    for estimator in (filter_covariance, robust_gaussian):
        found = estimator(farther, 0.1)
        assert float(found.weights[:num_far].sum()) == 0
        np.testing.assert_allclose(found.covariance, estimator(nearer, 0.1).covariance, atol=tolerance)


@pytest.mark.parametrize("d", [1, 2, 3])
@pytest.mark.parametrize("scale", [1e-280, 1e-200, 1e200, 1e290])
def test_the_tukey_median_has_no_unit(d: int, scale: float) -> None:
    x = sample(60, d)
    np.testing.assert_allclose(tukey_median(x * scale).median / scale, tukey_median(x).median, atol=1e-7)


def test_what_is_in_range_is_left_alone() -> None:
    """Not even copied; neither are points that are all zero."""
    for points in (torch.randn(20, 3) * 1e9, torch.zeros(5, 2), torch.randn(20, 3, dtype=torch.float64) * 1e-50):
        for found in (in_range(points), in_range_by_column(points)):
            assert found.points is points
            assert found.is_as_given


def test_points_that_are_zero_do_not_choose_the_unit() -> None:
    points = torch.zeros(10, 2, dtype=torch.float64)
    points[:3] = 1e-200
    assert 0.5 <= float(in_range(points).points.max()) < 1
