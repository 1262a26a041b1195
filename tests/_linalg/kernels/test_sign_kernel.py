"""The compiled count of signs against NumPy's `sign`."""

import numpy as np
import pytest
import torch

from fedrobust._linalg.kernels import sign_kernel
from fedrobust._linalg.kernels.sign_kernel import can_count, counted_signs
from fedrobust._linalg.sign_votes import sign_votes
from fedrobust.seeds import torch_generator


@pytest.fixture(autouse=True)
def small_is_worth_it(monkeypatch):
    monkeypatch.setattr(sign_kernel, "_WORTH_COMPILING", 0)


@pytest.mark.parametrize("n", [1, 5, 8, 9, 24, 31])
@pytest.mark.parametrize("d", [16, 17, 4096, 9001])
def test_counts_equal_numpys_signs(n, d):
    """With zeros of both signs, the smallest number and the largest, which count as any other."""
    points = torch.randn(n, d, generator=torch_generator(0, "signs", n, d))
    points[torch.rand(n, d, generator=torch_generator(1, "signs", n, d)) < 0.3] = 0.0
    points[-1, ::3] = -0.0
    points[0, ::5] = -1e-45
    points[0, 1::5] = 3e38
    assert can_count(points)
    expected = np.sign(points.numpy()).sum(axis=0)
    np.testing.assert_array_equal(counted_signs(points, points).numpy(), expected)
    view = points[:, 1:]
    if can_count(view):
        np.testing.assert_array_equal(counted_signs(view, view).numpy(), expected[1:])
    votes = torch.cat([votes for _, votes in sign_votes(points)])
    np.testing.assert_array_equal(votes.numpy(), expected)


@pytest.mark.parametrize("value", [torch.inf, -torch.inf, torch.nan])
@pytest.mark.parametrize("column", [0, 5000, 9000])
def test_what_is_not_finite_is_named(value, column):
    points = torch.zeros(11, 9001)
    points[7, column] = value
    with pytest.raises(ValueError, match=r"rows \[7\]"):
        list(sign_votes(points))
