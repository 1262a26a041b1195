import logging
import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.stats import norm, ortho_group

from fedrobust.seeds import numpy_generator
from fedrobust.statistics import filter_mean

Array = NDArray[np.float64]


def figure_sample(n: int, d: int, epsilon: float, seed: int = 0) -> tuple[Array, Array]:
    """The sample of ICML 2017's Figure 1, and its good points: N(1, I), and two kinds of noise at the same radius."""
    generator = numpy_generator(seed, "figure", n, d)
    good = generator.standard_normal((round((1 - epsilon) * n), d)) + 1
    half = round(epsilon * n / 2)
    far = np.zeros((half, d))
    far[:, :2] = 12, -2
    return np.vstack([good, generator.integers(0, 2, (half, d)), far]), good


def published_filter(x: Array, epsilon: float) -> Array:
    """The authors' loop, directly: `np.cov`, all eigenpairs, and one point after the other."""
    tau, slack = 0.1, 2.5
    while True:
        n, d = x.shape
        values, vectors = np.linalg.eigh(np.cov(x.T, bias=True))
        if values[-1] < 1 + 3 * epsilon * math.log(1 / epsilon):
            return x
        projections = x @ vectors[:, -1]
        deviations = np.abs(projections - np.median(projections))
        order = np.argsort(deviations, kind="stable")
        for i in range(1, n + 1):
            tail = norm.sf(deviations[order[i - 1]] - 2 * epsilon)
            if n - i > slack * n * (tail + epsilon / (d * math.log(d * epsilon / tau))):
                break
        if i in (1, n):
            return x
        x = x[np.sort(order[:i])]


@pytest.mark.parametrize(("n", "d", "epsilon"), [(20000, 20, 0.1), (4000, 160, 0.1), (6000, 30, 0.2), (8000, 50, 0.05)])
def test_equals_the_published_filter(n: int, d: int, epsilon: float) -> None:
    x, _ = figure_sample(n, d, epsilon)
    left = published_filter(x, epsilon)
    assert len(left) < n
    found = filter_mean(x, epsilon)
    assert int(found.weights.sum()) == len(left)
    np.testing.assert_allclose(found.mean, left.mean(axis=0), atol=1e-12)
    np.testing.assert_array_equal(x[found.weights > 0], left)
    assert sum(step.removed for step in found.iterations) == n - len(left)


def test_far_points_by_hand() -> None:
    """0 fourteen times, -1 and 1 twice each, 10 twice; ε = 0.1, so it stops below 1 + 0.3 ln 10 = 1.69.

    Mean 1, variance (4 + 200)/20 - 1 = 9.2, median 0. At i = 19 one point is beyond, and 50 · 0.1/(9.8² ln ln 100) =
    0.03 are expected: 19 would be kept, the last at 10. But of N = 20 good points no two are farther apart than
    √(2(1 + 2√L + 2L)) = 6.8, L = ln(20²/0.1): both at 10 go. What is left has mean 0 and variance 4/18.
    """
    x = np.array([0.0] * 14 + [-1.0, -1.0, 1.0, 1.0, 10.0, 10.0])[:, None]
    found = filter_mean(x, 0.1)
    assert found.mean.tolist() == [0.0]
    assert found.weights.tolist() == [1.0] * 18 + [0.0] * 2
    (step,) = found.iterations
    assert (step.statistic, step.threshold, step.removed) == pytest.approx((9.2, 1 + 0.3 * math.log(10), 2))
    assert found.details["top_eigenvalue_over_squared_sigma"] == pytest.approx(4 / 18)
    assert "2 removed altogether" in found.summary()


def test_the_point_at_the_cut_is_kept() -> None:
    """As above with 5 instead of 10, within 6.8: 19 are kept, and their variance 29/19 - (5/19)² = 1.46 is enough."""
    x = np.array([0.0] * 14 + [-1.0, -1.0, 1.0, 1.0, 5.0, 5.0])[:, None]
    found = filter_mean(x, 0.1)
    assert found.weights.tolist() == [1.0] * 19 + [0.0]
    assert found.mean.tolist() == pytest.approx([5 / 19])


def test_sigma_is_the_unit() -> None:
    x, _ = figure_sample(4000, 20, 0.1)
    plain = filter_mean(x, 0.1)
    scaled = filter_mean(x * 0.01, 0.1, sigma=0.01)
    np.testing.assert_array_equal(scaled.weights, plain.weights)
    np.testing.assert_allclose(scaled.mean, plain.mean * 0.01, atol=1e-14)


def test_a_sigma_that_is_too_large_makes_it_a_no_op() -> None:
    x, _ = figure_sample(4000, 20, 0.1)
    np.testing.assert_allclose(filter_mean(x, 0.1, sigma=100).mean, x.mean(axis=0), atol=1e-13)


