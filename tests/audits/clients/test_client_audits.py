"""Audits of clients against ranks, clusters and averages worked out by hand."""

import pytest
import torch

from fedrobust.aggregators import CoordinateMedian, SpectralFilter
from fedrobust.aggregators.base import Aggregate
from fedrobust.audits.clients import ClientAudit, Reputation, RuleScores, UpdateClustering
from fedrobust.config.component import FieldError
from fedrobust.seeds import torch_generator


def answer(scores: list[float] | None = None, shares: list[float] | None = None) -> Aggregate:
    made = [None if values is None else torch.tensor(values) for values in (shares, scores)]
    return Aggregate(torch.zeros(2), *made)


def two_groups(num_benign: int = 9, num_malicious: int = 3) -> torch.Tensor:
    """Benign updates about one direction, malicious ones about the opposite of it."""
    noise = torch.randn(num_benign + num_malicious, 50, generator=torch_generator(0, "test"))
    direction = torch.ones(50)
    direction[:25] = -1.0
    signs = torch.tensor([1.0] * num_benign + [-1.0] * num_malicious)
    return signs[:, None] * 3 * direction + 0.5 * noise


def test_ranks_of_scores():
    """Scores 5, 1, 9, 1 have ranks 3, 1.5, 4, 1.5 of four; (rank - 1/2) / 4."""
    suspicion = RuleScores().suspicion(torch.zeros(4, 2), answer(scores=[5.0, 1.0, 9.0, 1.0]))
    assert suspicion.tolist() == [0.625, 0.25, 0.875, 0.25]


def test_shares_where_there_are_no_scores():
    """One of four is left out: it has rank 4, the others share 2."""
    suspicion = RuleScores().suspicion(torch.zeros(4, 2), answer(shares=[0.5, 0.25, 0.0, 0.25]))
    assert suspicion.tolist() == [0.375, 0.375, 0.875, 0.375]


def test_a_rule_that_judges_nobody_is_refused():
    updates = two_groups()
    with pytest.raises(ValueError, match="gives neither"):
        RuleScores().suspicion(updates, CoordinateMedian()(updates))


def test_attackers_have_the_highest_ranks_under_a_spectral_filter():
    updates = two_groups()
    suspicion = RuleScores().suspicion(updates, SpectralFilter(assumed_fraction=0.25)(updates))
    assert set(suspicion.topk(3).indices.tolist()) == {9, 10, 11}
    assert float(suspicion.mean()) == pytest.approx(0.5)  # ranks 1 to n, less a half each


def test_who_points_elsewhere_is_outside_the_largest_cluster():
    suspicion = UpdateClustering().suspicion(two_groups(), answer())
    assert suspicion[9:].tolist() == [1.0, 1.0, 1.0]
    assert float(suspicion[:9].max()) < 1.0


def test_clusters_know_directions_not_lengths():
    """Ten times the length in the same direction is no outlier; the opposite direction is."""
    updates = two_groups(12, 0)
    updates[0] *= 10.0
    updates[1] *= -1.0
    suspicion = UpdateClustering().suspicion(updates, answer())
    assert float(suspicion[0]) < 1.0
    assert float(suspicion[1]) == 1.0


def test_of_two_largest_clusters_neither_is_suspected():
    """Five clients point one way, five another: sizes do not tell whose way is wrong. Three point a third way."""
    directions = torch.eye(3).repeat_interleave(20, dim=1)[[0] * 5 + [1] * 5 + [2] * 3]
    updates = directions + 0.1 * torch.randn(13, 60, generator=torch_generator(0, "test"))
    assert UpdateClustering().suspicion(updates, answer()).tolist() == [0.5] * 10 + [1.0] * 3


@pytest.mark.parametrize("num_clients", [1, 2])
def test_too_few_for_a_cluster_is_no_suspicion(num_clients):
    assert UpdateClustering().suspicion(two_groups(num_clients, 0), answer()).tolist() == [0.5] * num_clients


@pytest.mark.parametrize("audit", [RuleScores(), UpdateClustering()])
def test_order_of_clients_is_irrelevant_and_inputs_are_left_alone(audit):
    assert isinstance(audit, ClientAudit)
    updates = two_groups()
    before, order = updates.clone(), torch.randperm(12, generator=torch_generator(1, "test"))
    rule = SpectralFilter(assumed_fraction=0.25)
    one = audit.suspicion(updates, rule(updates))
    other = audit.suspicion(updates[order], rule(updates[order]))
    assert torch.equal(updates, before)
    assert (one.dtype, one.shape) == (torch.float64, (12,))
    torch.testing.assert_close(one[order], other, atol=1e-9, rtol=0)


def test_averages_with_and_without_decay():
    """Client 1 was judged 0.2, then 1.0: mean 0.6; with decay 1/2 (0.5 * 0.2 + 1) / 1.5 = 11/15."""
    for decay, expected in ((1.0, 0.6), (0.5, 11 / 15), (0.0, 1.0)):
        reputation = Reputation(decay=decay)
        memory = reputation.remember({}, [1, 3], torch.tensor([0.2, 0.5]), 5)
        memory = reputation.remember(memory, [0, 1], torch.tensor([float("nan"), 1.0]), 5)
        averages = reputation.averages(memory, 5)
        assert float(averages[1]) == pytest.approx(expected)
        assert float(averages[3]) == 0.5
        assert averages[[0, 2, 4]].isnan().all()
    assert Reputation().averages({}, 2).isnan().all()


def test_exclusion_waits_for_enough_rounds():
    reputation = Reputation(exclusion_threshold=0.7, min_rounds=2)
    memory = reputation.remember({}, [0, 1], torch.tensor([0.9, 0.1]), 3)
    assert reputation.excluded(memory, 3) == ()
    memory = reputation.remember(memory, [0, 1], torch.tensor([0.9, 0.1]), 3)
    assert reputation.excluded(memory, 3) == (0,)
    memory = reputation.remember(memory, [0, 2], torch.tensor([0.1, 0.9]), 3)
    assert reputation.excluded(memory, 3) == ()  # 0.63 on average; and client 2 took part once
    assert reputation.excluded({}, 3) == ()


def test_ranges():
    with pytest.raises(FieldError, match="decay"):
        Reputation(decay=1.5)
    with pytest.raises(FieldError, match="min_cluster_size"):
        UpdateClustering(min_cluster_size=1)
