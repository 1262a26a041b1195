"""Attack success: how often the trigger makes the model say the target label.

The rate counts triggered test examples whose true class is *not* the target (or, for an attack on one source class,
the examples of that class). Counting the target's own examples would credit an attack with what a clean model does.
"""

from dataclasses import dataclass

from torch import Tensor

from fedrobust.attacks.base import DataAttack
from fedrobust.attacks.triggers import Trigger, union
from fedrobust.data.datasets import Examples
from fedrobust.evaluation.predictor import Predictor


@dataclass(frozen=True)
class AttackSuccess:
    """Rates in [0, 1]: of the global trigger, and of each part that single attackers stamp."""

    global_trigger: float
    local_triggers: list[float]


def measure_attack_success(predictor: Predictor, attack: DataAttack, examples: Examples) -> AttackSuccess:
    """Stamp the triggers on the examples that count, and look at the predictions."""
    victims = examples.inputs[attack.is_success_candidate(examples.labels)]
    parts = attack.local_triggers(tuple(examples.inputs.shape[1:]))
    whole = success_rate(predictor, victims, union(parts), attack.target_label)
    if len(parts) == 1:
        return AttackSuccess(whole, [whole])
    return AttackSuccess(whole, [success_rate(predictor, victims, part, attack.target_label) for part in parts])


def success_rate(predictor: Predictor, victims: Tensor, trigger: Trigger, target_label: int) -> float:
    """Fraction of `victims` that the model takes for the target once stamped; NaN if there are none."""
    if len(victims) == 0:
        return float("nan")
    predicted = predictor.logits(trigger.stamp(victims)).argmax(dim=1)
    return float((predicted == target_label).double().mean())
