"""ALIE against the paper's example and against NumPy."""

from statistics import NormalDist

import numpy as np
import pytest
import torch
from known import known, random_updates

from fedrobust.attacks import ALIE
from fedrobust.attacks.update.alie import largest_shift


def test_the_papers_example():
    """Of 50 workers 24 are corrupted: s = 26 - 24 = 2 and Φ(z) = 24/26 = 0.923; a table of Φ gives z = 1.43."""
    assert largest_shift(50, 24) == pytest.approx(1.43, abs=0.005)


@pytest.mark.parametrize(("n", "m"), [(100, 20), (20, 4), (51, 10), (10, 3), (1000, 1)])
def test_z_is_the_quantile_of_the_formula(n, m):
    """Φ⁻¹((n - m - s)/(n - m)) with s = ⌊n/2 + 1⌋ - m, by the standard library's quantile function."""
    s = int(n / 2 + 1) - m
    assert largest_shift(n, m) == pytest.approx(max(0.0, NormalDist().inv_cdf((n - m - s) / (n - m))), abs=1e-9)


@pytest.mark.parametrize(("n", "m"), [(4, 1), (2, 1), (3, 1), (3, 3), (1, 1), (5, 4), (4, 3), (3, 2), (10, 8)])
def test_z_is_finite_and_not_negative_where_the_formula_has_no_room(n, m):
    assert 0 <= largest_shift(n, m) < 3


def test_more_attackers_dare_more():
    shifts = [largest_shift(100, m) for m in range(1, 50)]
    assert shifts == sorted(shifts)
    assert shifts[0] == pytest.approx(0.0, abs=0.02), "one attacker of 100 needs the support of half"


@pytest.mark.parametrize("knows_benign", [False, True])
def test_the_mean_minus_z_standard_deviations(knows_benign):
    """NumPy's mean and population standard deviation, of the attackers' own updates or of the benign ones."""
    own, benign = random_updates(6, 11), random_updates(14, 11, seed=1)
    points = (benign if knows_benign else own).numpy()
    sent = ALIE(z=1.5)(known(own, benign if knows_benign else None, num_clients=20))
    expected = points.mean(axis=0) - 1.5 * points.std(axis=0)
    torch.testing.assert_close(sent, torch.from_numpy(np.tile(expected, (6, 1))))


def test_without_z_the_formula_counts_the_rounds_clients():
    """n = 20, m = 6: s = 5, z = Φ⁻¹(9/14)."""
    own = random_updates(6, 11)
    z = NormalDist().inv_cdf(9 / 14)
    torch.testing.assert_close(ALIE()(known(own, num_clients=20)), ALIE(z=z)(known(own, num_clients=20)))
