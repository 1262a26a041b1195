"""Whether a run is played once more without attackers, so that its attack success can be read against something."""

from fedrobust.attacks.base import Goal, has_synthetic_stamp
from fedrobust.config.building import errors_under
from fedrobust.data.datasets import Dataset
from fedrobust.scenario.scenario import Scenario


def reason_for_twin(scenario: Scenario, dataset: Dataset) -> str | None:
    """Why a benign twin of `scenario` is played, in one line; `None`: it is not.

    With `control=auto` it is where a clean model may do by itself what the attackers want: where the scenario is
    attacked, success is measured round by round, and the attack declares no synthetic stamp.

    Raises:
        ConfigError: the attack declares something else than true or false.
    """
    if scenario.control != "auto":
        return "asked for by control=true" if scenario.control else None
    attack = scenario.attack
    key = "attack.data" if attack.data is not None else "attack.loss"
    goal = attack.goal
    if goal is None or not _is_attacked(scenario) or goal.wanted_labels(dataset.test) is None:
        return None
    with errors_under(key):
        if has_synthetic_stamp(goal):
            return None
    return f"control=auto, and {key} ({_name(goal)}) declares no synthetic stamp: a clean model may do it by itself"


def _is_attacked(scenario: Scenario) -> bool:
    """Whether anybody malicious takes part; else the run would be its own twin."""
    malicious = scenario.attack.choose_malicious(scenario.num_clients, scenario.seed)
    return bool(malicious and scenario.has_attack_round()) or not scenario.has_clean_start


def _name(goal: Goal) -> str:
    trigger = getattr(goal, "trigger", None)
    name = type(goal).__name__
    return name if trigger is None else f"{name} with {type(trigger).__name__}"
