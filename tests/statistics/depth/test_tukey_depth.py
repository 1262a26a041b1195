"""Half-space depth against the data-depth library and against counting over all critical directions in integers."""

from itertools import combinations

import numpy as np
import pytest
import torch
from depth.model.multivariate import halfspace

from fedrobust.seeds import numpy_generator
from fedrobust.statistics import tukey_depth
from fedrobust.statistics.depth.tukey_depth import hyperplane_normals


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("n", [1, 2, 3, 10, 40])
def test_the_plane_equals_data_depth(n, seed, smallest_half_plane_count):
    """Points in and out of the cloud and data themselves, no three on a line."""
    generator = numpy_generator(seed, "plane", n)
    data = generator.standard_normal((n, 2)) @ np.array([[1.0, 0.5], [0.0, 2.0]])
    points = np.vstack([data[:5], 1.5 * generator.standard_normal((8, 2)), data.mean(axis=0)[None] + 0.1])
    found = tukey_depth(points, data)
    assert found.is_exact
    if n >= 3:
        np.testing.assert_allclose(found.depth, halfspace(points, data, exact=True), atol=1e-12)
    np.testing.assert_allclose(found.depth * n, [smallest_half_plane_count(point, data) for point in points], atol=1e-9)


@pytest.mark.parametrize("seed", range(30))
def test_ties_in_the_plane_equal_counting_in_integers(seed, smallest_half_plane_count):
    """A coarse grid: duplicates, many data on a line, opposite ones, queries on data and on their lines."""
    generator = numpy_generator(seed, "grid")
    data = generator.integers(0, 5, size=(int(generator.integers(1, 25)), 2))
    points = generator.integers(-1, 6, size=(12, 2))
    found = tukey_depth(points, data).depth * len(data)
    expected = [smallest_half_plane_count(point, data.tolist()) for point in points.tolist()]
    np.testing.assert_allclose(found, expected, atol=1e-9)
    scaled = tukey_depth(points * 3.0**7, data * 3.0**7).depth * len(data)
    np.testing.assert_allclose(scaled, expected, atol=1e-9)


def test_one_dimension_equals_counting():
    generator = numpy_generator(0, "line")
    data, points = generator.integers(0, 9, size=30), np.arange(-1, 10)
    expected = [min((data <= p).mean(), (data >= p).mean()) for p in points]
    np.testing.assert_allclose(tukey_depth(points, data).depth, expected, atol=1e-12)
    np.testing.assert_allclose(tukey_depth(points[:, None], data[:, None]).depth, expected, atol=1e-12)
    # On a line in the plane the depth is that along the line, and zero off it.
    line = np.column_stack([data, 2 * data])
    np.testing.assert_allclose(tukey_depth(np.column_stack([points, 2 * points]), line).depth, expected, atol=1e-12)
    assert tukey_depth([[1.0, 2.5]], line).depth.tolist() == [0.0]


@pytest.mark.parametrize("d", [3, 4])
def test_above_the_plane_the_bound_lies_above_the_depth_and_close(d):
    """data-depth's exact depth. With nearly every hyperplane through d data among the directions, the bound can exceed
    it by d - 1 data for a query that is none: those that level directions count and a small turn would lose.
    """
    n = 20
    generator = numpy_generator(d, "space")
    data = generator.standard_normal((n, d))
    points = np.vstack([data[:5], 0.7 * generator.standard_normal((10, d))])
    exact = halfspace(points, data, exact=True)
    few, many = (tukey_depth(points, data, num_directions=m) for m in (50, 20_000))
    assert not few.is_exact
    assert (few.depth >= exact - 1e-12).all()
    assert (many.depth >= exact - 1e-12).all()
    assert (many.depth <= few.depth + 1e-12).all()
    assert many.depth.mean() < few.depth.mean()
    assert (many.depth[5:] <= exact[5:] + (d - 1) / n + 1e-12).all()


