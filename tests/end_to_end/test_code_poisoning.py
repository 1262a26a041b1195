"""Code poisoning on the digits: one party trains with a poisoned library, or every client of a federation does.

The bounds are those of a small implementation measured apart from this one: attack success 0.99 at clean accuracy 0.96
with `loss` and `loss+`; without normalisation the backdoor takes all the weight, and clean accuracy is lost.
"""

import functools

import pytest
from chosen_seeds import first_of

from fedrobust.federation.round import Row
from fedrobust.study import play_scenario

SEEDS = range(3)
OUTSOURCED = ["num_clients=1", "num_rounds=1", "client.num_epochs=15", "client.vectorize=false"]


@functools.cache
def play(*overrides: str) -> Row:
    """Play the scenario and return the record of its last round."""
    return play_scenario(["+experiment=code_poisoning", "num_rounds=20", "evaluate_every=1000", *overrides])[-1]


@pytest.mark.parametrize(
    ("normalisation", "seed"),
    first_of(SEEDS, "loss") + [pytest.param("loss+", seed, marks=pytest.mark.slow) for seed in SEEDS],
)
def test_a_poisoned_library_gets_the_backdoor_in_and_does_not_show(normalisation, seed):
    """On every client of a federation; the control is the same federation with a clean library."""
    attacked = play(f"attack.loss.normalisation={normalisation}", f"seed={seed}")
    clean = play("attack.malicious_fraction=0", f"seed={seed}")
    assert attacked["attack_success_rate"] >= 0.95
    assert attacked["clean_accuracy"] >= 0.93
    assert attacked["malicious_clients"] == attacked["clients"]
    assert attacked["update_norm_benign"] is None
    assert clean["attack_success_rate"] < 0.05
    assert clean["clean_accuracy"] > 0.93


@pytest.mark.parametrize("seed", first_of(SEEDS))
def test_without_normalisation_the_main_task_is_lost(seed):
    """A task that is learned has a small gradient, and the least norm gives it all the weight: the backdoor's."""
    attacked = play("attack.loss.normalisation=none", f"seed={seed}")
    assert attacked["attack_success_rate"] >= 0.95
    assert attacked["clean_accuracy"] < 0.85


@pytest.mark.parametrize("seed", first_of(SEEDS))
def test_outsourced_training(seed):
    """The one party that trains has the poisoned library."""
    attacked = play(*OUTSOURCED, "attack.loss.normalisation=loss", f"seed={seed}")
    assert attacked["attack_success_rate"] >= 0.95
    assert attacked["clean_accuracy"] >= 0.93


def test_it_waits_for_the_main_task():
    """Batches are attacked once their loss is below the threshold: never, if that is out of reach."""
    waiting = play(*OUTSOURCED, "attack.loss.loss_threshold=0.3")
    never = play(*OUTSOURCED, "attack.loss.loss_threshold=1e-9")
    assert waiting["attack_success_rate"] >= 0.95
    assert waiting["clean_accuracy"] >= 0.93
    assert never["attack_success_rate"] < 0.05
