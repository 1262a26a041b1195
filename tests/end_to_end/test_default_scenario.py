"""The claims of the README's first table: the default attack gets in under the mean, and stays out of the filters."""

import pytest
from chosen_seeds import first_of

from fedrobust.federation.round import Row
from fedrobust.study import play_scenario

SEEDS = range(5)


def last_round(overrides: list[str]) -> Row:
    """Play the scenario and return the record of its last round."""
    return play_scenario([*overrides, "evaluate_every=1000"])[-1]


@pytest.mark.parametrize("seed", first_of(SEEDS))
@pytest.mark.parametrize("aggregator", ["mean", "spectral_filter", "sever"])
def test_the_default_backdoor_gets_past_the_mean_and_not_past_the_filters(aggregator, seed):
    row = last_round([f"aggregator={aggregator}", f"seed={seed}"])
    assert row["clean_accuracy"] >= 0.90
    if aggregator == "mean":
        assert row["attack_success_rate"] >= 0.8
    else:
        assert row["attack_success_rate"] <= 0.15


@pytest.mark.parametrize("seed", first_of((0, 1)))
def test_without_attackers_the_trigger_does_nothing(seed):
    """The control that the success rates above must be read against."""
    row = last_round(["attack.num_malicious=0", "aggregator=mean", f"seed={seed}"])
    assert row["attack_success_rate"] <= 0.05
    assert row["clean_accuracy"] >= 0.90
