"""The geometric median of many rows from passes over them, and what it does when these are too many."""

import numpy as np
import pytest
import scipy.optimize
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedrobust._linalg import weiszfeld
from fedrobust._linalg.columns import Shards
from fedrobust._linalg.gram import weighted_combination
from fedrobust._linalg.kernels import block_sums
from fedrobust._linalg.weiszfeld import geometric_median_weights
from fedrobust.seeds import torch_generator

EXACT = {"smoothing": 1e-6, "tolerance": 1e-12, "max_iterations": 1000}


@pytest.fixture(params=["passes", "both", "gram"])
def way(request, monkeypatch):
    """Passes only; one pass, then the Gram matrix; the Gram matrix alone."""
    monkeypatch.setattr(block_sums, "_WORTH_COMPILING", 0)
    monkeypatch.setattr(weiszfeld, "_FEWEST_PASSES", 1)
    rows_a_pass = {"passes": 1, "both": 20, "gram": 10**9}[request.param]
    monkeypatch.setattr(weiszfeld, "_ROWS_A_PASS", rows_a_pass)
    return request.param


def sample(n: int, d: int) -> Tensor:
    points = torch.randn(n, d, generator=torch_generator(0, "passes", n, d))
    points[n - n // 5 :] += 3.0
    return points


def minimise(points: NDArray[np.float64], masses: NDArray[np.float64]) -> NDArray[np.float64]:
    """The minimum of Σ αᵢ‖xᵢ - z‖ by quasi-Newton steps in d dimensions."""

    def function(z: NDArray[np.float64]) -> float:
        return float(masses @ np.linalg.norm(points - z, axis=1))

    def gradient(z: NDArray[np.float64]) -> NDArray[np.float64]:
        differences = z - points
        return (masses / np.linalg.norm(differences, axis=1)) @ differences

    return scipy.optimize.minimize(
        function, points.mean(axis=0), jac=gradient, method="BFGS", options={"gtol": 1e-10}
    ).x


@pytest.mark.parametrize("distance", [0.0, 1e3])
def test_every_way_finds_the_minimum(way, distance):
    """Against BFGS in d dimensions, to 1e-5 of the spread; with unequal masses, near the origin and far from it."""
    points = sample(30, 40) + distance
    masses = torch.rand(30, generator=torch_generator(1), dtype=torch.float64) + 0.5
    masses /= masses.sum()
    found = geometric_median_weights(points, masses, **EXACT)
    wide = points.double().numpy()
    exact = minimise(wide, masses.numpy())
    spread = np.median(np.linalg.norm(wide - exact, axis=1))
    assert np.linalg.norm(found.weights.numpy() @ wide - exact) <= 1e-5 * spread
    np.testing.assert_allclose(found.distances.numpy(), np.linalg.norm(wide - exact, axis=1), rtol=1e-5)
    assert found.is_converged
    assert found.num_iterations > 1


def test_every_way_counts_the_same_iterations(way):
    """As many as the formula applied in d dimensions needs until its stopping rule holds; and stops when told."""
    points = sample(40, 200)
    masses = torch.full((40,), 1 / 40, dtype=torch.float64)
    wide = points.double().numpy()
    centres, stops = [wide.mean(axis=0)], False
    while not stops:
        distances = np.linalg.norm(wide - centres[-1], axis=1)
        pull = 1 / 40 / distances
        centres.append(pull @ wide / pull.sum())
        decrease = pull.sum() * ((centres[-1] - centres[-2]) ** 2).sum() / 2
        stops = decrease <= 1e-12 * np.sort(distances)[19]
    found = geometric_median_weights(points, masses, **EXACT)
    assert (found.num_iterations, found.is_converged) == (len(centres) - 1, True)
    np.testing.assert_allclose(found.weights.numpy() @ wide, centres[-1], atol=1e-6)
    found = geometric_median_weights(points, masses, smoothing=1e-6, tolerance=1e-12, max_iterations=3)
    assert (found.num_iterations, found.is_converged) == (3, False)
    np.testing.assert_allclose(found.weights.numpy() @ wide, centres[3], atol=1e-6)


@pytest.mark.parametrize("share", [0.55, 0.9])
@pytest.mark.parametrize("far", [1.0, 1e12])
def test_copies_that_are_more_than_half_are_the_median(way, share, far):
    """By definition; Weiszfeld's steps come nearer and nearer, by a part that is not far from 1 at 0.55."""
    points = sample(40, 60).double() * far
    points[: round(40 * share)] = torch.randn(60, generator=torch_generator(2, "copy"), dtype=torch.float64)
    found = geometric_median_weights(points, torch.full((40,), 1 / 40, dtype=torch.float64), **EXACT)
    assert found.is_converged
    assert float((weighted_combination(points, found.weights) - points[0]).norm()) <= 1e-7 * float(points[0].norm())


def test_shards_and_a_row_that_is_not_finite(way):
    points = sample(30, 100)
    masses = torch.full((30,), 1 / 30, dtype=torch.float64)
    whole = geometric_median_weights(points, masses, **EXACT)
    sharded = geometric_median_weights(Shards.split(points, ["cpu", "cpu"]), masses, **EXACT)
    torch.testing.assert_close(sharded.weights, whole.weights, rtol=1e-6, atol=0)
    points[3, 7] = torch.nan
    with pytest.raises(ValueError, match=r"rows \[3\]"):
        geometric_median_weights(points, masses, **EXACT)


def test_many_rows_are_read_and_no_matrix_is_built(monkeypatch):
    """At 400 rows and 2 million numbers; the answer is that of the Gram matrix to 1e-6."""
    points = sample(400, 5300)
    masses = torch.full((400,), 1 / 400, dtype=torch.float64)
    monkeypatch.setattr(weiszfeld, "robust_gram_matrix", lambda _: pytest.fail("a Gram matrix"))
    passes = geometric_median_weights(points, masses, **EXACT)
    monkeypatch.undo()
    monkeypatch.setattr(weiszfeld, "_ROWS_A_PASS", 10**9)
    gram = geometric_median_weights(points, masses, **EXACT)
    first, second = (weighted_combination(points, one.weights) for one in (passes, gram))
    assert float((first - second).norm()) <= 1e-6 * float(second.norm())
