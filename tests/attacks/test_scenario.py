"""Who is malicious, and what an adversary does to a round's updates."""

import pytest
import torch

from fedrobust.aggregators import Mean
from fedrobust.attacks import (
    ALIE,
    IPM,
    Adversary,
    Attack,
    Knowledge,
    Mimic,
    ModelReplacement,
    Neurotoxin,
    OptimisedIPM,
    ProjectedGradient,
    Schedule,
    ServerView,
)
from fedrobust.config.component import FieldError
from fedrobust.training.local_training import LocalTraining, TrainingOverrides

MODEL = torch.tensor([5.0, 5.0, 5.0])


def view(n: int, model: torch.Tensor = MODEL, **memory: torch.Tensor) -> ServerView:
    """A server that averages n clients, with what it remembers; `model` is what it sent them."""
    return ServerView(torch.full((n,), 1 / n, dtype=torch.float64), 1.0, Mean(), model, memory)


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
    clients, updates = (1, 2, 5, 9), torch.ones(4, 3)
    assert adversary.corrupt(clients, updates, view(4), round_number=2).rows == ()
    assert torch.equal(updates, torch.ones(4, 3))
    assert adversary.corrupt(clients, updates, view(4), round_number=3).rows == (1,)
    assert updates[:, 0].tolist() == [1, 10, 1, 1]
    assert adversary.corrupt(clients, updates, view(4), round_number=4).rows == (2,)
    assert updates[:, 0].tolist() == [1, 10, 10, 1]
    assert adversary.rank(5) == 1


def test_forced_attackers_are_those_of_the_round():
    attack = Attack(num_malicious=2, schedule=Schedule(rounds=[4], participation="forced"))
    assert Adversary(attack, (3, 8)).forced(4) == (3, 8)
    assert Adversary(attack, (3, 8)).forced(5) == ()
    sampled = Attack(num_malicious=2, schedule=Schedule(rounds=[4]))
    assert Adversary(sampled, (3, 8)).forced(4) == ()


class Spy:
    """An update attack that keeps what it was told, and changes nothing."""

    needs, traits = "own", frozenset({"uses_model_change"})

    def __init__(self, uses: str) -> None:
        self.uses = uses
        self.told: list[Knowledge] = []

    def __call__(self, knowledge: Knowledge) -> torch.Tensor:
        self.told.append(knowledge)
        if knowledge.answer is not None:
            knowledge.answer(torch.full_like(knowledge.own_updates, 100.0))
        return knowledge.own_updates


@pytest.mark.parametrize("granted", ["own", "benign", "server"])
@pytest.mark.parametrize("uses", ["own", "benign", "server"])
def test_attackers_are_told_what_is_granted_and_of_use_and_no_more(granted, uses):
    """Rows 0, 2 and 3 are benign; what an attack asks of the server leaves no trace in the updates."""
    spy = Spy(uses)
    adversary = Adversary(Attack(malicious_clients=[2], update=spy, knowledge=granted), (2,), seed=3)
    updates = torch.arange(12.0).reshape(4, 3)
    seen = view(4, **{"attack.received": MODEL - torch.tensor([1.0, 2.0, 3.0]), "rule.centre": torch.zeros(3)})
    corruption = adversary.corrupt((1, 2, 5, 9), updates, seen, round_number=1)
    assert corruption.rows == (1,)
    assert torch.equal(updates, torch.arange(12.0).reshape(4, 3))
    (told,) = spy.told
    assert (told.own_updates.tolist(), told.num_clients) == ([[3, 4, 5]], 4)
    assert told.model_change.tolist() == [1, 2, 3]
    level = min(["own", "benign", "server"].index(one) for one in (granted, uses))
    if level == 0:
        assert told.benign_updates is told.benign_weights is told.benign_clients is None
    else:
        assert told.benign_updates.tolist() == [[0, 1, 2], [6, 7, 8], [9, 10, 11]]
        assert told.benign_clients == (1, 5, 9)
        assert told.benign_weights.tolist() == [0.25] * 3
    if level < 2:
        assert told.answer is None
    else:
        torch.testing.assert_close(told.answer(torch.zeros(1, 3)), torch.tensor([15.0, 18, 21]) / 4)


def play(adversary: Adversary, models: list[torch.Tensor], asked: list[tuple[int, ...]]) -> dict[str, torch.Tensor]:
    """One round a model, which the clients of the round download; what the federation remembers in the end."""
    memory: dict[str, torch.Tensor] = {}
    for number, (model, clients) in enumerate(zip(models, asked, strict=True), start=1):
        seen = view(len(clients), model, **memory)
        corruption = adversary.corrupt(clients, torch.ones(len(clients), 3), seen, number)
        memory = dict(adversary.remember(corruption))
    return memory


