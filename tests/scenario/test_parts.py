import pytest
import torch

from fedrobust.config.building import ConfigError
from fedrobust.config.compose import compose_config
from fedrobust.scenario import Scenario, build_scenario, load_dataset
from fedrobust.scenario.parts import draw_clean_examples, initial_model

NUM_TRAIN = 1297  # of scikit-learn's 1,797 digits, all but the 500 that are tested on


def scenario(*overrides: str) -> Scenario:
    return build_scenario(compose_config(list(overrides))[0])


def test_clean_examples_are_distinct_and_by_seed_and_purpose():
    """All of them are a permutation of 0..1296; a random one has hardly a place in common with another."""
    one, other = scenario("seed=1"), scenario("seed=2")
    dataset = load_dataset(one)
    drawn = draw_clean_examples(one, dataset, NUM_TRAIN, "audit.num_clean", "audit")
    assert drawn.sort().values.tolist() == list(range(NUM_TRAIN))
    assert torch.equal(drawn, draw_clean_examples(one, dataset, NUM_TRAIN, "audit.num_clean", "audit"))
    for unlike in (
        draw_clean_examples(other, dataset, NUM_TRAIN, "audit.num_clean", "audit"),
        draw_clean_examples(one, dataset, NUM_TRAIN, "audit.num_clean", "root"),
    ):
        assert int((drawn == unlike).sum()) < 20


def test_no_more_clean_examples_than_there_are():
    one = scenario()
    with pytest.raises(ConfigError, match=r"^aggregator.num_root_examples: must be at most 1297, .* got 1298$"):
        draw_clean_examples(one, load_dataset(one), NUM_TRAIN + 1, "aggregator.num_root_examples", "root")


def test_the_initial_model_goes_by_seed_and_purpose():
    one, other = scenario("seed=1"), scenario("seed=2")
    dataset = load_dataset(one)
    first, again, fresh, unlike = (
        next(model.parameters())
        for model in (
            initial_model(one, dataset),
            initial_model(one, dataset),
            initial_model(one, dataset, "new head"),
            initial_model(other, dataset),
        )
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, fresh)
    assert not torch.equal(first, unlike)
