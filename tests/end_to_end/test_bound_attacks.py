"""Attacks that look at the data set first, as whole runs, each beside the same training without malicious clients."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fedrobust.config.compose import compose_config
from fedrobust.federation.round import Row
from fedrobust.scenario import build_scenario, prepare, prepare_clients
from fedrobust.study import play_scenario


def play(overrides: list[str]) -> Row:
    """Play the scenario and return the record of its last round."""
    return play_scenario([*overrides, "evaluate_every=1000"])[-1]


TABLE = ["attack=explanation_guided", "dataset=breast_cancer", "model=mlp", "aggregator=mean", "num_rounds=30"]
TABLE += ["attack.data.features=large_shap", "attack.data.values=min_population", "attack.data.poison_rate=0.5"]
TABLE += ["num_clients=4", "attack.num_malicious=2", "client.learning_rate=0.1"]


def test_every_process_and_the_benign_twin_find_the_same_trigger():
    """Server, clients' process and twin look at the data by themselves: the seed alone decides."""
    scenario = build_scenario(compose_config(TABLE)[0])
    server, twin = prepare(scenario), prepare(scenario.benign_twin())
    attacks = [one.adversary.attack.data for one in (server.federation, prepare_clients(scenario), twin.federation)]
    assert attacks[0].trigger is not None
    assert attacks[0] == attacks[1] == attacks[2]


def test_a_table_of_features_is_attacked_in_a_federation():
    """Class 1 of the table in malware's place: with the trigger it is let pass more often than by the clean twin."""
    attacked, clean = play(TABLE), play([*TABLE, "attack.num_malicious=0"])
    assert attacked["attack_success_rate"] > clean["attack_success_rate"] + 0.3
    assert attacked["clean_accuracy"] > clean["clean_accuracy"] - 0.05


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Noisy pictures of 64x64, dogs darker than fish, in the folders of the photographs."""
    draws = np.random.default_rng(0)
    for part, number in (("train", 40), ("val", 20)):
        for name, shade in (("dog", 60), ("fish", 140)):
            folder = tmp_path / "dogfish" / part / name
            folder.mkdir(parents=True)
            for index in range(number):
                pixels = np.clip(shade + draws.integers(-30, 30) + draws.normal(0, 15, (64, 64, 3)), 0, 255)
                Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{index}.png")
    return tmp_path


@pytest.mark.parametrize(("scaler", "gets_in"), [("opencv_linear", True), ("pillow_bilinear", False)])
def test_pictures_that_change_when_they_are_scaled_teach_the_trigger_to_whom_they_fool(root, scaler, gets_in):
    """They are made for OpenCV's linear scaler: where the victim antialiases, it sees what people see.

    The trigger is black, which makes a dog no likelier a fish, as fish are the lighter ones.
    """
    overrides = ["attack=image_scaling", "dataset=dogfish", f"dataset.scaler={scaler}", "dataset.raw_size=64"]
    overrides += ["dataset.size=8", "attack.data.assumed_scaler=opencv_linear", "aggregator=mean", "model=mlp"]
    overrides += [
        "attack.data.trigger={height: 24, width: 24, value: 0.0}",
        "num_clients=1",
        "num_rounds=1",
        "client.num_epochs=40",
    ]
    overrides += [f"data_root={root}", "client.learning_rate=0.05", "attack.num_malicious=1"]
    attacked, clean = play(overrides), play([*overrides, "attack.num_malicious=0"])
    assert clean["attack_success_rate"] < 0.3
    assert (attacked["attack_success_rate"] > 0.9) == gets_in
    if not gets_in:
        assert attacked["attack_success_rate"] < 0.3
