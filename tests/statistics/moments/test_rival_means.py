import numpy as np
import pytest
import scipy.optimize
import torch
from numpy.typing import NDArray
from scipy.stats import ortho_group, trim_mean

from fedrobust._linalg.gram import gram_matrix
from fedrobust._linalg.weiszfeld import GramFrame, PointsFrame, weiszfeld
from fedrobust.seeds import numpy_generator
from fedrobust.statistics import coordinate_median, geometric_median, pruned_mean, trimmed_mean

Array = NDArray[np.float64]


def sample(n: int, d: int) -> Array:
    x = numpy_generator(0, n, d).standard_normal((n, d)) * np.linspace(1, 2, d)
    x[: n // 5] += 3.0
    return x


@pytest.mark.parametrize(("n", "d"), [(11, 3), (20, 1), (6, 40), (2500, 4), (2501, 2)])
def test_coordinate_wise_rivals_equal_numpy_and_scipy(n: int, d: int) -> None:
    x = sample(n, d)
    np.testing.assert_allclose(coordinate_median(x).mean, np.median(x, axis=0), atol=1e-15)
    for contamination in (0.0, 0.1, 0.3):
        expected = trim_mean(x, contamination, axis=0)
        np.testing.assert_allclose(trimmed_mean(x, contamination).mean, expected, atol=1e-14)


@pytest.mark.parametrize(("n", "d"), [(30, 4), (8, 20), (25, 1)])
def test_no_point_near_the_geometric_median_is_better(n: int, d: int) -> None:
    """SciPy's minimiser of the summed distance, from the mean."""
    x = sample(n, d)

    def objective(z: Array) -> float:
        return float(np.linalg.norm(x - z, axis=1).sum())

    best = scipy.optimize.minimize(objective, x.mean(axis=0), method="Powell", options={"xtol": 1e-10, "ftol": 1e-14})
    found = geometric_median(x)
    assert objective(found.mean) <= best.fun + 1e-6
    assert found.details["mean_distance"] == pytest.approx(objective(found.mean) / n, rel=1e-6)
    if d > 1:
        np.testing.assert_allclose(found.mean, best.x, atol=1e-3)


def test_the_geometric_median_is_the_same_from_the_gram_matrix_and_from_the_points() -> None:
    x = torch.from_numpy(sample(60, 8))
    masses = torch.full((60,), 1 / 60, dtype=torch.float64)
    limits = {"smoothing": 1e-6, "tolerance": 1e-14, "max_iterations": 200}
    gram = weiszfeld(GramFrame(gram_matrix(x).numpy()), masses, **limits)  # type: ignore[arg-type]
    direct = weiszfeld(PointsFrame(x), masses, **limits)  # type: ignore[arg-type]
    assert gram.num_iterations == direct.num_iterations
    torch.testing.assert_close(gram.weights, direct.weights, rtol=0, atol=1e-12)


def test_only_the_geometric_median_turns_with_the_points() -> None:
    """Outliers along the diagonal: coordinate-wise rules answer differently in other coordinates."""
    x = sample(200, 6)
    rotation = ortho_group.rvs(6, random_state=numpy_generator(1, "rotation"))
    np.testing.assert_allclose(geometric_median(x @ rotation).mean, geometric_median(x).mean @ rotation, atol=1e-10)
    for rule in (lambda values: coordinate_median(values).mean, lambda values: trimmed_mean(values, 0.2).mean):
        assert np.linalg.norm(rule(x @ rotation) - rule(x) @ rotation) > 0.05


def test_pruning_by_hand() -> None:
    """N = 5, d = 2: L = ln 50 = 3.912 and the radius √(2 + 2√(2L) + 2L) = 3.926, about the median (1, 0)."""
    x = np.array([[0.0, 0.0], [1.0, 0.0], [2.0, 0.0], [1.0, 3.9], [1.0, 4.0]])
    found = pruned_mean(x)
    assert found.details["radius"] == pytest.approx(3.926, abs=1e-3)
    assert found.weights.tolist() == [1.0, 1.0, 1.0, 1.0, 0.0]
    assert found.mean.tolist() == pytest.approx([1.0, 3.9 / 4])
    np.testing.assert_array_equal(pruned_mean(x * 8, sigma=8.0).weights, found.weights)
    with pytest.raises(ValueError, match=r"sigma=0\.001 is too small"):
        pruned_mean(x[[0, 0, 2, 2]], sigma=0.001)


@pytest.mark.parametrize("size", [1e3, 1e12])
def test_outliers_have_bounded_influence_however_far_out(size: float) -> None:
    x = numpy_generator(2, "far").standard_normal((500, 10))
    x[:50] = size
    for found in (coordinate_median(x), trimmed_mean(x, 0.1), geometric_median(x), pruned_mean(x)):
        assert np.linalg.norm(found.mean) < 2.0


def test_plain_cases() -> None:
    x = sample(40, 5)
    rules = (coordinate_median, lambda values: trimmed_mean(values, 0.2), geometric_median, pruned_mean)
    for rule in rules:
        np.testing.assert_allclose(rule(x[:1]).mean, x[0], atol=1e-14)
        np.testing.assert_allclose(rule(np.full((9, 3), 0.1)).mean, [0.1] * 3, atol=1e-15)
        np.testing.assert_allclose(rule(x + 100).mean, rule(x).mean + 100, atol=1e-9)
        single = rule(torch.from_numpy(x).float())
        assert single.mean.dtype == torch.float32
        np.testing.assert_allclose(single.mean.numpy(), rule(x).mean, atol=1e-5)
        with pytest.raises(ValueError, match="x must be finite"):
            rule(np.array([[np.nan], [1.0]]))


def test_refusals() -> None:
    with pytest.raises(ValueError, match="contamination must lie in"):
        trimmed_mean(np.ones((10, 2)), 0.5)
    with pytest.raises(ValueError, match="max_iterations must be at least 1"):
        geometric_median(np.ones((10, 2)), max_iterations=0)
    with pytest.raises(ValueError, match="smoothing must be positive"):
        geometric_median(np.ones((10, 2)), smoothing=0)
