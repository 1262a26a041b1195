"""What attackers will not do is pointed out, and nothing is where they will."""

import pytest

from fedrobust.config.compose import compose_config
from fedrobust.scenario import build_scenario, prepare_clients
from fedrobust.scenario.futile_attacks import futile_attacks


def warnings(*overrides: str) -> list[str]:
    scenario = build_scenario(compose_config(list(overrides))[0])
    return list(futile_attacks(scenario, prepare_clients(scenario)))


@pytest.mark.parametrize(
    "overrides",
    [
        ["attack=dba"],
        ["attack=dba", "attack.data.poison_rate=null", "attack.data.poison_count=1"],
        ["attack=coalition"],
        ["attack=edge_case"],
        ["attack=sign_flip"],
        ["attack=min_max"],
        ["attack=dba", "attack.update.scale_factor=1"],
        ["attack=blind_backdoor"],
        ["attack=none"],
        ["attack=none", "attack.num_malicious=2", "attack.training.num_epochs=9"],
        ["attack=badnets", "attack.num_malicious=0", "attack.data.poison_rate=1e-6", "attack.schedule.start=99"],
    ],
    ids=lambda overrides: " ".join(overrides),
)
def test_nothing_is_said_of_what_works(overrides):
    assert warnings(*overrides) == []


def test_a_rate_of_less_than_half_an_example():
    """200 clients hold six or seven of 1,297 examples each: 5 % of them is a third of one."""
    (warning,) = warnings("attack=badnets", "num_clients=200", "attack.data.poison_rate=0.05")
    assert warning.startswith("no attacker has anything to poison")
    assert warnings("attack=badnets", "num_clients=200", "attack.data.poison_rate=0.2") == []


def test_attackers_without_the_class_that_they_start_from():
    """Two classes a client: whether some attacker holds the source class is counted here from the labels."""
    base = ["partition=pathological", "partition.num_classes_per_client=2", "attack=badnets", "attack.num_malicious=1"]
    said = {}
    for source in (0, 1, 3, 4, 5, 6, 7, 8, 9):
        overrides = [*base, f"attack.data.source_label={source}"]
        population = prepare_clients(build_scenario(compose_config(overrides)[0]))
        (attacker,) = population.adversary.malicious
        held = set(population.dataset.train.labels[population.assignment[attacker]].tolist())
        said[source in held] = warnings(*overrides)
    assert said[True] == []
    assert said[False][0].startswith("no attacker has anything to poison")


def test_malicious_clients_without_an_attack():
    (warning,) = warnings("attack=none", "attack.num_malicious=2")
    assert warning.startswith("malicious clients train as benign ones")


def test_an_update_attack_that_comes_to_nothing():
    (warning,) = warnings("attack=min_max", "attack.num_malicious=1", "attack.knowledge=own")
    assert warning == (
        "attack.update: MinMax changes nothing in 30 of 30 attack rounds: 1 attacker of 20 clients with "
        "attack.knowledge=own sends what it trained, as it is"
    )


def test_members_without_an_attacker():
    (warning,) = warnings("attack=coalition", "attack.num_malicious=1")
    assert "do what the first 1 do; success is judged by all 2" in warning
