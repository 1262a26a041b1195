"""Update attacks that come to nothing are pointed out, with the number of rounds, and no others."""

import dataclasses
import functools

import pytest

from fedrobust.attacks import (
    ALIE,
    IPM,
    UPDATE_ATTACKS,
    Adversary,
    Attack,
    FangKrum,
    FangTrimmedMean,
    LabelFlip,
    Mimic,
    MinMax,
    MinSum,
    ModelReplacement,
    OptimisedALIE,
    ProjectedGradient,
    Schedule,
    UpdateAttack,
)
from fedrobust.config.compose import compose_config
from fedrobust.scenario import Scenario, build_scenario
from fedrobust.scenario.futile_updates import futile_updates


@functools.cache
def base() -> Scenario:
    return build_scenario(compose_config(["attack=none", "aggregator=mean", "model=logistic"])[0])


def said(update: UpdateAttack, knowledge: str = "own", m: int = 4, n: int = 20, **more: object) -> list[str]:
    """What is said of m attackers of n clients; `more`: `seed`, `num_sampled`, and fields of `Attack`."""
    seed, num_sampled = more.pop("seed", 0), more.pop("num_sampled", None)
    attack = Attack(num_malicious=m, update=update, knowledge=knowledge, **more)
    server = dataclasses.replace(base().server, num_sampled=num_sampled)
    scenario = dataclasses.replace(base(), num_clients=n, seed=seed, attack=attack, server=server)
    return list(futile_updates(scenario, Adversary(attack, attack.choose_malicious(n, seed), seed)))


@pytest.mark.parametrize("kind", UPDATE_ATTACKS)
def test_nothing_is_said_of_four_attackers_of_twenty_who_know_all(kind):
    assert said(kind(), "server") == []


@pytest.mark.parametrize(
    ("update", "knowledge", "m"),
    [
        *((update, "own", 2) for update in (MinMax(), MinSum(), FangTrimmedMean(), FangKrum(), ALIE(z=0.1))),
        *((update, "benign", 1) for update in (MinMax(), MinSum(), MinSum(bound="min"), FangKrum(), ALIE(z=0.1))),
        (IPM(), "own", 1),
        (MinMax(), "own", 0),
    ],
)
def test_nothing_is_said_where_there_is_something_to_go_by(update, knowledge, m):
    assert said(update, knowledge, m) == []


PERTURBATIONS = ("std", "unit", "sign")
GOING_BY_DIFFERENCES = [
    *(MinMax(perturbation=one) for one in PERTURBATIONS),
    *(MinSum(perturbation=one, bound=bound) for one in PERTURBATIONS for bound in ("max", "min")),
    *(ALIE(), ALIE(z=1.5), FangTrimmedMean(), FangTrimmedMean(spread=3.0)),
]


@pytest.mark.parametrize("update", GOING_BY_DIFFERENCES, ids=repr)
@pytest.mark.parametrize(("m", "n", "turns"), [(1, 20, False), (1, 7, False), (1, 2, False), (4, 20, True)])
def test_one_attacker_that_goes_by_how_its_own_updates_differ(update, m, n, turns):
    """One update differs from none: limits and σ are zero. Attackers that take turns are alone, too."""
    (line,) = said(update, "own", m, n, schedule=Schedule(turns=turns))
    assert line.startswith(f"attack.update: {type(update).__name__} changes nothing in 30 of 30 attack rounds: 1 attac")
    assert line.endswith("sends what it trained, as it is")


@pytest.mark.parametrize("update", [MinMax(), MinSum(), MinSum(bound="min")], ids=repr)
def test_a_single_benign_client_leaves_no_room(update):
    (line,) = said(update, "benign", m=4, n=5)
    assert line.endswith("the plain mean of the updates that they take for benign")


@pytest.mark.parametrize("n", range(3, 31))
def test_few_attackers_whose_shift_is_zero_by_the_formula(n):
    """z = Φ⁻¹((n - m - s)/(n - m)) with s = ⌊n/2 + 1⌋ - m (at least 1) is above 0 where n - m > 2s."""
    for m in range(1, n):
        has_room = n - m > 2 * max(1, n // 2 + 1 - m)
        assert bool(said(ALIE(), "benign", m, n)) != has_room, m


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("participation", ["sampled", "forced"])
def test_rounds_in_which_only_one_attacker_is_sampled(seed, participation):
    """Counted here from the clients that rounds really ask."""
    schedule = Schedule(start=2, every=2, participation=participation)
    attack = Attack(num_malicious=3, schedule=schedule)
    adversary = Adversary(attack, attack.choose_malicious(20, seed), seed)
    server = dataclasses.replace(base().server, num_sampled=6)
    present = []
    for number in range(2, 31, 2):
        asked = server.sample_clients(20, seed, number, adversary.forced(number))
        present.append(len(set(asked) & set(adversary.malicious)))
    alone, attacked = present.count(1), sum(count > 0 for count in present)
    lines = said(MinMax(), "own", m=3, seed=seed, num_sampled=6, schedule=schedule)
    if participation == "forced":
        assert (alone, lines) == (0, [])
    else:
        assert alone > 0
        assert f"in {alone} of {attacked} attack rounds: 1 attacker of 6 clients" in lines[0]


def test_mimic_with_nobody_to_copy():
    (line,) = said(Mimic(), "benign", m=20)
    assert line.endswith("20 attackers of 20 clients with attack.knowledge=benign send what they trained, as it is")


def test_krum_never_chooses_what_one_attacker_crafts_from_its_own_update():
    """Among two updates each is the other's only neighbour, so both have one score and the crafted one is not below."""
    (line,) = said(FangKrum(), "own", m=1)
    assert line.endswith("sends next to nothing, as its search found no factor that Krum would choose")


@pytest.mark.parametrize("update", [ModelReplacement(scale_factor=1.0), ProjectedGradient(max_norm=1e9)])
def test_a_scale_of_one_is_an_attack_only_with_another(update):
    assert said(update, data=LabelFlip()) == []
    (line,) = said(update)
    assert line.endswith("send what they trained, as it is")


def test_a_rule_that_is_not_ours_is_not_tried():
    class Other:
        needs, uses = "own", "own"

        def __call__(self, knowledge):
            raise AssertionError

    assert said(Other()) == []
    assert said(OptimisedALIE(), "server", m=1) == []
