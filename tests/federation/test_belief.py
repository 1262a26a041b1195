"""f of a round, against the hypergeometric law by counting with integers, and against frequencies of real draws."""

import dataclasses
from fractions import Fraction
from math import comb, floor

import pytest
import torch

from fedrobust.aggregators import Aggregate, Bulyan, CoordinateMedian, Krum, Mean, SpectralFilter, TrimmedMean
from fedrobust.config.component import component
from fedrobust.federation.belief import belief_warnings, believed_rule, sampled_count
from fedrobust.federation.server import Server
from fedrobust.preaggregators import Bucketing, NearestNeighbourMixing, Pipeline
from fedrobust.types import Updates, Weights


def counted(malicious: int, num_clients: int, num_sampled: int, confidence: float) -> int:
    """The least f whose tail is small enough, by counting samples."""
    total, seen = comb(num_clients, num_sampled), 0
    for f in range(num_sampled + 1):
        seen += comb(malicious, f) * comb(num_clients - malicious, num_sampled - f)
        if Fraction(seen, total) >= Fraction(str(confidence)):
            return f
    raise AssertionError


@pytest.mark.parametrize("confidence", [0.5, 0.9, 0.99, 0.9999])
@pytest.mark.parametrize("num_sampled", [1, 2, 5, 10, 37])
@pytest.mark.parametrize(("num_clients", "fraction"), [(40, 0.1), (40, 0.45), (100, 0.1), (100, 0.2), (1000, 0.01)])
def test_equals_the_quantile_by_counting(
    num_clients: int, fraction: float, num_sampled: int, confidence: float
) -> None:
    malicious = floor(fraction * num_clients + 1e-9)
    expected = counted(malicious, num_clients, num_sampled, confidence)
    assert sampled_count(fraction, num_clients, num_sampled, confidence) == expected


@pytest.mark.parametrize("n", [1, 4, 20, 100])
@pytest.mark.parametrize("fraction", [0.0, 0.1, 0.2, 0.49])
def test_who_asks_everybody_needs_no_quantile(n: int, fraction: float) -> None:
    assert sampled_count(fraction, n, n, 0.999) == floor(fraction * n + 1e-9)
    rule = TrimmedMean(assumed_fraction=fraction)
    assert believed_rule(rule, n, num_clients=n, num_asked=n, confidence=0.99) is rule


@pytest.mark.parametrize(("num_clients", "num_sampled", "malicious"), [(100, 10, 10), (60, 12, 9), (1000, 30, 150)])
def test_the_server_draws_more_than_f_as_seldom_as_promised(num_clients: int, num_sampled: int, malicious: int) -> None:
    """Of 2000 rounds at most 1 % and five standard errors; ⌊εn⌋ is exceeded in a fifth of them and more."""
    server = Server(num_sampled=num_sampled)
    fraction = malicious / num_clients
    f = sampled_count(fraction, num_clients, num_sampled, 0.99)
    rounds = [server.sample_clients(num_clients, seed=5, round_number=number, forced=()) for number in range(2000)]
    counts = torch.tensor([sum(client < malicious for client in asked) for asked in rounds])
    assert float((counts > f).float().mean()) <= 0.01 + 5 * (0.01 * 0.99 / 2000) ** 0.5
    assert float((counts > floor(fraction * num_sampled + 1e-9)).float().mean()) > 0.2


@component
class OwnRule:
    """A user's rule with a belief and no `check_size`."""

    assumed_fraction: float

    def __call__(self, updates: Updates, weights: Weights | None = None) -> Aggregate:
        """The mean, and f in the diagnostics."""
        f = floor(self.assumed_fraction * len(updates) + 1e-9)
        return Aggregate(update=updates.mean(dim=0), diagnostics={"f": float(f)})


@pytest.mark.parametrize("rule", [SpectralFilter(assumed_fraction=0.1), OwnRule(assumed_fraction=0.1)])
def test_every_rule_with_a_belief_is_told_the_quantile(rule: object) -> None:
    """10 of 100 malicious and 10 sampled: P(more than 3) = 0.8 %, P(more than 2) = 6 %."""
    told = believed_rule(rule, 10, num_clients=100, num_asked=10, confidence=0.99)  # type: ignore[arg-type]
    assert told.assumed_fraction == pytest.approx(0.3)  # type: ignore[attr-defined]
    assert dataclasses.replace(told, assumed_fraction=0.1) == rule  # type: ignore[type-var]


def test_attackers_do_not_gain_by_others_that_fail() -> None:
    """4 of 20 may be malicious, 5 honest ones do not answer: f stays 4, where 0.2 of 15 is 3."""
    told = believed_rule(TrimmedMean(assumed_fraction=0.2), 15, num_clients=20, num_asked=20, confidence=0.99)
    assert isinstance(told, TrimmedMean)
    assert told.check_size(15) == 4


def test_a_rule_is_told_what_it_can_work_with_at_most() -> None:
    """20 of 100 malicious, 10 sampled: 5 would be needed; Krum works with f = 3 (n >= 2f + 3), Bulyan with 1."""
    assert sampled_count(0.2, 100, 10, 0.99) == 5
    for rule, most in ((Krum(assumed_fraction=0.2), 3), (SpectralFilter(assumed_fraction=0.2), 4)):
        told = believed_rule(rule, 10, num_clients=100, num_asked=10, confidence=0.99)
        assert told.check_size(10) == most  # type: ignore[attr-defined]
        (line,) = belief_warnings(Pipeline(aggregator=rule), 100, 10, 0.99)
        assert f"f={most}" in line
        assert "up to 5" in line
    bulyan = believed_rule(Bulyan(assumed_fraction=0.1), 10, num_clients=100, num_asked=10, confidence=0.99)
    assert isinstance(bulyan, Bulyan)
    assert bulyan.check_size(10) == 1


def test_a_belief_behind_buckets_is_one_of_buckets() -> None:
    """10 of 100, 10 sampled into 5 buckets: 0.2 of the buckets is 0.1 of the clients; 2 is the most of 5."""
    rule = Pipeline(
        preaggregators=(NearestNeighbourMixing(assumed_fraction=0.1), Bucketing(bucket_size=2)),
        aggregator=TrimmedMean(assumed_fraction=0.2),
    )
    told = believed_rule(rule, 10, num_clients=100, num_asked=10, confidence=0.99)
    assert isinstance(told, Pipeline)
    mixing, inner = told.preaggregators[0], told.aggregator
    assert isinstance(mixing, NearestNeighbourMixing)
    assert isinstance(inner, TrimmedMean)
    assert mixing.assumed_fraction == pytest.approx(0.3)
    assert inner.check_size(5) == 2


@pytest.mark.parametrize("fraction", [0.01, 0.1, 0.2])
@pytest.mark.parametrize("n", [2, 3, 4])
def test_a_belief_in_nobody_is_said(n: int, fraction: float) -> None:
    (line,) = belief_warnings(Pipeline(aggregator=SpectralFilter(assumed_fraction=fraction)), n, n, 0.99)
    assert line.startswith("SpectralFilter: ")
    assert f"{fraction:g} of {n} is none" in line


@pytest.mark.parametrize(
    "rule", [Mean(), CoordinateMedian(), TrimmedMean(num_trimmed=0), TrimmedMean(assumed_fraction=0.0)]
)
def test_a_rule_without_a_belief_is_not_warned_of(rule: object) -> None:
    assert list(belief_warnings(Pipeline(aggregator=rule), 4, 4, 0.99)) == []  # type: ignore[arg-type]
