import pytest
import torch

from fedrobust.aggregators import Krum, Mean, SpectralFilter
from fedrobust.federation.weighting import claimed_weights, weighting_for
from fedrobust.preaggregators import Clipping, Pipeline


@pytest.mark.parametrize("claim", [1, 10**3, 10**9, 2**63 - 1])
@pytest.mark.parametrize("n", [3, 4, 10, 101])
def test_a_capped_claim_counts_for_so_many_typical_clients(n: int, claim: int) -> None:
    """n - 1 clients claim 60, one claims anything: at most 2·60 of 60(n - 1) + 120, that is 2/(n + 1)."""
    claims = torch.full((n,), 60)
    claims[0] = claim
    weights = claimed_weights(claims, "capped", 2.0)
    assert float(weights.sum()) == pytest.approx(1)
    assert float(weights[0]) == pytest.approx(min(claim, 120) / (min(claim, 120) + 60 * (n - 1)))
    assert float(claimed_weights(claims, "uniform", 2.0)[0]) == pytest.approx(1 / n)
    assert float(claimed_weights(claims, "num_examples", 2.0)[0]) == pytest.approx(claim / (claim + 60 * (n - 1)))


def test_liars_who_are_fewer_than_half_do_not_move_the_cap_beyond_honest_claims() -> None:
    """With 4 liars of 9 the median is an honest claim, at most 80: no weight exceeds 160/(5·40 + 4·160) of the sum."""
    claims = torch.tensor([40, 50, 60, 70, 80, 10**12, 10**12, 10**12, 10**12])
    weights = claimed_weights(claims, "capped", 2.0)
    assert float(weights.max()) == pytest.approx(160 / (40 + 50 + 60 + 70 + 80 + 4 * 160))


def test_two_claims_whose_sum_overflows() -> None:
    claims = torch.tensor([1e308, 1e308, 1.0], dtype=torch.float64)
    assert claimed_weights(claims, "num_examples", 2.0).tolist() == pytest.approx([0.5, 0.5, 0])


def test_auto_trusts_claims_under_the_plain_mean_alone() -> None:
    plain, robust = Pipeline(aggregator=Mean()), Pipeline(aggregator=SpectralFilter(assumed_fraction=0.2))
    clipped = Pipeline(preaggregators=(Clipping(max_norm=1.0),), aggregator=Mean())
    assert weighting_for(plain, "auto") == weighting_for(Mean(), "auto") == "num_examples"
    for rule in (robust, clipped, Krum(assumed_fraction=0.2)):
        assert weighting_for(rule, "auto") == "uniform"
        assert weighting_for(rule, "capped") == "capped"
    assert weighting_for(plain, "uniform") == "uniform"
