"""Tukey's median against a search over every crossing of lines through two data, in exact arithmetic."""

from fractions import Fraction
from itertools import combinations

import numpy as np
import pytest
import torch
from depth.model.multivariate import halfspace
from scipy.stats import norm

from fedrobust.seeds import numpy_generator
from fedrobust.statistics import tukey_depth, tukey_median
from fedrobust.statistics.depth.deepest_region import deepest_region, exact_count


def brute_force_largest_count(data, count) -> int:
    """The largest depth times N: the regions' corners are data or crossings of lines through two data."""
    rows = [tuple(Fraction(v) for v in row) for row in data.tolist()]
    lines = [(a, (b[0] - a[0], b[1] - a[1])) for a, b in combinations(set(rows), 2)]
    candidates = set(rows)
    for (a, u), (b, v) in combinations(lines, 2):
        cross = u[0] * v[1] - u[1] * v[0]
        if cross != 0:
            t = ((b[0] - a[0]) * v[1] - (b[1] - a[1]) * v[0]) / cross
            candidates.add((a[0] + t * u[0], a[1] + t * u[1]))
    return max(count(candidate, rows) for candidate in candidates)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 6, 7])
def test_the_plane_equals_brute_force(n, seed, smallest_half_plane_count):
    """Generic data; for even n the deepest region is often a single crossing, which no floating-point number is on."""
    data = numpy_generator(seed, "median", n).standard_normal((n, 2)).round(6)
    found = tukey_median(data)
    largest = brute_force_largest_count(data, smallest_half_plane_count)
    assert found.is_exact
    assert found.depth * n == pytest.approx(largest)
    assert found.max_depth == found.depth
    region = deepest_region(data)
    assert region.count == largest
    rows = [tuple(map(Fraction, row)) for row in data.tolist()]
    assert min(smallest_half_plane_count(vertex, rows) for vertex in region.vertices) == largest


@pytest.mark.parametrize("seed", range(12))
def test_ties_in_the_plane_equal_brute_force(seed, smallest_half_plane_count):
    """Integers from 0 to 3: duplicates, data on one line, crossings of many lines."""
    generator = numpy_generator(seed, "grid median")
    data = generator.integers(0, 4, size=(int(generator.integers(2, 11)), 2))
    found = tukey_median(data)
    assert found.is_exact
    assert found.depth * len(data) == pytest.approx(brute_force_largest_count(data, smallest_half_plane_count))


@pytest.mark.parametrize("n", [20, 75, 300])
def test_no_depth_of_data_depth_is_larger(n):
    """data-depth's exact depth on a fine grid about the median, and at the median."""
    data = numpy_generator(n, "larger").standard_normal((n, 2)) * [1.0, 3.0]
    found = tukey_median(data)
    near = found.median + 0.3 * numpy_generator(0, "near", n).standard_normal((300, 2))
    assert halfspace(near, data, exact=True).max() <= found.depth + 1e-12
    at = halfspace(found.median[None], data, exact=True)[0]
    assert at == pytest.approx(found.details["depth_as_rounded"])
    assert exact_count(tuple(map(Fraction, found.median.tolist())), data) == round(at * n)
    assert 1 / 3 <= found.depth <= 0.5 + 1 / n


def test_known_medians_in_the_plane():
    """A square's crossing diagonals, the middle of a grid, a datum that is half of all, a triangle's centroid."""
    square = tukey_median([[0, 0], [2, 0], [2, 2], [0, 2]])
    assert (square.median.tolist(), square.depth) == ([1, 1], 0.5)
    grid = np.stack(np.meshgrid(np.arange(7), np.arange(7)), axis=-1).reshape(-1, 2)
    assert tukey_median(grid).median.tolist() == [3, 3]
    assert tukey_median(grid).depth == pytest.approx(25 / 49)  # a line tilted a little through the middle
    repeated = np.array([[5.0, 5]] * 6 + [[0, 0], [1, 9], [9, 2], [30, 4], [2, -8]])
    assert tukey_median(repeated).median.tolist() == [5, 5]
    triangle = tukey_median([[0.0, 0], [3, 0], [0, 3]])
    np.testing.assert_allclose(triangle.median, [1, 1])
    assert triangle.depth == pytest.approx(1 / 3)


def test_data_on_a_line_have_the_median_along_it():
    t = np.array([0.0, 1, 2, 5, 9, 100])
    line = tukey_median(np.column_stack([t, 2 * t]))
    assert (line.median.tolist(), line.depth) == ([3.5, 7], 0.5)
    same = tukey_median(np.full((9, 2), 0.1))
    assert (same.median.tolist(), same.depth, same.is_exact) == ([0.1, 0.1], 1.0, True)


def test_far_from_the_origin_and_of_unlike_units():
    """Multiples of 1/8, 10⁹ away: the same data without and with a shift that floating point holds exactly."""
    data = numpy_generator(0, "far").integers(-80, 80, size=(40, 2)) / 8
    near, far = tukey_median(data), tukey_median(data * [1, 2.0**30] + 1e9)
    assert far.depth == near.depth
    np.testing.assert_allclose((far.median - 1e9) / [1, 2.0**30], near.median, atol=1e-6)


