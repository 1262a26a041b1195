import numpy as np
import pytest
import torch

from fedrobust.aggregators import CoordinateMedian
from fedrobust.seeds import torch_generator


@pytest.mark.parametrize("n", [1, 2, 3, 4, 9, 10, 101])
def test_equals_numpy(n: int) -> None:
    """`np.median` takes the midpoint for even n, as the rule promises; `torch.median` the lower value."""
    points = torch.randn(n, 33, generator=torch_generator(0, "points", n), dtype=torch.float64)
    np.testing.assert_array_equal(CoordinateMedian()(points).update.numpy(), np.median(points.numpy(), axis=0))


def test_weights_do_not_count() -> None:
    points = torch.tensor([[0.0], [1.0], [5.0]])
    assert CoordinateMedian()(points, torch.tensor([1.0, 1.0, 100.0])).update.tolist() == [1.0]


def test_midpoint_of_values_whose_sum_overflows() -> None:
    assert CoordinateMedian()(torch.full((2, 1), 3e38)).update.item() == pytest.approx(3e38)
