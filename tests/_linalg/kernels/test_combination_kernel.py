"""The compiled weighted sums against float64 matrix products."""

import pytest
import torch

from fedrobust._linalg.kernels import block_sums
from fedrobust._linalg.kernels.block_sums import can_add_rows
from fedrobust._linalg.kernels.combination_kernel import combined_rows
from fedrobust.seeds import torch_generator


@pytest.mark.parametrize("n", [1, 2, 7, 100])
@pytest.mark.parametrize("d", [128, 129, 255, 9001, 20000])
def test_weighted_sum(n, d, monkeypatch):
    """Float64 sums, rounded once: half a unit in the last place of float32."""
    monkeypatch.setattr(block_sums, "_WORTH_COMPILING", 0)
    points = torch.randn(n, d, generator=torch_generator(0, "combine", n, d))
    weights = torch.randn(n, generator=torch_generator(1, "combine", n, d), dtype=torch.float64)
    assert can_add_rows(points)
    rows = torch.arange(n)
    found, is_finite = combined_rows(points, rows, weights)
    assert is_finite
    torch.testing.assert_close(found.double(), weights @ points.double(), rtol=1e-7, atol=1e-12)


def test_rows_that_are_not_named_are_not_read():
    points = torch.randn(5, 20000, generator=torch_generator(2, "combine"))
    points[3] = float("nan")
    rows = torch.tensor([0, 4])
    found, is_finite = combined_rows(points, rows, torch.tensor([0.25, 0.75]))
    assert is_finite
    assert torch.equal(found, (0.25 * points[0].double() + 0.75 * points[4].double()).float())
    assert torch.equal(combined_rows(points, rows[:0], torch.ones(0))[0], torch.zeros(20000))


@pytest.mark.parametrize("column", [0, 9000, 19990, 19999])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_is_told(column, value):
    points = torch.ones(5, 20000)
    points[3, column] = value
    assert not combined_rows(points, torch.arange(5), torch.ones(5))[1]
    assert combined_rows(points, torch.tensor([0, 1, 2, 4]), torch.ones(4))[1]


def test_a_sum_that_overflows_on_the_way_does_not():
    points = torch.full((4, 16384), 3e38)
    points[2:] *= -1
    assert torch.equal(combined_rows(points, torch.arange(4), torch.ones(4))[0], torch.zeros(16384))
