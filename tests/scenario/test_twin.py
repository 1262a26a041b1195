"""Which scenarios are played once more without attackers: the list is by hand, from what each attack does to inputs."""

from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from torch import Tensor

from fedrobust.attacks import BadNets, Coalition, Patch, Pixels, Several
from fedrobust.attacks.base import has_synthetic_stamp
from fedrobust.attacks.triggers import Stamp, Trigger, is_synthetic
from fedrobust.config.building import ConfigError
from fedrobust.config.component import FieldError, component
from fedrobust.config.compose import compose_config
from fedrobust.data.datasets import Dataset, Digits, Examples
from fedrobust.scenario import Scenario, build_scenario
from fedrobust.scenario.twin import reason_for_twin


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return Digits().load(None, torch.device("cpu"))


def scenario(*overrides: str) -> Scenario:
    return build_scenario(compose_config(list(overrides))[0])


PATCH = "{_target_: fedrobust.attacks.Patch, height: 2, width: 2}"
BLEND = "{_target_: fedrobust.attacks.Blend}"
EDGE = "{_target_: fedrobust.attacks.EdgeCase}"
BADNETS = f"{{_target_: fedrobust.attacks.BadNets, poison_rate: 0.3, trigger: {PATCH}}}"

STAMPS = [
    ["attack=badnets"],
    ["attack=badnets", "attack/trigger=patch"],
    ["attack=badnets", "attack/trigger=several"],
    ["attack=dba"],
    ["attack=model_replacement"],
    ["attack=neurotoxin"],
    ["attack=projected_gradient"],
    ["attack=coalition"],
    ["attack=clean_label", "attack/trigger=patch"],
    ["attack=blind_backdoor", "attack/trigger@attack.loss.trigger=pixels"],
    ["attack=pretrained_backdoor"],
]
"""Colours on some pixels, all others as they were."""

NO_STAMPS = [
    ["attack=edge_case"],
    ["attack=edge_case", "attack.data.rotation=30"],
    ["attack=label_flip"],
    ["attack=label_flip", "attack.data.source_label=1"],
    ["attack=label_flip", "attack.data.flip=inverse"],
    ["attack=poison_frogs"],
    ["attack=clean_label"],
    ["attack=badnets", "attack/trigger=blend"],
    ["attack=badnets", "attack/trigger=sinusoid"],
    ["attack=badnets", "attack/trigger=image_file", "attack.data.trigger.file=glasses.png"],
    ["attack=dba", "attack/trigger=several", f"attack.data.trigger.shapes=[{PATCH},{BLEND}]"],
    ["attack=model_replacement", "attack/trigger=blend"],
    ["attack=blind_backdoor", "attack/trigger@attack.loss.trigger=sinusoid"],
    ["attack=coalition", f"attack.data.members=[{BADNETS},{EDGE}]"],
    ["attack=pretrained_backdoor", "attack/trigger=blend"],
]
"""Natural inputs, wrong labels, or patterns over the whole picture."""

NOTHING_TO_READ = [
    ["attack=none"],
    ["attack=sign_flip"],
    ["attack=alie"],
    ["attack=label_flip", "attack.data.flip=random"],
    ["attack=tbt"],
    ["attack=edge_case", "attack.num_malicious=0"],
    ["attack=edge_case", "attack.num_malicious=null", "attack.malicious_fraction=0.01"],
    ["attack=edge_case", "attack.schedule.rounds=[31]"],
    ["attack=pretrained_backdoor", "attack/trigger=blend", "attack.initial_model.malicious=false"],
]
"""No success round by round, or nobody attacks."""


def named(overrides: list[str]) -> str:
    return " ".join(overrides)


@pytest.mark.parametrize("overrides", STAMPS + NOTHING_TO_READ, ids=named)
def test_no_twin_by_default(digits: Dataset, overrides: list[str]) -> None:
    assert reason_for_twin(scenario(*overrides), digits) is None


