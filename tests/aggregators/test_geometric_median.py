import math

import numpy as np
import pytest
import scipy.optimize
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedrobust._linalg.columns import Shards
from fedrobust.aggregators.geometric_median import GeometricMedian
from fedrobust.config.component import FieldError
from fedrobust.seeds import torch_generator

Array = NDArray[np.float64]


def sample(n: int, d: int, num_shifted: int = 0) -> Tensor:
    points = torch.randn(n, d, generator=torch_generator(0, "median", n, d), dtype=torch.float64)
    points[n - num_shifted :] += 5.0
    return points


def objective(z: Array, points: Array, masses: Array) -> float:
    return float(masses @ np.linalg.norm(points - z, axis=1))


def minimise(points: Array, masses: Array) -> Array:
    """The minimum of the objective in d dimensions by quasi-Newton steps with its gradient."""

    def gradient(z: Array) -> Array:
        differences = z - points
        return (masses / np.maximum(np.linalg.norm(differences, axis=1), 1e-300)) @ differences

    def function(z: Array) -> float:
        return objective(z, points, masses)

    start = np.median(points, axis=0)
    result = scipy.optimize.minimize(function, start, jac=gradient, method="BFGS", options={"gtol": 1e-10})
    found: Array = result.x
    return found


def spread(points: Tensor) -> float:
    return float((points - points.mean(dim=0)).norm(dim=1).median())


@pytest.mark.parametrize(("n", "d", "num_shifted"), [(4, 2, 0), (5, 3, 1), (10, 40, 3), (30, 6, 12), (100, 3, 20)])
@pytest.mark.parametrize("weighted", [False, True])
def test_minimises_the_weighted_sum_of_distances(n: int, d: int, num_shifted: int, weighted: bool) -> None:
    """Smoothing adds at most ν/2 to the objective, ν being 1e-6 of the spread. The first is slow: a client is near."""
    points = sample(n, d, num_shifted)
    weights = torch.ones(n, dtype=torch.float64)
    if weighted:
        weights += torch.rand(n, generator=torch_generator(1, n), dtype=torch.float64)
    masses = (weights / weights.sum()).numpy()
    exact = minimise(points.numpy(), masses)
    answer = GeometricMedian(tolerance=1e-16, max_iterations=3000)(points, weights)
    assert np.linalg.norm(answer.update.numpy() - exact) <= 1e-5 * spread(points)
    assert answer.diagnostics["objective"] == pytest.approx(objective(exact, points.numpy(), masses), rel=0, abs=0.5e-6)
    default = GeometricMedian()(points, weights).update.numpy()
    assert objective(default, points.numpy(), masses) <= objective(exact, points.numpy(), masses) + 1e-6
    assert answer.scores is not None
    np.testing.assert_allclose(answer.scores.numpy(), np.linalg.norm(points.numpy() - exact, axis=1), atol=1e-4)


def test_the_corners_of_an_equilateral_triangle() -> None:
    """All angles are below 120°, and by symmetry the Fermat point is the centroid."""
    corners = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.5, math.sqrt(0.75)]], dtype=torch.float64)
    answer = GeometricMedian()(corners + 10.0)
    np.testing.assert_allclose(answer.update.numpy(), [10.5, 10 + math.sqrt(0.75) / 3], atol=1e-12)
    assert answer.diagnostics["objective"] == pytest.approx(math.sqrt(1 / 3))


def test_an_angle_of_more_than_120_degrees_is_itself_the_median() -> None:
    corners = torch.tensor([[-1.0, 0.1], [0.0, 0.0], [1.0, 0.1]], dtype=torch.float64)
    np.testing.assert_allclose(GeometricMedian()(corners).update.numpy(), [0.0, 0.0], atol=1e-5)


def test_on_a_line_it_is_the_median() -> None:
    direction = torch.tensor([1.0, 2.0, -2.0], dtype=torch.float64)
    answer = GeometricMedian()(torch.tensor([-7.0, 0.0, 1.0, 2.0, 50.0])[:, None] * direction)
    torch.testing.assert_close(answer.update, direction, rtol=0, atol=1e-4)


