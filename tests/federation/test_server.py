"""Sampling and weighing, against counts and fractions written out by hand."""

import torch

from fedrobust.aggregators import CoordinateMedian, Mean
from fedrobust.federation.server import Server


def test_all_clients_or_a_sample():
    assert Server().sample_clients(5, seed=0, round_number=1, forced=()) == (0, 1, 2, 3, 4)
    sample = Server(num_sampled=3).sample_clients(50, seed=0, round_number=1, forced=())
    assert len(set(sample)) == 3
    assert list(sample) == sorted(sample)


def test_samples_are_uniform_over_rounds():
    """Each of 10 clients is in a sample of 3 with probability 0.3: in 2000 rounds a binomial count, sigma 20.5."""
    server, counts = Server(num_sampled=3), torch.zeros(10)
    for number in range(2000):
        counts[list(server.sample_clients(10, seed=1, round_number=number, forced=()))] += 1
    assert float((counts - 600).abs().max()) < 5 * 20.5


def test_forced_clients_take_the_place_of_sampled_ones():
    """All but one of the sample of the same round stay."""
    server = Server(num_sampled=4)
    free = set(server.sample_clients(30, seed=0, round_number=7, forced=()))
    outsider = next(client for client in range(30) if client not in free)
    forced = set(server.sample_clients(30, seed=0, round_number=7, forced=(outsider,)))
    assert outsider in forced
    assert len(forced) == 4
    assert len(forced & free) == 3


def test_weights():
    claims = torch.tensor([1, 3])
    assert Server().weigh(claims, Mean()).tolist() == [0.25, 0.75]
    assert Server(weights="num_examples").weigh(claims, CoordinateMedian()).tolist() == [0.25, 0.75]
    assert Server().weigh(claims, CoordinateMedian()).tolist() == [0.5, 0.5]
    assert Server(weights="capped", max_claim_ratio=2.0).weigh(claims, Mean()).tolist() == [1 / 3, 2 / 3]


def test_step_size_after_a_warm_start():
    server = Server(learning_rate=0.1, warm_start_rounds=10, warm_start_learning_rate=1.0)
    assert [server.step_size(number) for number in (1, 10, 11, 50)] == [1.0, 1.0, 0.1, 0.1]


def test_excluded_clients_are_not_asked_even_if_forced():
    """The others of the same round's draw stay, and the next of the permutation take the places of the excluded."""
    server = Server(num_sampled=5)
    free = server.sample_clients(30, seed=0, round_number=3, forced=())
    without = server.sample_clients(30, seed=0, round_number=3, forced=(), excluded=free[:2])
    assert len(without) == 5
    assert not set(free[:2]) & set(without)
    assert set(free[2:]) <= set(without)
    assert free[0] not in server.sample_clients(30, seed=0, round_number=3, forced=(free[0],), excluded={free[0]})
    assert Server().sample_clients(4, seed=0, round_number=1, forced=(), excluded=(1, 3)) == (0, 2)
    assert server.sample_clients(3, seed=0, round_number=1, forced=(1,), excluded=(0, 1, 2)) == ()
