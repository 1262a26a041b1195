"""Who is malicious, and what an adversary does to a round's updates."""

import pytest
import torch

from fedrobust.attacks import Adversary, Attack, ModelReplacement, Schedule
from fedrobust.clients.local_training import LocalTraining, TrainingOverrides
from fedrobust.component import FieldError


def test_malicious_clients_are_drawn_by_seed_or_named():
    attack = Attack(num_malicious=4)
    first = attack.choose_malicious(20, seed=0)
    assert len(set(first)) == 4
    assert list(first) == sorted(first)
    assert attack.choose_malicious(20, seed=0) == first
    assert len({attack.choose_malicious(20, seed) for seed in range(10)}) > 5
    assert Attack(malicious_clients=[7, 3]).choose_malicious(20, seed=0) == (3, 7)
    assert len(Attack(malicious_fraction=0.3).choose_malicious(10, seed=0)) == 3
    assert len(Attack(malicious_fraction=0.29).choose_malicious(10, seed=0)) == 2


def test_fewer_malicious_clients_are_part_of_more():
    """So that a sweep over their number changes as little as it can."""
    four = set(Attack(num_malicious=4).choose_malicious(20, seed=1))
    assert four < set(Attack(num_malicious=8).choose_malicious(20, seed=1))


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({}, "num_malicious: must be given, or malicious_fraction, or malicious_clients; exactly one"),
        ({"num_malicious": 1, "malicious_fraction": 0.1}, "num_malicious: must be given"),
        ({"malicious_clients": [1, 1]}, r"malicious_clients: must not repeat a client, got \[1, 1\]"),
        ({"num_malicious": 21}, "num_malicious: must be at most num_clients=20, got 21"),
        ({"malicious_clients": [20]}, r"malicious_clients: must be below num_clients=20, got \[20\]"),
        ({"num_malicious": -1}, "num_malicious: must be greater than or equal to 0, got -1"),
    ],
)
def test_impossible_choices_are_refused(fields, text):
    with pytest.raises(FieldError, match=text):
        Attack(**fields).choose_malicious(20, seed=0)


def test_attackers_change_only_what_they_override():
    benign = LocalTraining(learning_rate=0.1, num_epochs=1, batch_size=8, momentum=0.9)
    adversary = Adversary(Attack(num_malicious=1, training=TrainingOverrides(num_epochs=6, learning_rate=0.05)), (0,))
    own = adversary.training(benign)
    assert (own.learning_rate, own.num_epochs, own.batch_size, own.momentum) == (0.05, 6, 8, 0.9)


def test_only_the_rows_of_this_rounds_attackers_change():
    attack = Attack(
        malicious_clients=[2, 5],
        schedule=Schedule(start=3, turns=True),
        update=ModelReplacement(scale_factor=10.0),
    )
    adversary = Adversary(attack, (2, 5))
    clients, weights = (1, 2, 5, 9), torch.full((4,), 0.25, dtype=torch.float64)
    updates = torch.ones(4, 3)
    assert adversary.corrupt(clients, updates, weights, 1.0, round_number=2) == ()
    assert torch.equal(updates, torch.ones(4, 3))
    assert adversary.corrupt(clients, updates, weights, 1.0, round_number=3) == (1,)
    assert updates[:, 0].tolist() == [1, 10, 1, 1]
    assert adversary.corrupt(clients, updates, weights, 1.0, round_number=4) == (2,)
    assert updates[:, 0].tolist() == [1, 10, 10, 1]
    assert adversary.rank(5) == 1


def test_forced_attackers_are_those_of_the_round():
    attack = Attack(num_malicious=2, schedule=Schedule(rounds=[4], participation="forced"))
    assert Adversary(attack, (3, 8)).forced(4) == (3, 8)
    assert Adversary(attack, (3, 8)).forced(5) == ()
    sampled = Attack(num_malicious=2, schedule=Schedule(rounds=[4]))
    assert Adversary(sampled, (3, 8)).forced(4) == ()
