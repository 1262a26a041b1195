"""A trigger on features."""

import pytest
import torch

from fedrobust.attacks.triggers import FeatureTrigger
from fedrobust.config.component import FieldError


def test_the_features_get_their_values_and_the_inputs_stay() -> None:
    inputs = torch.arange(12.0).view(3, 4)
    before = inputs.clone()
    stamped = FeatureTrigger(features=[3, 1], values=[-1.0, 0.5]).stamp(inputs)
    assert stamped.tolist() == [[0, 0.5, 2, -1], [4, 0.5, 6, -1], [8, 0.5, 10, -1]]
    assert torch.equal(inputs, before)
    assert stamped.dtype == inputs.dtype


@pytest.mark.parametrize(
    ("features", "values", "message"),
    [
        ([], [], r"features: must list at least one feature and none twice, got \[\]"),
        ([1, 1], [0.0, 1.0], r"features: must list at least one feature and none twice, got \[1, 1\]"),
        ([1, 2], [0.0], "values: must hold one value for each feature, got 1 values"),
    ],
)
def test_wrong_triggers(features: list[int], values: list[float], message: str) -> None:
    with pytest.raises(FieldError, match=message):
        FeatureTrigger(features=features, values=values)


def test_inputs_must_have_the_features() -> None:
    trigger = FeatureTrigger(features=[4], values=[1.0])
    with pytest.raises(FieldError, match=r"trigger.features: must be below 4, got 4"):
        trigger.check((4,))
    with pytest.raises(FieldError, match=r"trigger: must be used on feature vectors \(F,\)"):
        trigger.check((3, 8, 8))