def test_a_start_on_a_client_that_is_not_the_median_is_left() -> None:
    """The mean of 0, -1, -1, -1, 3 is the first of them, the median -1."""
    answer = GeometricMedian()(torch.tensor([[0.0], [-1.0], [-1.0], [-1.0], [3.0]], dtype=torch.float64))
    assert answer.update.item() == pytest.approx(-1.0, abs=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("distance", [0.0, 3.0])
def test_a_client_of_more_than_half_the_weight_is_the_median(dtype: torch.dtype, distance: float) -> None:
    """Distances to it go to zero while its neighbours' do not: where K_ii - 2(Kw)_i + wᵀKw cancels."""
    points = (sample(10, 1000) + distance).to(dtype)
    weights = torch.ones(10)
    weights[4] = 12.0
    answer = GeometricMedian()(points, weights)
    assert (answer.update - points[4]).norm() <= 1e-5 * spread(points)
    assert answer.shares is not None
    assert answer.shares[4] > 0.9999


@pytest.mark.parametrize("magnitude", [1e3, 1e6, 1e12])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_how_far_outliers_are_does_not_matter(magnitude: float, dtype: torch.dtype) -> None:
    """As the outlier goes to infinity its pull becomes a constant vector of length α, whose minimum BFGS finds."""
    points = sample(20, 6)
    direction = torch.nn.functional.normalize(torch.ones(6, dtype=torch.float64), dim=0).numpy()
    points[16:] = torch.from_numpy(magnitude * direction)
    honest = points[:16].numpy()

    def function(z: Array) -> float:
        return float(np.linalg.norm(honest - z, axis=1).sum() - 4 * direction @ z)

    def gradient(z: Array) -> Array:
        differences = z - honest
        return (differences / np.linalg.norm(differences, axis=1)[:, None]).sum(axis=0) - 4 * direction

    exact = scipy.optimize.minimize(function, honest.mean(axis=0), jac=gradient, options={"gtol": 1e-10}).x
    update = GeometricMedian()(points.to(dtype)).update.double().numpy()
    assert np.linalg.norm(update - exact) <= 10 / magnitude + 2e-5


def test_identical_clients_take_one_step() -> None:
    answer = GeometricMedian()(torch.ones(5, 3), torch.arange(5) + 1.0)
    torch.testing.assert_close(answer.update, torch.ones(3))
    assert answer.diagnostics == {"num_iterations": 1.0, "is_converged": 1.0, "objective": 0.0}
    assert answer.shares is not None
    torch.testing.assert_close(answer.shares, (torch.arange(5) + 1.0).double() / 15)


def test_smoothing_pulls_towards_the_mean() -> None:
    """Within ν of all clients φ(r) = r²/2ν + ν/2 is quadratic, and the minimum is the mean."""
    points = sample(7, 3, 2)
    answer = GeometricMedian(smoothing=100.0)(points)
    torch.testing.assert_close(answer.update, points.mean(dim=0))
    squared = (points - points.mean(dim=0)).square().sum(dim=1)
    nu = 100 * float(squared.median().sqrt())
    assert answer.diagnostics["objective"] == pytest.approx(float(squared.mean()) / (2 * nu) + nu / 2)


@pytest.mark.parametrize("scale", [1e-100, 1e-30, 1e-10, 1e-6, 1.0, 1e6, 1e30, 1e100])
@pytest.mark.parametrize(("n", "d", "num_shifted"), [(7, 3, 2), (30, 6, 12), (12, 80, 4)])
def test_the_unit_of_the_updates_does_not_matter(scale: float, n: int, d: int, num_shifted: int) -> None:
    """Against the minimum of the plain objective that BFGS finds in the unit 1; smoothing moves it by 1e-6 or so."""
    points = sample(n, d, num_shifted)
    exact = minimise(points.numpy(), np.full(n, 1 / n))
    answer = GeometricMedian()(points * scale)
    assert np.linalg.norm(answer.update.numpy() / scale - exact) <= 1e-5 * spread(points)
    assert answer.diagnostics["is_converged"] == 1.0


def test_the_iteration_stops_when_told() -> None:
    points = sample(30, 6, 12)
    masses = np.full(30, 1 / 30)
    x, z = points.numpy(), points.numpy().mean(axis=0)
    for _ in range(3):  # Weiszfeld's iteration in d dimensions
        pull = masses / np.linalg.norm(x - z, axis=1)
        z = pull @ x / pull.sum()
    answer = GeometricMedian(max_iterations=3)(points)
    np.testing.assert_allclose(answer.update.numpy(), z, atol=1e-12)
    assert answer.diagnostics["num_iterations"] == 3.0
    assert answer.diagnostics["is_converged"] == 0.0
    counts = [GeometricMedian(tolerance=t)(points).diagnostics["num_iterations"] for t in (1e-4, 1e-8, 1e-12)]
    assert 1 <= counts[0] < counts[1] < counts[2] < 1000


@pytest.mark.parametrize("distance", [0.0, 1e4])
def test_float32_agrees_with_float64_also_far_from_the_origin(distance: float) -> None:
    generator = torch_generator(2, "far")
    points = torch.randn(20, 200_000, generator=generator)
    points[:6] += 0.5 * torch.randn(200_000, generator=generator)
    points += distance * torch.randn(200_000, generator=generator)

    def weiszfeld(x: Tensor) -> Tensor:
        z = x.mean(dim=0)
        for _ in range(40):
            pull = 1 / (x - z).norm(dim=1)
            z = pull @ x / pull.sum()
        return z

    exact = weiszfeld(points.double())
    answer = GeometricMedian()(points)
    assert (answer.update.double() - exact).norm() <= 1e-6 * exact.norm()
    assert answer.scores is not None
    torch.testing.assert_close(answer.scores, (points.double() - exact).norm(dim=1), rtol=1e-5, atol=0)


def test_shards_give_the_same_answer() -> None:
    points = sample(15, 11, 3)
    rule = GeometricMedian()
    whole, sharded = rule(points), rule(Shards.split(points, ["cpu", "cpu"]))
    torch.testing.assert_close(sharded.update, whole.update, rtol=0, atol=1e-10)


def test_a_client_without_weight_does_not_count() -> None:
    points, weights = sample(6, 3), torch.tensor([1.0, 2.0, 1.0, 1.0, 1.0, 0.0])
    with_it, without = GeometricMedian()(points, weights), GeometricMedian()(points[:5], weights[:5])
    torch.testing.assert_close(with_it.update, without.update, rtol=0, atol=1e-9)


def test_bad_input_is_refused() -> None:
    with pytest.raises(FieldError, match="smoothing"):
        GeometricMedian(smoothing=0.0)
    with pytest.raises(FieldError, match="tolerance"):
        GeometricMedian(tolerance=0.0)
    with pytest.raises(FieldError, match="max_iterations"):
        GeometricMedian(max_iterations=0)
    points = sample(10, 4)
    points[3, 1] = torch.nan
    with pytest.raises(ValueError, match=r"rows \[3\]"):
        GeometricMedian()(points)
