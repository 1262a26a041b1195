"""The compiled kernels against the readable form, bit for bit."""

import pytest
import torch

from fedrobust._linalg import order_statistics
from fedrobust._linalg.kernels.native import can_compile
from fedrobust._linalg.kernels.sorting_network import sorting_network
from fedrobust._linalg.order_statistics import mean_nearest_to_median, mean_of_order_statistics
from fedrobust.seeds import torch_generator


@pytest.fixture
def by_sorting(monkeypatch):
    def call(function, *arguments):
        with monkeypatch.context() as patch:
            patch.setattr(order_statistics, "can_compile", lambda: False)
            return function(*arguments)

    return call


def test_kernels_can_be_compiled_here():
    assert can_compile()


@pytest.mark.parametrize("n", [*range(1, 41), 50, 100, 257, 300])
def test_the_same_bits_as_sorting(n, by_sorting, monkeypatch):
    """Ties, both zeros, huge and tiny values among them; enough columns for tiles, threads and a rest."""
    monkeypatch.setattr(order_statistics, "_WORTH_COMPILING", 0)
    points = torch.randn(n, 9001 if n < 60 else 601, generator=torch_generator(0, "network", n))
    points[:, ::5] = points[:, ::5].round()
    points[:, 1] = -0.0
    points[0, 2:20] = 3e38
    points[-1, 3:30] = 1e-42
    f = (n - 1) // 3
    for ranks in (((n - 1) // 2, n // 2 + 1), (f, n - f), (0, 1), (0, n)):
        expected = by_sorting(mean_of_order_statistics, points, *ranks)
        assert torch.equal(mean_of_order_statistics(points, *ranks).view(torch.int32), expected.view(torch.int32))
    expected = by_sorting(mean_nearest_to_median, points, n - f)
    assert torch.equal(mean_nearest_to_median(points, n - f).view(torch.int32), expected.view(torch.int32))


@pytest.mark.parametrize("n", [2, 7, 16, 33])
def test_a_network_sorts_every_sequence_of_zeros_and_ones(n):
    """The zero-one principle: a network that sorts these (here 4,000 of them) sorts everything."""
    bits = torch.randint(0, 2, (n, 4000), generator=torch_generator(1, "bits", n))
    expected = bits.sort(dim=0).values
    for left, right, _, _ in sorting_network(n, 0, n):
        low, high = torch.minimum(bits[left], bits[right]), torch.maximum(bits[left], bits[right])
        bits[left], bits[right] = low, high
    assert torch.equal(bits, expected)