MODELS = [torch.tensor([float(number**2), 0.0, -float(number)]) for number in range(1, 6)]


@pytest.mark.parametrize(
    ("asked", "changes"),
    [
        ([(0, 1), (0, 1), (0, 1), (0, 1), (0, 1)], [None, (0, 1), (1, 2), (2, 3), (3, 4)]),  # one attacker, always
        ([(0, 1), (1, 2), (1, 2), (0, 1), (0, 1)], [None, (0, 3), (3, 4)]),  # away for two rounds
        ([(1, 2), (1, 2), (0, 1), (1, 2), (0, 1)], [None, (2, 4)]),  # late
        ([(0, 1), (1, 7), (1, 2), (1, 2), (0, 7)], [None, (0, 1), (1, 4)]),  # two attackers tell each other
    ],
)
def test_attackers_know_how_the_model_changed_since_any_of_them_received_it(asked, changes):
    """The last two global models that client 0 or 7 received, subtracted; nothing that no client of theirs was sent."""
    spy = Spy("own")
    play(Adversary(Attack(malicious_clients=[0, 7], update=spy), (0, 7)), MODELS, asked)
    seen = [None if told.model_change is None else told.model_change.tolist() for told in spy.told]
    assert seen == [None if pair is None else (MODELS[pair[1]] - MODELS[pair[0]]).tolist() for pair in changes]


def test_malicious_clients_remember_the_model_in_rounds_in_which_they_do_not_attack():
    """They train as benign clients then, on a model that they received all the same."""
    for rest in (False, True):
        spy = Spy("own")
        attack = Attack(malicious_clients=[0], update=spy, schedule=Schedule(rounds=[5]))
        adversary = Adversary(attack, (0,))
        memory = play(adversary.at_rest() if rest else adversary, MODELS[:4], [(0, 1)] * 3 + [(1, 2)])
        assert memory["attack.received"] is MODELS[2]
        adversary.corrupt((0, 1), torch.ones(2, 3), view(2, MODELS[4], **memory), 5)
        assert spy.told[-1].model_change.tolist() == (MODELS[4] - MODELS[2]).tolist()


def test_the_model_is_kept_only_for_attackers_who_ask():
    """And never where nobody is malicious: a benign run remembers nothing of an attack."""
    asked = [(0, 1)] * 5
    asking = Adversary(Attack(malicious_clients=[0], update=Neurotoxin()), (0,))
    assert list(play(asking, MODELS, asked)) == ["attack.received"]
    silent = Adversary(Attack(malicious_clients=[0], update=ALIE()), (0,))
    nobody = Adversary(Attack(num_malicious=0, update=Neurotoxin()), ())
    elsewhere = Adversary(Attack(malicious_clients=[9], update=Neurotoxin()), (9,))
    for one in (silent, nobody, elsewhere):
        assert play(one, MODELS, asked) == {}


def test_what_attackers_learned_outlives_rounds_in_which_they_are_not_sampled():
    adversary = Adversary(Attack(malicious_clients=[0], update=Mimic(), knowledge="benign"), (0,))
    first = adversary.corrupt((0, 1, 2), torch.eye(3), view(3), 1)
    memory = adversary.remember(first)
    absent = adversary.corrupt((1, 2), torch.eye(3)[1:], view(2, **memory), 2)
    assert adversary.remember(absent) == memory
    again = adversary.corrupt((0, 1, 2), torch.eye(3), view(3, **memory), 3)
    assert again.memory["mimicked"][0] == 2


@pytest.mark.parametrize(
    ("update", "knowledge", "text"),
    [
        (Mimic(), "own", "knowledge: must be benign or server for Mimic, got 'own'"),
        (ProjectedGradient(), "own", "knowledge: must be benign or server for ProjectedGradient, got 'own'"),
        (OptimisedIPM(), "benign", "knowledge: must be server for OptimisedIPM, got 'benign'"),
        (IPM(), "all", "knowledge: must be 'own', 'benign' or 'server', got 'all'"),
    ],
)
def test_an_attack_says_what_it_must_know(update, knowledge, text):
    with pytest.raises(FieldError) as refusal:
        Attack(num_malicious=1, update=update, knowledge=knowledge)
    assert str(refusal.value) == text
    Attack(num_malicious=1, update=update, knowledge="server")


def test_a_norm_of_ones_own_needs_no_knowledge():
    Attack(num_malicious=1, update=ProjectedGradient(max_norm=2.0))
