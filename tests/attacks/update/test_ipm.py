"""Inner product manipulation against its formula, and what it does to the plain mean."""

import pytest
import torch
from known import known, random_updates

from fedrobust.attacks import IPM


def test_minus_epsilon_times_the_mean():
    own, benign = random_updates(3, 5), random_updates(7, 5, seed=1)
    expected = [-0.4 * sum(column) / 7 for column in benign.T.tolist()]
    sent = IPM(epsilon=0.4)(known(own, benign))
    torch.testing.assert_close(sent, torch.tensor([expected] * 3, dtype=torch.float64))
    torch.testing.assert_close(IPM(epsilon=1.0)(known(own)), -own.mean(dim=0).expand(3, -1))


@pytest.mark.parametrize(("epsilon", "reversed_"), [(2.3, False), (2.4, True)])
def test_the_plain_mean_turns_round_beyond_n_minus_m_over_m(epsilon, reversed_):
    """(7μ - 3εμ)/10 has the sign of 7/3 - ε = 2.333 - ε."""
    own, benign = random_updates(3, 5), random_updates(7, 5, seed=1)
    mean = torch.cat([benign, IPM(epsilon=epsilon)(known(own, benign))]).mean(dim=0)
    assert bool(mean @ benign.mean(dim=0) < 0) is reversed_
