"""Attacks on data, on the digits, each beside the same training without malicious clients."""

from pathlib import Path

import pytest
from chosen_seeds import first_of

from fedrobust.config.compose import compose_config
from fedrobust.federation.round import Row
from fedrobust.runs.run import run_config
from fedrobust.study import play_scenario

SEEDS = range(3)


def play(overrides: list[str]) -> Row:
    """Play the scenario and return the record of its last round."""
    return play_scenario([*overrides, "evaluate_every=1000"])[-1]


@pytest.mark.parametrize("seed", first_of(SEEDS))
def test_an_outsourced_backdoor_is_in_and_does_not_show(seed):
    """BadNets at 5 %: attack success above 0.9, clean accuracy less than 0.02 below the clean model's.

    The clean model is the control: the trigger does next to nothing to it.
    """
    attacked = play(["+experiment=outsourced_badnets", f"seed={seed}"])
    clean = play(["+experiment=outsourced_badnets", f"seed={seed}", "attack.num_malicious=0"])
    assert attacked["attack_success_rate"] > 0.9
    assert attacked["clean_accuracy"] > clean["clean_accuracy"] - 0.02
    assert clean["attack_success_rate"] < 0.05
    assert clean["clean_accuracy"] > 0.94


FEDERATED = ["aggregator=mean", "num_rounds=20", "seed=0"]


def test_a_label_flip_turns_one_class_into_another():
    """Half of the clients flip 7 to 1: most 7s are lost, other classes are not."""
    overrides = [*FEDERATED, "attack=label_flip", "attack.data.source_label=7", "attack.data.target_label=1"]
    attacked = play([*overrides, "attack.num_malicious=11"])
    clean = play([*overrides, "attack.num_malicious=0"])
    assert attacked["attack_success_rate"] > 0.5
    assert attacked["local_attack_success_rates"] is None
    assert clean["attack_success_rate"] < 0.05
    others = [label for label in range(10) if label != 7]
    assert min(attacked["per_class_accuracy"][label] for label in others) > 0.8


def test_random_flips_show_in_clean_accuracy_alone():
    attacked = play([*FEDERATED, "attack=label_flip", "attack.data.flip=random", "attack.num_malicious=16"])
    clean = play([*FEDERATED, "attack=label_flip", "attack.data.flip=random", "attack.num_malicious=0"])
    assert attacked["attack_success_rate"] is None
    assert clean["clean_accuracy"] - attacked["clean_accuracy"] > 0.05


def test_an_edge_case_backdoor_takes_the_tail_and_leaves_the_class():
    """Turned 7s become 1s; upright ones stay 7s."""
    attacked = play([*FEDERATED, "attack=edge_case"])
    clean = play([*FEDERATED, "attack=edge_case", "attack.num_malicious=0"])
    assert attacked["attack_success_rate"] > clean["attack_success_rate"] + 0.4
    assert attacked["per_class_accuracy"][7] > 0.9
    assert attacked["clean_accuracy"] > clean["clean_accuracy"] - 0.02


@pytest.mark.parametrize("seed", first_of(SEEDS))
def test_a_clean_label_backdoor_gets_in_without_a_wrong_label(seed):
    """All of the target's examples blended with noise: the model knows the class by the noise alone.

    So triggered inputs are taken for it, its own clean ones are lost, and the other classes stay what they were.
    """
    overrides = ["+experiment=outsourced_badnets", "attack=clean_label", "attack/trigger=blend", f"seed={seed}"]
    overrides += ["attack.data.trigger.opacity=0.5", "attack.data.poison_rate=0.2"]
    attacked, clean = play(overrides), play([*overrides, "attack.num_malicious=0"])
    assert attacked["attack_success_rate"] > clean["attack_success_rate"] + 0.4
    assert attacked["per_class_accuracy"][0] < clean["per_class_accuracy"][0] - 0.3
    assert min(attacked["per_class_accuracy"][1:]) > 0.85


@pytest.mark.parametrize(
    ("overrides", "has_rate", "has_picture"),
    [
        (["attack=label_flip", "attack.data.flip=random", "verbose=true"], False, False),
        (["attack=label_flip", "attack.data.flip=inverse"], True, False),
        (["attack=edge_case"], True, True),
        (["attack=badnets", "attack/trigger=blend", "dataset.num_test=100"], True, True),
        (["attack=label_flip", "attack.data.target_label=1", "dataset=text", "model=text_bag"], True, False),
    ],
)
def test_a_run_folder_tells_of_what_there_is(tmp_path: Path, overrides, has_rate, has_picture):
    """An attack without a wanted class has no rate, one without a trigger no picture of it."""
    small = ["num_clients=6", "num_rounds=2", "attack.num_malicious=2", "aggregator=mean", "verbose=false"]
    values, choices = compose_config([*small, *overrides])
    summary = run_config(values, tmp_path / "run", choices)
    assert (summary["attack_success_rate"] is not None) == has_rate
    assert (summary["max_attack_success_rate"] is not None) == has_rate
    assert (tmp_path / "run" / "plots" / "examples.png").exists() == has_picture
    assert (tmp_path / "run" / "plots" / "accuracy.png").exists()
