"""The image-scaling backdoor on made-up large pictures."""

from dataclasses import replace

import pytest
import torch

from fedrobust.attacks import Blend, ImageScaling, Patch
from fedrobust.config.building import build
from fedrobust.config.component import FieldError
from fedrobust.config.compose import compose_config
from fedrobust.data.datasets import Dataset, Examples
from fedrobust.data.scalers import Scaler
from fedrobust.seeds import torch_generator

SCALER = Scaler("pillow_nearest", (8, 8))


def dataset(scaler: Scaler | None = SCALER) -> Dataset:
    """Large pictures of one shade each: class 0 dark, 1 grey, 2 light."""
    labels = torch.arange(30) % 3
    shades = (labels * 90 + 20 + torch.arange(30)).float() / 255
    examples = Examples(shades.view(-1, 1, 1, 1).expand(30, 3, 40, 40).clone(), labels)
    return Dataset(
        "made up", examples, examples, 3, "image", torch.zeros(3, 1, 1), torch.ones(3, 1, 1), scaler=scaler
    )  # fmt: skip


def attack(**changes: object) -> ImageScaling:
    return ImageScaling(trigger=Patch(height=10, width=10, value=1.0), target_label=1, poison_rate=0.2, **changes)


def test_what_the_model_sees_is_a_triggered_picture_of_another_class() -> None:
    """Nearest reads one pixel in 25: 96 % of a changed picture is as it was, and what is read is the other picture."""
    data = dataset()
    bound = attack().bind(data, torch_generator(0))
    poisoned = bound.poison(data.train, 0, torch_generator(1))
    assert torch.equal(poisoned.labels, data.train.labels)
    changed = (poisoned.inputs != data.train.inputs).flatten(1).any(dim=1)
    assert int(changed.sum()) == 6
    assert (data.train.labels[changed] == 1).all()
    same = (poisoned.inputs[changed] == data.train.inputs[changed]).float().mean()
    assert float(same) >= 0.96 - 1e-6
    seen = SCALER(poisoned.inputs[changed])
    assert float((seen[:, :, :2, :2] - 1.0).abs().max()) <= 0.01  # the patch, a quarter of a side
    shades = SCALER(data.train.inputs[data.train.labels != 1])[:, 0, 0, 0]
    for shade in seen[:, 0, 4, 4]:
        assert float((shades - shade).abs().min()) <= 0.01
    untouched = data.train.labels != 1
    assert torch.equal(poisoned.inputs[untouched], data.train.inputs[untouched])


def test_one_source_class_alone_is_hidden() -> None:
    data = dataset()
    bound = attack(source_label=2).bind(data, torch_generator(0))
    poisoned = bound.poison(data.train, 0, torch_generator(1))
    changed = (poisoned.inputs != data.train.inputs).flatten(1).any(dim=1)
    assert float(SCALER(poisoned.inputs[changed])[:, 0, 4, 4].min()) >= (200 - 3) / 255
    assert bound.wanted_labels(data.test).tolist() == [0, 1, 1] * 10


def test_a_client_without_the_target_class_or_without_another_changes_nothing() -> None:
    data = dataset()
    bound = attack().bind(data, torch_generator(0))
    for keep in (data.train.labels == 1, data.train.labels != 1):
        own = data.train.subset(keep.nonzero().squeeze(1))
        assert torch.equal(bound.poison(own, 0, torch_generator(1)).inputs, own.inputs)


def test_attackers_may_reckon_with_another_scaler() -> None:
    data = dataset(Scaler("pillow_box", (8, 8)))
    bound = attack(assumed_scaler="pillow_nearest").bind(data, torch_generator(0))
    assert (bound.assumed_scaler, bound.scaled_size) == ("pillow_nearest", 8)
    own = attack().bind(data, torch_generator(0))
    assert (own.assumed_scaler, own.scaled_size) == ("pillow_box", 8)
    assert own.bind(data, torch_generator(0)) == own


def test_what_cannot_be_attacked_is_refused() -> None:
    for one, data, message in [
        (attack(), replace(dataset(), scaler=None), "assumed_scaler: needs a data set that scales large pictures"),
        (attack(epsilon=0.002), dataset(), "epsilon: must be above 0.0059, what rounding takes, got 0.002"),
    ]:
        with pytest.raises(FieldError, match=message):
            one.bind(data, torch_generator(0))
    with pytest.raises(FieldError, match=r"assumed_scaler: must be given with scaled_size, or found by bind"):
        attack().poison(dataset().train, 0, torch_generator(0))
    with pytest.raises(FieldError, match="source_label: must differ from target_label"):
        attack(source_label=1)


def test_its_config_takes_any_trigger():
    """By itself a patch for large pictures, else what `attack/trigger` names, with that one's own keys."""
    values, _ = compose_config(["attack=image_scaling"])
    assert build(values["attack"], "attack").data.trigger == Patch(height=42, width=42)
    values, _ = compose_config(["attack=image_scaling", "attack/trigger=blend", "attack.data.trigger.opacity=0.4"])
    assert build(values["attack"], "attack").data.trigger == Blend(opacity=0.4)
