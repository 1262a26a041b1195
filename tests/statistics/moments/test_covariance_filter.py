import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.covariance import MinCovDet

from fedrobust.seeds import numpy_generator
from fedrobust.statistics import filter_covariance
from fedrobust.statistics.moments.covariance_filter import covariance_samples

Floats = NDArray[np.float64]


def covariance_of_condition(condition: float, d: int, generator: np.random.Generator) -> Floats:
    basis = np.linalg.qr(generator.standard_normal((d, d)))[0]
    return basis * np.geomspace(1, condition, d) @ basis.T


def relative_error(estimate: Floats, covariance: Floats) -> float:
    """‖Σ^{-½}SΣ^{-½} - I‖_F."""
    root = np.linalg.cholesky(covariance)
    whitened = np.linalg.solve(root, np.linalg.solve(root, estimate).T)
    return float(np.linalg.norm(whitened - np.eye(len(covariance))))


def sample(n: int, d: int, num_outliers: int, adversary: str, seed: int = 0) -> tuple[Floats, Floats, Floats]:
    """A contaminated sample with the outliers first, its covariance, and the good points alone."""
    generator = numpy_generator(seed, "covariance", adversary)
    covariance = covariance_of_condition(100, d, generator)
    points = generator.standard_normal((n, d))
    direction = generator.standard_normal(d)
    direction /= np.linalg.norm(direction)
    m = num_outliers
    if adversary == "far":
        points[:m] = 1000 * direction + generator.standard_normal((m, d))
    elif adversary == "shell":  # at the radius of good points, to both sides
        points[:m] = np.sqrt(d) * direction * generator.choice([-1.0, 1.0], (m, 1))
    elif adversary == "constant":
        points[:m] = 4.0 * direction
    elif adversary == "zeros":
        points[:m] = 0.0
    elif adversary == "inflate":
        points[:m] *= 3
    elif adversary == "masking":  # gross ones that hide subtle ones
        points[:m] = 4 * direction
        points[: m // 10] = 1e5 * generator.standard_normal((m // 10, d))
    elif adversary == "beyond float64":
        points[:m] = 1e12 * direction + generator.standard_normal((m, d))
    points = points @ np.linalg.cholesky(covariance).T
    return points, covariance, points[m:]


@pytest.mark.parametrize("d", [10, 30])
def test_clean_data_lose_nothing(d: int) -> None:
    """On clean data the answer is the sample's second moment, NumPy's, to the last few bits."""
    points, _, _ = sample(20_000, d, 0, "none")
    result = filter_covariance(points, 0.05)
    assert (result.weights == 1).all()
    np.testing.assert_allclose(result.covariance, points.T @ points / len(points), rtol=1e-12, atol=1e-12)
    assert [step.removed for step in result.iterations] == [0]


@pytest.mark.parametrize(("n", "d"), [(400, 1), (800, 2), (1000, 10), (2000, 15)])
def test_never_worse_than_the_sample_covariance_on_clean_data(n: int, d: int) -> None:
    """At most one of 20 clean samples may lose points (the limits are made for 0.001), and then hardly in error."""
    num_touched = 0
    for seed in range(20):
        points, covariance, _ = sample(n, d, 0, "none", seed)
        result = filter_covariance(points, 0.1)
        num_touched += int((result.weights == 0).any())
        plain = relative_error(points.T @ points / n, covariance)
        assert relative_error(result.covariance, covariance) < plain + 0.01
        assert (result.weights == 0).sum() <= 0.01 * n
    assert num_touched <= 1


@pytest.mark.parametrize("adversary", ["far", "shell", "constant", "zeros", "inflate", "masking", "beyond float64"])
def test_adversaries(adversary: str) -> None:
    """In excess of the error of the good points alone, by NumPy: 0.05, where the sample covariance has 0.09 to 1e23."""
    points, covariance, good = sample(20_000, 10, 1000, adversary)
    result = filter_covariance(points, 0.05)
    inliers = relative_error(good.T @ good / len(good), covariance)
    assert relative_error(result.covariance, covariance) < inliers + 0.05
    assert relative_error(points.T @ points / len(points), covariance) > inliers + 0.08
    assert (result.weights == 0).sum() <= 2000
    assert (result.weights[1000:] == 0).mean() < 0.01


def test_beside_scikit_learn() -> None:
    """At 10 % of far outliers scikit-learn's MinCovDet and the filter both come close; the filter comes closer."""
    points, covariance, _ = sample(4000, 5, 400, "far")
    # It centres, where the filter is told that the mean is zero: a difference of the order of 1/N.
    theirs = relative_error(MinCovDet(random_state=0).fit(points).covariance_, covariance)
    ours = relative_error(filter_covariance(points, 0.1).covariance, covariance)
    assert theirs < 0.3
    assert ours < theirs


def test_affine_equivariance() -> None:
    """Σ̂(XAᵀ) = A Σ̂(X) Aᵀ, and the same points are kept."""
    points, _, _ = sample(8000, 12, 400, "inflate")
    generator = numpy_generator(1, "transformation")
    matrix = generator.standard_normal((12, 12)) + 3 * np.eye(12)
    plain, mapped = filter_covariance(points, 0.05), filter_covariance(points @ matrix.T, 0.05)
    assert (plain.weights == 0).sum() > 100
    assert (plain.weights == mapped.weights).all()
    expected = matrix @ plain.covariance @ matrix.T
    assert np.linalg.norm(mapped.covariance - expected) < 1e-12 * np.linalg.norm(expected)


def test_order_of_the_points_does_not_matter() -> None:
    points, _, _ = sample(5000, 6, 250, "constant")
    order = numpy_generator(0, "order").permutation(len(points))
    plain, shuffled = filter_covariance(points, 0.05), filter_covariance(points[order], 0.05)
    np.testing.assert_allclose(shuffled.covariance, plain.covariance, rtol=1e-12, atol=1e-12)
    assert (shuffled.weights == plain.weights[order]).all()


def test_no_contamination_gives_the_second_moment() -> None:
    """XᵀX/N by NumPy, also where N < d and where a column is constant."""
    generator = numpy_generator(0, "few")
    for n, d in ((50, 3), (5, 8), (1, 1)):
        points = generator.standard_normal((n, d))
        points[:, 0] = 2.0
        result = filter_covariance(points, 0.0)
        np.testing.assert_allclose(result.covariance, points.T @ points / n, rtol=1e-12, atol=1e-12)
        assert (result.weights == 1).all()


def test_one_dimension() -> None:
    """N(0, 4) with 5 % at 100: the variance of the good points, within 5 %."""
    points = 2 * numpy_generator(0, "line").standard_normal((5000, 1))
    points[:250] = 100.0
    result = filter_covariance(points, 0.05)
    assert float(result.covariance[0, 0]) == pytest.approx(float((points[250:] ** 2).mean()), rel=0.05)
    assert (result.weights[:250] == 0).all()


def test_columns_without_spread_are_named() -> None:
    points = numpy_generator(0, "degenerate").standard_normal((500, 4))
    zero = points.copy()
    zero[:, 2] = 0
    with pytest.raises(ValueError, match=r"no spread in columns \[2\]"):
        filter_covariance(zero, 0.1)
    points[:, 3] = points[:, 0] + points[:, 1]
    with pytest.raises(ValueError, match="4 columns of rank 3"):
        filter_covariance(points, 0.1)


def test_a_constant_column_that_is_not_zero_has_a_second_moment() -> None:
    """The mean is taken to be zero, so a column of ones is a direction like others: nothing fails, nothing is lost."""
    points = numpy_generator(0, "ones").standard_normal((2000, 3))
    points[:, 1] = 1.0
    result = filter_covariance(points, 0.05)
    assert float(result.covariance[1, 1]) == pytest.approx(1, abs=0.05)


def test_too_few_points_are_refused_with_the_number_needed() -> None:
    needed = covariance_samples(10, 0.1)
    points = numpy_generator(0, "few").standard_normal((needed, 10))
    filter_covariance(points, 0.1)
    with pytest.raises(ValueError, match=f"at least {needed} rows for d=10 and contamination=0.1, got {needed - 1}"):
        filter_covariance(points[1:], 0.1)
    with pytest.raises(ValueError, match="from 1/3 on"):
        filter_covariance(points, 0.34)


def test_number_needed_shows_a_far_cluster() -> None:
    """With just the N that is asked for, a far cluster of mass ε is found, to the last point."""
    for d, contamination in ((10, 0.1), (10, 0.2), (20, 0.15)):
        n = covariance_samples(d, contamination)
        num_outliers = int(contamination * n)
        points, _, _ = sample(n, d, num_outliers, "far")
        weights = filter_covariance(points, contamination).weights
        assert (weights[:num_outliers] == 0).all()


def test_torch_single_precision_and_non_contiguous() -> None:
    points, _, _ = sample(4000, 6, 200, "constant")
    wide = filter_covariance(points, 0.05)
    narrow = filter_covariance(torch.from_numpy(points).float(), 0.05)
    assert isinstance(narrow.covariance, torch.Tensor)
    assert narrow.covariance.dtype == torch.float32
    np.testing.assert_allclose(narrow.covariance.numpy(), wide.covariance, rtol=1e-4, atol=1e-4)
    turned = filter_covariance(np.asfortranarray(points)[::-1][::-1], 0.05)
    assert (turned.weights == wide.weights).all()
    assert "stops at" in wide.summary()


def test_same_seed_same_bits_and_the_bar_changes_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    points, _, _ = sample(3000, 5, 150, "inflate")
    first, second = filter_covariance(points, 0.05, seed=3), filter_covariance(points, 0.05, seed=3, progress=True)
    assert (first.covariance == second.covariance).all()
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "points removed" in captured.err
    filter_covariance(points, 0.05, seed=3)
    assert capsys.readouterr().err == ""
