import time

import numpy as np
import pytest
import torch
from sklearn.cluster import MeanShift, estimate_bandwidth

from fedrobust._linalg.largest_cluster import largest_cluster
from fedrobust.seeds import torch_generator


@pytest.mark.parametrize("n", [4, 5, 8, 20, 60])
@pytest.mark.parametrize("k", [1, 3, 4])
@pytest.mark.parametrize("gap", [0.0, 0.02, 0.3])
def test_equals_the_largest_cluster_of_scikit_learn(n: int, k: int, gap: float) -> None:
    features = 0.1 * torch.rand(n, k, generator=torch_generator(0, n, k), dtype=torch.float64)
    features[: n // 3] += gap
    bandwidth = estimate_bandwidth(features.numpy(), quantile=0.5)
    labels = MeanShift(bandwidth=bandwidth, cluster_all=False).fit(features.numpy()).labels_
    expected = labels == np.bincount(labels[labels >= 0]).argmax()
    assert largest_cluster(features).tolist() == expected.tolist()


def test_two_heaps_and_a_stray() -> None:
    features = torch.tensor([[0.0], [0.01], [5.0], [0.02], [5.01], [9.0]], dtype=torch.float64)
    assert largest_cluster(features).tolist() == [True, True, False, True, False, False]


def test_permuting_points_permutes_the_cluster() -> None:
    features = torch.rand(30, 3, generator=torch_generator(1, "order"), dtype=torch.float64)
    features[:10] += 2.0
    order = torch.randperm(30, generator=torch_generator(2, "order"))
    assert torch.equal(largest_cluster(features[order]), largest_cluster(features)[order])


@pytest.mark.parametrize("n", [1, 2, 3])
def test_fewer_than_four_points_are_one_cluster(n: int) -> None:
    assert largest_cluster(torch.arange(float(n), dtype=torch.float64)[:, None]).all()


@pytest.mark.parametrize("n", [4, 11, 200])
def test_equal_points_are_one_cluster(n: int) -> None:
    """Also where rounding makes them differ in the last digit."""
    features = torch.full((n, 3), 1 / 3, dtype=torch.float64)
    features[0] += 1e-16
    assert largest_cluster(features).all()


def test_a_thousand_points_take_less_than_seconds() -> None:
    """About 0.3 s; scikit-learn, a window at a time, needs eight."""
    features = torch.rand(1000, 3, generator=torch_generator(3, "speed"), dtype=torch.float64)
    start = time.perf_counter()
    assert int(largest_cluster(features).sum()) > 500
    assert time.perf_counter() - start < 5