@pytest.mark.parametrize("n", [1, 2, 9, 10])
def test_one_dimension_is_the_median(n):
    x = numpy_generator(n, "one").standard_normal(n)
    for sample in (x, x[:, None]):
        found = tukey_median(sample)
        assert found.median.shape == (1,)
        assert found.median[0] == pytest.approx(np.median(x), rel=1e-15)
        assert found.depth == pytest.approx((n // 2 + n % 2) / n)
        assert found.is_exact


@pytest.mark.parametrize("d", [1, 2, 3])
def test_affine_equivariance(d):
    """To rounding in the plane; above, the search takes another course, which may cost a datum or two."""
    generator = numpy_generator(d, "equivariance")
    data = generator.standard_normal((60, d))
    matrix, shift = generator.standard_normal((d, d)) + 2 * np.eye(d), 3 * generator.standard_normal(d)
    found, moved = tukey_median(data, num_directions=200), tukey_median(data @ matrix + shift, num_directions=200)
    if d <= 2:
        np.testing.assert_allclose(moved.median, found.median @ matrix + shift, atol=1e-9)
    assert moved.depth == pytest.approx(found.depth, abs=0 if d <= 2 else 2 / 60)
    assert found.max_depth >= 1 / (d + 1)


@pytest.mark.parametrize("d", [3, 5])
def test_above_the_plane_a_simplex_is_as_shallow_as_data_can_be(d):
    """d + 1 data in general position: the largest depth is 1/(d + 1), Helly's bound."""
    simplex = np.vstack([np.zeros(d), np.eye(d)]) + 0.01 * numpy_generator(d, "simplex").standard_normal((d + 1, d))
    found = tukey_median(simplex, num_directions=100)
    assert not found.is_exact
    assert found.max_depth == pytest.approx(1 / (d + 1))
    assert found.depth == pytest.approx(1 / (d + 1))
    assert tukey_depth(found.median[None], simplex).depth[0] == pytest.approx(1 / (d + 1))


def test_above_the_plane_the_certificate_encloses_the_depth():
    """data-depth's exact depth in space, at the median found and at 300 points near it."""
    data = numpy_generator(0, "certificate").standard_normal((60, 3))
    found = tukey_median(data, num_directions=300)
    assert found.depth <= found.max_depth
    assert halfspace(found.median[None], data, exact=True)[0] <= found.depth + 1e-12
    near = found.median + 0.2 * numpy_generator(1, "certificate").standard_normal((300, 3))
    assert halfspace(near, data, exact=True).max() <= found.max_depth + 1e-12
    assert found.iterations
    assert "approximate" in found.summary()


@pytest.mark.parametrize("d", [2, 4])
def test_contamination_moves_it_by_less_than_its_bound(d):
    """Bias Φ⁻¹(½ + ε/(1 - ε)), plus three times the deviation √(πd/2n) that d medians of n values have; ε = .1 far."""
    n, eps = 600, 0.1
    data = numpy_generator(d, "contamination").standard_normal((n, d))
    data[: int(eps * n)] += 50.0
    found = tukey_median(data, num_directions=300)
    allowed = norm.ppf(0.5 + eps / (1 - eps)) + 3 * np.sqrt(np.pi * d / 2 / n)
    assert np.linalg.norm(found.median) < allowed


def test_many_duplicates_above_the_plane():
    """A datum that is two thirds of all is the median, and its depth at least two thirds."""
    data = np.vstack([np.tile([1.0, 2, 3], (20, 1)), numpy_generator(0, "many").standard_normal((10, 3))])
    found = tukey_median(data, num_directions=100)
    np.testing.assert_allclose(found.median, [1, 2, 3], atol=1e-6)
    assert found.max_depth >= 2 / 3


def test_kinds_and_precision():
    x = torch.from_numpy(numpy_generator(0, "kinds").standard_normal((30, 2)))
    found = tukey_median(x)
    assert isinstance(found.median, torch.Tensor)
    assert found.median.dtype == torch.float64
    assert isinstance(tukey_median(x.numpy()).median, np.ndarray)
    single = tukey_median(x.float())
    assert single.median.dtype == torch.float32
    np.testing.assert_allclose(single.median, found.median, atol=1e-5)
    assert "max depth" in found.summary()


def test_the_same_seed_gives_the_same_bits():
    data = numpy_generator(0, "bits").standard_normal((80, 3))
    first, again = (tukey_median(data, num_directions=100, seed=3) for _ in range(2))
    assert (first.median == again.median).all()


def test_high_dimensions_need_leave():
    data = numpy_generator(0, "high").standard_normal((60, 11))
    with pytest.raises(ValueError, match=r"d=11 dimensions, more than 10.*allow_high_dimension"):
        tukey_median(data)
    assert not tukey_median(data, num_directions=50, allow_high_dimension=True).is_exact


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (np.array([[0.0, np.nan]]), "finite"),
        (np.zeros((0, 2)), "at least 1 rows"),
        (np.zeros((2, 0)), "one column"),
        (np.zeros((2, 2, 2)), r"shape \(N, d\)"),
        (np.zeros((3, 4)), "more than 4 rows, got 3"),
    ],
)
def test_bad_input_is_refused(bad, message):
    with pytest.raises(ValueError, match=message):
        tukey_median(bad)
