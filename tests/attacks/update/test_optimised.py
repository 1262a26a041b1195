"""The optimised attacks against a fine grid of factors on the same rule, and closed forms."""

from collections.abc import Callable

import pytest
import torch
from known import known, random_updates
from torch import Tensor

from fedrobust.aggregators import CoordinateMedian, Krum, Mean, MultiKrum, TrimmedMean
from fedrobust.attacks import ALIE, IPM, Knowledge, OptimisedALIE, OptimisedIPM
from fedrobust.types import UnusableUpdatesError

M = 4
OWN, BENIGN = random_updates(M, 25, shift=0.5), random_updates(16, 25, shift=0.5, seed=1)
MEAN, STD = BENIGN.mean(dim=0), BENIGN.std(dim=0, correction=0)
Rule = Callable[[Tensor], Tensor]


def against(rule: Rule) -> Knowledge:
    return known(OWN, BENIGN, answer=lambda sent: rule(torch.cat([sent, BENIGN])))


def harm(rule: Rule, sent: Tensor) -> float:
    return float((rule(torch.cat([sent, BENIGN])) - MEAN).norm())


def norm_bound(updates: Tensor) -> Tensor:
    """A rule whose answer jumps: updates longer than 20 are dropped."""
    return updates[updates.norm(dim=1) <= 20].mean(dim=0)


RULES: dict[str, Rule] = {
    "median": lambda updates: CoordinateMedian()(updates).update,
    "trimmed_mean": lambda updates: TrimmedMean(assumed_fraction=0.2)(updates).update,
    "krum": lambda updates: Krum(assumed_fraction=0.2)(updates).update,
    "multi_krum": lambda updates: MultiKrum(assumed_fraction=0.2)(updates).update,
    "norm_bound": norm_bound,
}


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("attack", [OptimisedALIE, OptimisedIPM])
def test_twenty_questions_find_nine_tenths_of_the_harm_on_a_fine_grid(rule, attack):
    """Against 2000 factors between 0.05 and 100, evenly spaced in their logarithm."""
    found = harm(RULES[rule], attack()(against(RULES[rule])))
    plain = (lambda z: MEAN - z * STD) if attack is OptimisedALIE else (lambda epsilon: -epsilon * MEAN)
    grid = torch.logspace(-1.3, 2, 2000, dtype=torch.float64).tolist()
    best = max(harm(RULES[rule], plain(factor).expand(M, -1)) for factor in grid)
    assert found >= 0.9 * best


def test_the_plain_mean_is_harmed_most_by_the_largest_factor():
    """The distance is linear in the factor: m/n (z σ) for ALIE, m/n (ε + 1) μ for IPM."""
    told = against(lambda updates: Mean()(updates).update)
    torch.testing.assert_close(OptimisedALIE(max_factor=7.0)(told)[0], MEAN - 7 * STD)
    torch.testing.assert_close(OptimisedIPM(max_factor=7.0)(told)[0], -7 * MEAN)


def test_a_fixed_factor_does_no_more_harm():
    for rule in RULES.values():
        assert harm(rule, OptimisedALIE()(against(rule))) >= harm(rule, ALIE()(known(OWN, BENIGN)))
        assert harm(rule, OptimisedIPM()(against(rule))) >= harm(rule, IPM()(known(OWN, BENIGN)))


def test_the_honest_mean_carries_the_servers_weights():
    """Only client 0 weighs anything and the rule answers with it: a factor that moves away from it wins."""
    weights = torch.zeros(16, dtype=torch.float64)
    weights[0] = 1.0
    told = known(OWN, BENIGN, answer=lambda sent: sent[0])
    told = Knowledge(**{**told.__dict__, "benign_weights": weights})
    sent = OptimisedIPM(max_factor=2.0)(told)[0]
    grid = [-factor * MEAN for factor in torch.linspace(0.01, 2, 200).tolist()]
    assert float((sent - BENIGN[0]).norm()) >= max(float((one - BENIGN[0]).norm()) for one in grid) - 1e-9


@pytest.mark.parametrize("num_evaluations", [4, 5, 20, 33])
def test_the_server_is_asked_as_often_as_promised(num_evaluations):
    asked = []

    def rule(updates: Tensor) -> Tensor:
        asked.append(1)
        return CoordinateMedian()(updates).update

    OptimisedALIE(num_evaluations=num_evaluations)(against(rule))
    assert len(asked) <= num_evaluations
    assert len(asked) >= num_evaluations - 1


def test_factors_that_the_rule_refuses_are_avoided():
    def rule(updates: Tensor) -> Tensor:
        if float(updates[0].norm()) > 30:
            raise UnusableUpdatesError("too long")
        return updates.mean(dim=0)

    assert float(OptimisedIPM()(against(rule))[0].norm()) <= 30
