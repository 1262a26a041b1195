import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.optimize import brentq

from fedrobust._linalg.columns import Shards
from fedrobust.aggregators import Mean
from fedrobust.aggregators.no_regret_filter import NoRegretFilter
from fedrobust.config.component import FieldError
from fedrobust.seeds import torch_generator

Array = NDArray[np.float64]


def project(weights: Array, cap: float) -> Array:
    """KL-projection by a root search for the multiplier."""
    if np.isclose((weights > 0).sum() * cap, 1):
        return np.where(weights > 0, cap, 0.0)
    multiplier = brentq(lambda m: np.minimum(cap, m * weights).sum() - 1, 0, 1e6, xtol=1e-14)
    return np.minimum(cap, multiplier * weights)


def direct_filter(points: Array, f: int, num_iterations: int, step_size: float) -> Array:
    """Prune, multiply, project, in d dimensions with `np.cov`; the first within 10 % of the smallest variance."""
    n = len(points)
    cap = 1 / (n - 2 * f)
    distances = np.array([[np.linalg.norm(a - b) for b in points] for a in points])
    radii = np.sort(distances, axis=1)[:, n - f - 1]
    near = distances[radii.argmin()] <= 5 * radii.min()
    weights = near / near.sum()
    seen: list[tuple[float, Array]] = []
    for _ in range(num_iterations + 1):
        values, vectors = np.linalg.eigh(np.atleast_2d(np.cov(points.T, aweights=weights, bias=True)))
        seen.append((values[-1], weights))
        projections = ((points - np.average(points, axis=0, weights=weights)) @ vectors[:, -1]) ** 2
        weights = weights * (1 - step_size * projections / projections[weights > 0].max())
        weights = project(np.where(weights > 0, weights, 0.0), cap)
        weights = project(np.where(weights >= cap / (2 * n), weights, 0.0), cap)
    smallest = min(value for value, _ in seen)
    return next(weights for value, weights in seen if value <= 1.1 * smallest)


@pytest.mark.parametrize(("n", "d", "f"), [(10, 40, 2), (30, 12, 6), (40, 1, 4), (7, 3, 1), (160, 5, 32)])
@pytest.mark.parametrize("step_size", [0.5, 0.2])
def test_equals_the_filter_in_d_dimensions(n: int, d: int, f: int, step_size: float) -> None:
    """Twelve steps: later the top eigenvalues are nearly equal and rounding decides between their directions."""
    points = torch.randn(n, d, generator=torch_generator(0, n, d), dtype=torch.float64)
    points[:f] += 4.0
    points[: f // 2] *= 20.0
    weights = torch.rand(n, generator=torch_generator(1, n), dtype=torch.float64)
    left = direct_filter(points.numpy(), f, 12, step_size)
    answer = NoRegretFilter(assumed_fraction=f / n, num_iterations=12, step_size=step_size)(points, weights)
    assert answer.shares is not None
    shares = left * weights.numpy()
    shares /= shares.sum()
    np.testing.assert_allclose(answer.shares.numpy(), shares, atol=1e-8)
    np.testing.assert_allclose(answer.update.numpy(), shares @ points.numpy(), atol=1e-6)


def test_one_step_by_hand() -> None:
    """Values 0, 0, 1, 3 and f = 1: no point is far, the mean is 1, τ = 1, 1, 0, 4, and the cap 1/2.

    One step with η = 1/2 gives 7/8, 7/8, 1, 1/2 over 26/8: mean 10/13, variance 22/13 - (10/13)² instead of 1.5.
    """
    points = torch.tensor([[0.0], [0.0], [1.0], [3.0]], dtype=torch.float64)
    answer = NoRegretFilter(assumed_fraction=0.25, num_iterations=1)(points)
    assert answer.shares is not None
    assert answer.scores is not None
    assert answer.shares.tolist() == pytest.approx([7 / 26, 7 / 26, 8 / 26, 4 / 26])
    assert answer.update.item() == pytest.approx(10 / 13)
    assert answer.diagnostics["first_top_eigenvalue"] == pytest.approx(1.5)
    assert answer.diagnostics["top_eigenvalue"] == pytest.approx(22 / 13 - (10 / 13) ** 2)
    # then τ is 10², 10², 3² and 29² over 13²
    assert answer.scores.tolist() == pytest.approx([1 / 4 + 100 / 841, 1 / 4 + 100 / 841, 9 / 841, 2])


def test_no_client_has_more_than_its_cap() -> None:
    points = torch.randn(20, 3, generator=torch_generator(2, "cap"), dtype=torch.float64).exp()
    answer = NoRegretFilter(assumed_fraction=0.2)(points)
    assert answer.shares is not None
    assert float(answer.shares.max()) <= 1 / 12 + 1e-12


def test_clean_data_are_averaged() -> None:
    """Two equal clusters: τ is the same for all, a step changes nothing, and the first weighting is the uniform one."""
    points = torch.tensor([[-1.0], [-1.0], [-1.0], [1.0], [1.0], [1.0]])
    answer = NoRegretFilter(assumed_fraction=0.2)(points)
    assert torch.equal(answer.update, Mean()(points).update)


def test_attackers_in_many_directions_are_filtered() -> None:
    """Ten attackers, each with a direction of its own, near enough to escape pruning (at five radii of about 10)."""
    points = torch.randn(100, 50, generator=torch_generator(3, "directions"), dtype=torch.float64)
    for attacker in range(10):
        points[attacker, attacker] += 30.0
    answer = NoRegretFilter(assumed_fraction=0.1)(points)
    assert answer.shares is not None
    assert float(answer.shares[:10].sum()) < 0.02


def test_float32_far_from_the_origin_agrees_with_float64() -> None:
    points = torch.randn(12, 200_000, generator=torch_generator(4, "far"))
    points[:2] += 0.5
    points += 1e4 * torch.randn(200_000, generator=torch_generator(5, "origin"))
    exact, found = NoRegretFilter(assumed_fraction=0.2)(points.double()), NoRegretFilter(assumed_fraction=0.2)(points)
    assert exact.shares is not None
    assert found.shares is not None
    assert exact.diagnostics["num_steps"] > 0
    torch.testing.assert_close(found.shares, exact.shares, rtol=0, atol=1e-5)
    assert (found.update.double() - exact.update).norm() <= 1e-5 * exact.update.norm()


def test_shards_give_the_same_answer() -> None:
    points = torch.randn(20, 101, generator=torch_generator(6, "shards"), dtype=torch.float64)
    points[:3] += 2.0
    rule = NoRegretFilter(assumed_fraction=0.2)
    torch.testing.assert_close(rule(Shards.split(points, ["cpu", "cpu"])).update, rule(points).update)


@pytest.mark.parametrize(
    ("field", "value"), [("num_iterations", 0), ("step_size", 0.0), ("step_size", 0.6), ("assumed_fraction", 0.5)]
)
def test_parameters_out_of_range_are_refused(field: str, value: float) -> None:
    parameters = {"assumed_fraction": 0.2, field: value}
    with pytest.raises(FieldError, match=field):
        NoRegretFilter(**parameters)


def test_weight_on_filtered_clients_only_is_refused() -> None:
    points = torch.tensor([[0.0], [0.0], [0.0], [4.0]])
    with pytest.raises(ValueError, match="every client of positive weight was filtered"):
        NoRegretFilter(assumed_fraction=0.25)(points, torch.tensor([0.0, 0.0, 0.0, 1.0]))