@pytest.mark.parametrize(("n", "d"), [(500, 50), (1000, 5), (60, 200)])
@pytest.mark.parametrize("sigma", [1.0, 0.3, 0.01])
def test_a_wrong_scale_costs_half_of_the_points_at_most_and_is_said(
    n: int, d: int, sigma: float, caplog: pytest.LogCaptureFixture
) -> None:
    """The authors' code deletes 498 of 500 clean points in 50 dimensions."""
    x = numpy_generator(0, n, d).standard_normal((n, d))
    with caplog.at_level(logging.WARNING, "fedrobust"):
        found = filter_mean(x, 0.1, sigma=sigma)
    assert found.weights.sum() >= n / 2
    removed = [step.removed for step in found.iterations]
    assert sum(removed[:-1]) < 2 * 0.1 * n
    beyond = found.details["top_eigenvalue_over_squared_sigma"] >= found.details["stops_below"]
    assert ("all of the budget" in caplog.text) == (beyond and sum(removed) >= 2 * 0.1 * n)


@pytest.mark.parametrize("d", [1, 2, 5, 50])
@pytest.mark.parametrize("epsilon", [0.05, 0.1, 0.3])
def test_clean_data_are_left_alone(d: int, epsilon: float) -> None:
    """For n = 40d the top sample eigenvalue is near (1 + √(1/40))² = 1.34, below 1 + 3ε ln(1/ε) from ε = 0.05 on."""
    n = max(400, 40 * d)
    x = numpy_generator(1, d).standard_normal((n, d))
    assert filter_mean(x, epsilon).weights.sum() >= 0.99 * n


@pytest.mark.parametrize("size", [1e3, 1e6, 1e12])
@pytest.mark.parametrize(("n", "d"), [(1000, 1), (1000, 2), (1000, 5), (4000, 40)])
def test_outliers_have_bounded_influence_however_far_out(n: int, d: int, size: float) -> None:
    """A tenth at one far point, or at d of them, on the axes: less is left than a shift by ε times the good radius."""
    generator = numpy_generator(2, n, d)
    x = generator.standard_normal((n, d))
    for outliers in (np.full((n // 10, d), size), size * np.eye(d)[np.arange(n // 10) % d]):
        x[: n // 10] = outliers
        found = filter_mean(x, 0.1)
        assert found.weights[: n // 10].sum() == 0
        assert np.linalg.norm(found.mean) < 0.1 * (1 + d**0.5)


def test_equivariance() -> None:
    """Translation, rotation and permutation; half of the noise on an axis."""
    x, _ = figure_sample(3000, 15, 0.1)
    plain = filter_mean(x, 0.1)
    generator = numpy_generator(3, "equivariance")
    shift, order = generator.standard_normal(15) * 100, generator.permutation(3000)
    rotation = ortho_group.rvs(15, random_state=generator)
    np.testing.assert_allclose(filter_mean(x + shift, 0.1).mean, plain.mean + shift, atol=1e-11)
    np.testing.assert_allclose(filter_mean(x @ rotation, 0.1).mean, plain.mean @ rotation, atol=1e-12)
    np.testing.assert_allclose(filter_mean(x[order], 0.1).mean, plain.mean, atol=1e-12)


def test_no_contamination_gives_the_mean() -> None:
    x = numpy_generator(4, "mean").standard_normal((50, 3)) * 100
    found = filter_mean(x, 0.0)
    np.testing.assert_allclose(found.mean, x.mean(axis=0), rtol=1e-13)
    assert found.weights.tolist() == [1.0] * 50
    assert found.iterations == ()


@pytest.mark.parametrize(
    "x", [np.array([[3.0, 4.0]]), np.full((9, 2), 0.1), np.full((3, 7), 1e6), np.array([[5.0]]), np.ones((1, 4))]
)
def test_one_point_and_equal_points(x: Array) -> None:
    np.testing.assert_allclose(filter_mean(x, 0.2).mean, x[0], rtol=1e-14)


def test_constant_columns() -> None:
    x, _ = figure_sample(3000, 10, 0.1)
    found = filter_mean(np.column_stack([x, np.full(3000, 7.0)]), 0.1)
    assert found.mean[-1] == pytest.approx(7.0, abs=1e-14)
    assert np.linalg.norm(found.mean[:10] - 1) < 0.2


def test_float32_and_torch() -> None:
    x, _ = figure_sample(3000, 10, 0.1)
    exact = filter_mean(x, 0.1)
    single = filter_mean(x.astype(np.float32), 0.1)
    assert single.mean.dtype == np.float32
    np.testing.assert_allclose(single.mean, exact.mean, atol=1e-5)
    tensor = filter_mean(torch.from_numpy(x), 0.1)
    assert isinstance(tensor.mean, torch.Tensor)
    assert isinstance(tensor.weights, torch.Tensor)
    assert tensor.mean.dtype == torch.float64
    np.testing.assert_array_equal(tensor.mean.numpy(), exact.mean)


def test_refusals() -> None:
    x = np.ones((10, 2))
    for contamination in (-0.1, 0.5, float("nan")):
        with pytest.raises(ValueError, match="contamination must lie in"):
            filter_mean(x, contamination)
    for sigma in (0.0, -1.0, float("inf"), float("nan")):
        with pytest.raises(ValueError, match="sigma must be positive and finite"):
            filter_mean(x, 0.1, sigma)
    with pytest.raises(ValueError, match=r"n=2 rows and f=1"):
        filter_mean(x[:2], 0.5 - 1e-10)
    x[3, 1] = np.nan
    with pytest.raises(ValueError, match=r"x must be finite, rows \[3\]"):
        filter_mean(x, 0.1)
