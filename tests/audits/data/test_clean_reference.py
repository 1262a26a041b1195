"""The test by clean examples, against counting, scipy's test of Fisher, and its own stated rate."""

import math

import pytest
import torch
from scipy.stats import fisher_exact

from fedrobust.audits.data.clean_reference import CleanReference, avoidance, smallest_reference


@pytest.mark.parametrize(
    ("num_in", "n", "num_clean_in", "m"), [(5, 20, 0, 10), (7, 20, 2, 10), (65, 195, 9, 50), (1, 13, 0, 40)]
)
def test_avoidance_is_counting(num_in, n, num_clean_in, m):
    """Of all ways to choose m clean ones among n + m, those with at most so many in the cluster; and scipy's test."""
    inside = num_in + num_clean_in
    ways = sum(math.comb(inside, k) * math.comb(n + m - inside, m - k) for k in range(num_clean_in + 1))
    expected = ways / math.comb(n + m, m)
    assert avoidance(num_in, n, num_clean_in, m) == pytest.approx(expected, rel=1e-9)
    table = [[num_clean_in, m - num_clean_in], [num_in, n - num_in]]
    assert fisher_exact(table, alternative="less").pvalue == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("level", [0.05, 0.005, 0.0005])
@pytest.mark.parametrize(("num_in", "n"), [(1, 10), (4, 13), (14, 144), (65, 195), (150, 300)])
def test_the_smallest_reference_is_the_smallest(num_in, n, level):
    """Brute force from 1 on, by the closed form C(n + m - k, m) / C(n + m, m) of nobody in a cluster of k."""
    expected = next(m for m in range(1, 10**5) if math.comb(n + m - num_in, m) / math.comb(n + m, m) < level)
    assert smallest_reference(num_in, n, level) == expected


@pytest.mark.parametrize(
    ("num_in", "num_clean_in", "is_poisoned", "says"),
    [
        (30, 0, True, ""),  # (100 / 150)^30 = 5e-6
        (30, 15, False, ""),
        (48, 0, None, "cannot tell which part is poison: clean examples avoid the smaller cluster, and its 48%"),
        (30, 49, None, "cannot tell which part is poison: clean examples avoid the larger cluster, and its 70%"),
        (3, 0, None, "cannot tell: 50 clean examples of the class are too few to convict a cluster of 3, "),
        (48, 24, False, ""),
        (0, 2, False, ""),
    ],
)
def test_verdicts_on_a_hundred_examples_and_fifty_clean_ones(num_in, num_clean_in, is_poisoned, says):
    reference = CleanReference(num_in, 100, num_clean_in, 50, level=0.005)
    found, reason = reference.verdict(max_share=0.35)
    assert found is is_poisoned
    assert reason.startswith(says)
    assert bool(reason) == (found is None)


def test_a_false_alarm_is_as_rare_as_stated():
    """2,000 draws of which of 150 alike are the clean 50, whatever the cluster: p < level at most level of the time."""
    generator = torch.Generator().manual_seed(0)
    for inside in (6, 20, 60, 75):
        alarms = 0
        for _ in range(2000):
            num_clean_in = int((torch.randperm(150, generator=generator)[:50] < inside).sum())
            alarms += CleanReference(inside - num_clean_in, 100, num_clean_in, 50, level=0.05).p_values[0] < 0.05
        assert alarms / 2000 < 0.05 + 5 * math.sqrt(0.05 * 0.95 / 2000)