@pytest.mark.parametrize("overrides", NO_STAMPS, ids=named)
def test_a_twin_by_default_and_why(digits: Dataset, overrides: list[str]) -> None:
    reason = reason_for_twin(scenario(*overrides), digits)
    assert reason is not None
    assert "control=auto" in reason
    assert "declares no synthetic stamp" in reason
    assert "\n" not in reason


@pytest.mark.parametrize("overrides", [STAMPS[0], NO_STAMPS[0], NOTHING_TO_READ[0]], ids=named)
def test_one_may_ask_for_it_or_do_without(digits: Dataset, overrides: list[str]) -> None:
    assert reason_for_twin(scenario(*overrides, "control=true"), digits) is not None
    assert reason_for_twin(scenario(*overrides, "control=false"), digits) is None


def test_a_twin_has_none_of_its_own(digits: Dataset) -> None:
    assert reason_for_twin(scenario("attack=edge_case").benign_twin(), digits) is None


@pytest.mark.parametrize("value", ["maybe", "AUTO", "2", "null", "[true]"])
def test_other_values_are_refused(value: str) -> None:
    with pytest.raises(ConfigError, match="control: must be 'auto' or a valid boolean"):
        scenario(f"control={value}")


@component
class Tint:
    """A user's own trigger, which declares nothing."""

    def triggers(self, input_shape: tuple[int, ...]) -> tuple[Trigger, ...]:
        mask = torch.ones(input_shape[1:], dtype=torch.bool)
        return (Trigger.overlay(mask, torch.zeros(1, 1, 1), 0.1),)


@dataclass(frozen=True)
class Upside:
    """A user's own attack on data, which declares nothing."""

    def local_triggers(self, input_shape: tuple[int, ...]) -> tuple[Stamp, ...]:
        return ()

    def wanted_labels(self, test: Examples) -> Tensor:
        return torch.zeros_like(test.labels)

    def poison(self, examples: Examples, attacker: int, generator: torch.Generator) -> Examples:
        return Examples(examples.inputs.flip(-2), torch.zeros_like(examples.labels))

    def poison_batch(self, batch: Examples, attacker: int) -> Examples:
        return batch


class Declared(Upside):
    """The same, with a word for its trigger."""

    has_synthetic_stamp: ClassVar[bool] = True


@component
class Dotted(BadNets):
    """What inherits from an attack of the catalogue says what that says."""


def test_who_declares_nothing_has_no_synthetic_stamp() -> None:
    assert not has_synthetic_stamp(Upside())
    assert has_synthetic_stamp(Declared())
    assert not is_synthetic(Tint())
    assert not is_synthetic(Several(shapes=[Patch(), Tint()]))
    assert is_synthetic(Several(shapes=[Patch(), Pixels(pixels=[[0, 0]])]))
    for trigger in (Patch(), Tint(), Several(shapes=[Tint()])):
        assert has_synthetic_stamp(Dotted(trigger=trigger, poison_rate=0.5)) == isinstance(trigger, Patch)
    stamped = BadNets(trigger=Patch(), poison_rate=0.5)
    assert has_synthetic_stamp(Coalition(members=[stamped, Declared()]))
    assert not has_synthetic_stamp(Coalition(members=[stamped, Upside()]))


@pytest.mark.parametrize("word", ["yes", 1, None])
def test_a_declaration_that_is_none_is_refused(word: object) -> None:
    """Also a method where a property belongs, which would always count as true."""
    attack = Upside()
    object.__setattr__(attack, "has_synthetic_stamp", word)
    with pytest.raises(FieldError, match=r"has_synthetic_stamp: must be true or false, got .* of Upside"):
        has_synthetic_stamp(attack)

    class Method(Upside):
        def has_synthetic_stamp(self) -> bool:
            return True

    with pytest.raises(FieldError, match="must be true or false"):
        has_synthetic_stamp(Method())
