import pytest

from fedrobust.config.building import GROUPS, ConfigError
from fedrobust.config.compose import compose_config


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ([], "none"),
        (["preaggregator=[]"], "none"),
        (["preaggregator=clipping"], "clipping"),
        (["preaggregator=[clipping]"], "clipping"),
        (["preaggregator=[clipping,bucketing]"], "clipping+bucketing"),
        (["preaggregator=[bucketing,clipping]"], "bucketing+clipping"),
    ],
)
def test_a_pipeline_is_among_the_choices_in_its_order(overrides: list[str], expected: str) -> None:
    """Hydra's own record leaves out whatever was chosen by a list."""
    values, choices = compose_config(overrides)
    assert choices["preaggregator"] == expected
    assert list(values["preaggregator"]) == ([] if expected == "none" else expected.split("+"))
    assert set(choices) == set(GROUPS)


def test_a_list_of_one_is_that_one() -> None:
    values, choices = compose_config(["aggregator=[mean]"])
    assert choices["aggregator"] == "mean"
    assert values["aggregator"] == {"_target_": "fedrobust.aggregators.Mean"}


@pytest.mark.parametrize("override", ["aggregator=[mean,krum]", "aggregator=[]", "preaggregator=[clipping,clipping]"])
def test_lists_that_hydra_would_merge_are_refused(override: str) -> None:
    with pytest.raises(ConfigError, match="must"):
        compose_config([override])
