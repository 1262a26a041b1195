"""Pre-aggregators against byzfl 0.0.11: equal where both mean the same, with a test for where byzfl goes astray."""

import byzfl
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from fedrobust.preaggregators import AdaptiveClipping, Bucketing, Clipping, NearestNeighbourMixing, Preaggregator

Matrix = NDArray[np.float64]


def sample(n: int, d: int = 12) -> Matrix:
    generator = np.random.default_rng([n, d])
    return generator.uniform(0.2, 3, size=(n, 1)) * generator.normal(size=(n, d))


def answer(preaggregator: Preaggregator, points: Matrix) -> Matrix:
    return preaggregator(torch.from_numpy(points.copy())).updates.numpy()


@pytest.mark.parametrize(("n", "f"), [(9, 0), (10, 2), (11, 3), (25, 6)])
def test_byzfl_agrees(n: int, f: int) -> None:
    """Nearest-neighbour mixing, adaptive clipping (its k = ⌊2(f/n)(n - f)⌋ too) and clipping, row by row."""
    points = sample(n)
    mixed = byzfl.NNM(f)(points.copy())
    np.testing.assert_allclose(answer(NearestNeighbourMixing(assumed_fraction=f / n), points), mixed, rtol=1e-9)
    clipped = byzfl.ARC(f)(points.copy())
    np.testing.assert_allclose(answer(AdaptiveClipping(assumed_fraction=f / n), points), clipped, rtol=1e-9)
    bounded = byzfl.Clipping(c=2.0)(points.copy())
    np.testing.assert_allclose(answer(Clipping(max_norm=2.0), points), bounded, rtol=1e-9)


def test_byzfls_clipping_writes_to_its_input() -> None:
    """After it the server's own copy of the updates is the clipped one; ours makes a new matrix."""
    points = sample(10)
    for theirs in (byzfl.Clipping(c=1.0), byzfl.ARC(2)):
        given = points.copy()
        theirs(given)
        assert not np.array_equal(given, points)
    for ours in (Clipping(max_norm=1.0), AdaptiveClipping(assumed_fraction=0.2)):
        given_tensor = torch.from_numpy(points.copy())
        ours(given_tensor)
        np.testing.assert_array_equal(given_tensor.numpy(), points)


def test_buckets_hold_as_many_clients_as_byzfls() -> None:
    """Who is in which is drawn at random in both, byzfl's from the global generator. All in one: the mean."""
    points = sample(11)
    state = np.random.get_state()  # noqa: NPY002
    try:
        theirs = byzfl.Bucketing(s=3)(points.copy())
        one = byzfl.Bucketing(s=11)(points.copy())
    finally:
        np.random.set_state(state)  # noqa: NPY002
    assert answer(Bucketing(bucket_size=3), points).shape == theirs.shape == (4, 12)
    np.testing.assert_allclose(answer(Bucketing(bucket_size=11), points), one, rtol=1e-9, atol=1e-12)