@pytest.mark.parametrize("d", [1, 2, 3, 6])
def test_affine_invariance_and_range(d):
    generator = numpy_generator(d, "affine")
    data, points = generator.standard_normal((60, d)), 1.5 * generator.standard_normal((40, d))
    depth = tukey_depth(points, data).depth
    assert ((depth >= 0) & (depth <= 1)).all()
    matrix, shift = generator.standard_normal((d, d)) + 2 * np.eye(d), 5 * generator.standard_normal(d)
    moved = tukey_depth(points @ matrix + shift, data @ matrix + shift).depth
    np.testing.assert_allclose(moved, depth, atol=1e-12)
    order = generator.permutation(60)
    if d <= 2:
        assert (tukey_depth(points, data[order]).depth == depth).all()
    inside = tukey_depth(data, data).depth
    assert (inside >= 1 / 60 - 1e-12).all()
    far = tukey_depth(np.full((1, d), 1e6), data).depth
    assert far.tolist() == [0.0]


def test_a_seed_fixes_the_bound():
    generator = numpy_generator(0, "seed")
    data, points = generator.standard_normal((200, 5)), generator.standard_normal((30, 5))
    first, again, other = (tukey_depth(points, data, num_directions=40, seed=s).depth for s in (1, 1, 2))
    assert (first == again).all()
    assert (first != other).any()


def test_hyperplanes_go_through_different_data():
    """Of five data in three dimensions each of the ten triples turns up, and no direction is degenerate."""
    data = numpy_generator(1, "triples").standard_normal((5, 3))
    normals = hyperplane_normals(data, 400, numpy_generator(2, "triples"))
    heights = normals @ data.T
    met = set()
    for row in heights:
        (triple,) = [t for t in combinations(range(5), 3) if np.ptp(row[list(t)]) < 1e-10]
        met.add(triple)
    assert len(met) == 10


def test_the_answer_is_of_the_kind_of_the_points():
    data = numpy_generator(0, "kind").standard_normal((20, 2))
    found = tukey_depth(torch.zeros(1, 2), data)
    assert isinstance(found.depth, torch.Tensor)
    assert found.depth.dtype == torch.float32
    same = tukey_depth(np.zeros((1, 2)), torch.from_numpy(data))
    assert isinstance(same.depth, np.ndarray)
    assert same.depth.dtype == np.float64
    assert same.depth[0] == pytest.approx(float(found.depth[0]))
    assert "depth" in found.summary()
    tall = np.zeros((40, 4))
    tall[::2, ::2] = data
    assert tukey_depth(np.zeros((1, 2)), tall[::2, ::2]).depth == same.depth
    assert tukey_depth([[0, 0]], [[1, 0], [-1, 0]]).depth.tolist() == [0.5]


@pytest.mark.parametrize(
    ("points", "data", "message"),
    [
        (np.zeros((1, 2)), np.array([[0.0, np.nan]]), "data must be finite"),
        (np.array([[np.inf, 0.0]]), np.zeros((3, 2)), "points must be finite"),
        (np.zeros((1, 2)), np.zeros((0, 2)), "data must have at least 1 rows"),
        (np.zeros((0, 2)), np.zeros((3, 2)), "points must have at least 1 rows"),
        (np.zeros((1, 2)), np.zeros((3, 3)), "as many columns as data, got 2 and 3"),
        (np.zeros((1, 2, 2)), np.zeros((3, 2)), r"points must have shape \(N, d\)"),
        (np.float64(0.0), np.zeros((3, 2)), r"points must have shape \(N, d\)"),
        (np.zeros((1, 3)), np.zeros((3, 3)), "more than 3 rows, got 3"),
    ],
)
def test_bad_input_is_refused(points, data, message):
    with pytest.raises(ValueError, match=message):
        tukey_depth(points, data)


def test_no_direction_is_refused():
    with pytest.raises(ValueError, match="num_directions"):
        tukey_depth(np.zeros((1, 3)), np.zeros((9, 3)), num_directions=0)
