"""Who is told too little must not fall back to the plain mean: outliers that are alike leave together.

No theorem holds for more outliers than assumed. What is asked for is what the filters' loops give without a budget: as
long as outliers are the fewer and stand together, the answer is within the good points' own spread.
"""

import logging
from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from fedrobust.aggregators import NoRegretFilter, RandomisedSever, SpectralFilter
from fedrobust.seeds import numpy_generator
from fedrobust.statistics import (
    bounded_covariance_mean,
    covariance_agnostic_mean,
    filter_covariance,
    filter_mean,
)

Array = NDArray[np.float64]


def with_group(n: int, d: int, num_bad: int, jitter: float, distance: float) -> Array:
    """Standard normal rows; the first `num_bad` stand at `distance` in every coordinate, but for a `jitter`."""
    x = numpy_generator(0, "group", n, d, num_bad).standard_normal((n, d))
    x[:num_bad] = distance + jitter * x[:num_bad]
    return x


def soft(direction: str) -> Callable[[Array, float], Array]:
    def answer(x: Array, told: float) -> Array:
        rule = SpectralFilter(assumed_fraction=told, direction=direction)  # type: ignore[arg-type]
        return rule(torch.from_numpy(x)).update.numpy()

    return answer


METHODS: dict[str, Callable[[Array, float], Array]] = {
    "spectral filter": soft("top"),
    "spectral filter, entropy": soft("quantum_entropy"),
    "spectral filter, sigma": lambda x, told: SpectralFilter(assumed_fraction=told, sigma=1.5)(
        torch.from_numpy(x)
    ).update.numpy(),
    "no-regret filter": lambda x, told: NoRegretFilter(assumed_fraction=told)(torch.from_numpy(x)).update.numpy(),
    "randomised Sever": lambda x, told: RandomisedSever(assumed_fraction=told)(torch.from_numpy(x)).update.numpy(),
    "CAF": lambda x, told: covariance_agnostic_mean(x, told).mean,
    "CAF, entropy": lambda x, told: covariance_agnostic_mean(x, told, direction="quantum_entropy").mean,
    "bounded covariance": lambda x, told: bounded_covariance_mean(x, told, 1.5).mean,
}


@pytest.mark.parametrize(
    ("n", "num_bad", "told"),
    [
        (10, 2, 0.1),
        (10, 2, 0.19),
        (10, 4, 0.1),
        (20, 7, 0.15),
        (30, 6, 0.1),
        (30, 13, 0.2),
        (100, 20, 0.1),
        (100, 46, 0.05),
    ],
)
@pytest.mark.parametrize("d", [3, 200])
@pytest.mark.parametrize(("jitter", "distance"), [(0.0, 1e6), (0.3, 1e3), (1.0, 300.0)])
@pytest.mark.parametrize("name", [name for name in METHODS if name != "no-regret filter"])
def test_a_group_larger_than_the_budget_leaves_as_one(
    name: str, jitter: float, distance: float, d: int, n: int, num_bad: int, told: float
) -> None:
    """At most the farthest good point from the good mean, though a part of 1/n of the group would move it by more."""
    x = with_group(n, d, num_bad, jitter, distance)
    good = x[num_bad:]
    answer = METHODS[name](x, told)
    radius = np.linalg.norm(good - good.mean(axis=0), axis=1).max()
    assert distance * d**0.5 / n > radius
    assert np.linalg.norm(answer - good.mean(axis=0)) < radius


@pytest.mark.parametrize(("n", "num_bad", "told"), [(10, 2, 0.1), (30, 6, 0.1), (100, 20, 0.1), (100, 40, 0.2)])
@pytest.mark.parametrize(("jitter", "distance"), [(0.0, 1e6), (1.0, 300.0)])
def test_the_no_regret_filter_stands_a_group_of_twice_what_it_is_told(
    n: int, num_bad: int, told: float, jitter: float, distance: float
) -> None:
    """Its caps keep n - 2f points in, whoever they are, so that it promises nothing against more than 2f."""
    x = with_group(n, 200, num_bad, jitter, distance)
    good = x[num_bad:]
    answer = METHODS["no-regret filter"](x, told)
    assert np.linalg.norm(answer - good.mean(axis=0)) < np.linalg.norm(good - good.mean(axis=0), axis=1).max()


