"""A scenario's attack and its data set: what the attack looks at beforehand, and whether it can be used on it."""

import dataclasses

from fedrobust.attacks.base import BindableAttack, Goal
from fedrobust.attacks.data.coalition import members_of
from fedrobust.config.building import ConfigError, errors_under
from fedrobust.data.datasets import Dataset
from fedrobust.scenario.scenario import Scenario
from fedrobust.seeds import torch_generator


def bind_attack(scenario: Scenario, dataset: Dataset) -> Scenario:
    """The scenario with an attack that has looked at the data set, where it asks for that; a second time nothing.

    Raises:
        ConfigError: it cannot be used on such data.
    """
    attack: object = scenario.attack.data
    if not isinstance(attack, BindableAttack):
        return scenario
    with errors_under("attack.data", dataset.name):
        bound = attack.bind(dataset, torch_generator(scenario.seed, "trigger"))
    return dataclasses.replace(scenario, attack=dataclasses.replace(scenario.attack, data=bound))


def check_attack(scenario: Scenario, dataset: Dataset) -> None:
    """Check every part of the attack that depends on the data.

    Raises:
        ConfigError: it cannot be used on such data, or nothing could show whether it succeeds.
    """
    attack = scenario.attack
    objective: object = attack.loss
    if isinstance(objective, Goal):
        _check_goal(objective, dataset, "attack.loss")
    members = () if attack.data is None else members_of(attack.data)
    for index, member in enumerate(members):
        key = "attack.data" if len(members) == 1 else f"attack.data.members[{index}]"
        _check_goal(member, dataset, key)
    if attack.deployed_model is not None:
        with errors_under("attack.deployed_model", dataset.name):
            attack.deployed_model.check(dataset)


def _check_goal(attack: Goal, dataset: Dataset, key: str) -> None:
    with errors_under(key, dataset.name):
        attack.local_triggers(dataset.input_shape)
        wanted = attack.wanted_labels(dataset.test)
    for name in ("target_label", "source_label"):
        label = getattr(attack, name, None)  # an attack need not have a source, nor one target
        if label is not None and label >= dataset.num_classes:
            raise ConfigError(
                f"{key}.{name}: must be below {dataset.num_classes}, the number of classes of {dataset.name}, "
                f"got {label}"
            )
    if wanted is not None and not bool((wanted != dataset.test.labels).any()):
        raise ConfigError(f"{key}: no test example of {dataset.name} could show whether the attack succeeds")
