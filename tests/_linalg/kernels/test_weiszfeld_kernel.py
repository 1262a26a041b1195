"""The compiled step of Weiszfeld's iteration against NumPy in float64."""

import numpy as np
import pytest
import torch

from fedrobust._linalg.kernels import block_sums
from fedrobust._linalg.kernels.block_sums import can_add_rows
from fedrobust._linalg.kernels.weiszfeld_kernel import centre_and_distances
from fedrobust.seeds import torch_generator


@pytest.fixture(autouse=True)
def small_is_worth_it(monkeypatch):
    monkeypatch.setattr(block_sums, "_WORTH_COMPILING", 0)


@pytest.mark.parametrize("n", [1, 3, 8, 9, 65])
@pytest.mark.parametrize("d", [16, 17, 1040, 30_001])
def test_centre_distances_and_step(n, d):
    """Far from the origin too: nothing cancels, where float32 would keep no digit of the distances."""
    generator = torch_generator(0, "weiszfeld", n, d)
    points = torch.randn(n, d, generator=generator) + 1e5 * torch.randn(d, generator=generator)
    weights = np.random.default_rng(0).dirichlet(np.ones(n))
    centre = np.random.default_rng(1).normal(size=d)
    before = centre.copy()
    assert can_add_rows(points)
    squared, step = centre_and_distances(points, weights, centre)
    wide = points.double().numpy()
    expected = weights @ wide
    np.testing.assert_allclose(centre, expected, rtol=1e-12)
    np.testing.assert_allclose(squared, ((wide - expected) ** 2).sum(axis=1), rtol=1e-9, atol=1e-12)
    assert step == pytest.approx(((expected - before) ** 2).sum(), rel=1e-12)


def test_rows_of_a_view_and_what_is_not_finite():
    points = torch.randn(6, 200, generator=torch_generator(1, "weiszfeld"))[::2, 3:120]
    centre = np.zeros(117)
    squared, _ = centre_and_distances(points, np.full(3, 1 / 3), centre)
    torch.testing.assert_close(torch.from_numpy(centre), points.double().mean(dim=0))
    torch.testing.assert_close(torch.from_numpy(squared), (points.double() - points.double().mean(dim=0)).pow(2).sum(1))
    points[1, 40] = torch.inf
    assert not np.isfinite(centre_and_distances(points, np.full(3, 1 / 3), centre)[0]).any()


def test_what_it_does_not_take():
    points = torch.zeros(4, 100)
    assert not can_add_rows(points.double())
    assert not can_add_rows(points.bfloat16())
    assert not can_add_rows(points.T)
    assert not can_add_rows(points[:, :7])