def test_the_exact_truth_about_the_population_is_too_little_for_a_sample() -> None:
    """10 of 100 clients are malicious, 10 are sampled, f = 1: up to four in a round, and none of them gets in."""
    for num_bad in range(5):
        x = with_group(10, 500, num_bad, 1.0, 50.0)
        good = x[num_bad:].mean(axis=0)
        answer = SpectralFilter(assumed_fraction=0.1)(torch.from_numpy(x)).update.numpy()
        assert np.linalg.norm(answer - good) < np.linalg.norm(x[num_bad:] - good, axis=1).max()


@pytest.mark.parametrize(("n", "d"), [(200, 5), (1000, 20)])
@pytest.mark.parametrize("fraction", [0.05, 0.2, 0.3])
@pytest.mark.parametrize("part", [0.25, 0.34, 0.5])
@pytest.mark.parametrize("jitter", [0.0, 0.1])
def test_filter_mean_told_a_part_of_the_truth(n: int, d: int, fraction: float, part: float, jitter: float) -> None:
    """Within 2 standard errors of d coordinates of the good points' own mean error, √(d/N), plus ε√ln(1/ε)."""
    num_bad = int(fraction * n)
    x = with_group(n, d, num_bad, jitter, 1000.0)
    error = np.linalg.norm(filter_mean(x, part * fraction).mean - x[num_bad:].mean(axis=0))
    assert error < 2 * (d / n) ** 0.5 + fraction * np.log(1 / fraction) ** 0.5


@pytest.mark.parametrize(("fraction", "part"), [(0.05, 0.25), (0.05, 0.5), (0.1, 0.34), (0.1, 0.5)])
def test_filter_covariance_told_a_part_of_the_truth(fraction: float, part: float) -> None:
    """The spectral norm of the error is below 0.5, where outliers at 1000 in 1 % of the rows would make it 10⁴."""
    n, d = 4000, 4
    num_bad = int(fraction * n)
    x = with_group(n, d, num_bad, 0.1, 1000.0)
    assert np.linalg.norm(filter_covariance(x, part * fraction).covariance - np.eye(d), 2) < 0.5


def test_two_groups_of_honest_points_are_not_taken_for_outliers(caplog: pytest.LogCaptureFixture) -> None:
    """All good points are equally far out along the top direction, the bad ones at rest in it: nobody may leave.

    The bad stand aside, so that a step without a second look would leave them alone, at variance 0.
    """
    x = torch.zeros(20, 5, dtype=torch.float64)
    x[:9, 0], x[9:18, 0], x[18:, 1] = 1.0, -1.0, 2.0
    with caplog.at_level(logging.WARNING, "fedrobust"):
        answer = SpectralFilter(assumed_fraction=0.1)(x)
    assert answer.diagnostics["num_refused"] == 1
    assert torch.allclose(answer.update, x.mean(dim=0))
    (record,) = caplog.records
    assert "last step was not taken" in record.getMessage()


@pytest.mark.parametrize(("n", "num_bad", "told"), [(10, 2, 0.1), (30, 6, 0.1), (100, 40, 0.1)])
def test_a_budget_that_is_exceeded_is_said_once_and_is_in_the_diagnostics(
    n: int, num_bad: int, told: float, caplog: pytest.LogCaptureFixture
) -> None:
    x = torch.from_numpy(with_group(n, 50, num_bad, 0.0, 100.0))
    with caplog.at_level(logging.WARNING, "fedrobust"):
        answer = SpectralFilter(assumed_fraction=told)(x)
        found = covariance_agnostic_mean(x, told)
    assert len(caplog.records) == 2
    assert all("more seem to be malicious" in record.getMessage() for record in caplog.records)
    beyond = num_bad - 2 * int(told * n)
    assert answer.diagnostics["removed_beyond_budget"] >= beyond
    assert found.details["removed_beyond_budget"] >= beyond


def test_an_estimate_that_stops_too_early_says_so(caplog: pytest.LogCaptureFixture) -> None:
    """Outliers on both sides of two axes, as many on one axis as the budget: the others are seen, and not removed."""
    x = with_group(1000, 5, 40, 0.0, 0.0)
    x[:10, 0], x[10:20, 0], x[20:30, 1], x[30:40, 1] = 9000.0, -9000.0, 3000.0, -3000.0
    with caplog.at_level(logging.WARNING, "fedrobust"):
        filter_mean(x, 0.008)
    (record,) = caplog.records
    assert "all of the budget" in record.getMessage()


def test_no_budget_removes_nothing() -> None:
    x = with_group(50, 5, 20, 0.0, 1000.0)
    assert covariance_agnostic_mean(x, 0.0).mean == pytest.approx(x.mean(axis=0))
