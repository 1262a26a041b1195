"""Attack success: how often the model says of a triggered input what the attackers want.

The rate counts test examples whose true class is *not* the one that the attackers want. Counting the target's own
examples would credit an attack with what a clean model does.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from fedrobust.attacks.base import Goal
from fedrobust.attacks.data.coalition import members_of
from fedrobust.attacks.triggers import Stamp
from fedrobust.config.component import has_trait
from fedrobust.data.datasets import Examples
from fedrobust.training.predictor import Predictor


@dataclass(frozen=True)
class AttackSuccess:
    """Rates in [0, 1], `None` for an attack that wants no class in particular.

    Attributes:
        global_trigger: of the whole trigger; of inputs as they are, for an attack without a trigger; the mean over the
            members of a coalition.
        local_triggers: of each part that single attackers stamp, or `None` for an attack without a trigger; of each
            member of a coalition.
    """

    global_trigger: float | None
    local_triggers: list[float] | None


def measure_attack_success(predictor: Predictor, attack: Goal, examples: Examples) -> AttackSuccess:
    """Stamp the triggers on the examples that count, and look at the predictions."""
    members = members_of(attack)
    if len(members) > 1:
        rates = [measure_attack_success(predictor, member, examples).global_trigger for member in members]
        known = [rate for rate in rates if rate is not None]
        return AttackSuccess(sum(known) / len(known), known) if known else AttackSuccess(None, None)
    wanted = attack.wanted_labels(examples)
    if wanted is None:
        return AttackSuccess(None, None)
    victims = wanted != examples.labels
    if has_trait(attack, "counts_detected_only"):
        victims &= predictor.logits(examples.inputs).argmax(dim=1) == examples.labels
    inputs, wanted = examples.inputs[victims], wanted[victims]
    parts = attack.local_triggers(tuple(examples.inputs.shape[1:]))
    whole = success_rate(predictor, stamp_all(parts, inputs), wanted)
    if len(parts) < 2:
        return AttackSuccess(whole, [whole] * len(parts) or None)
    return AttackSuccess(whole, [success_rate(predictor, part.stamp(inputs), wanted) for part in parts])


def stamp_all(parts: Sequence[Stamp], inputs: Tensor) -> Tensor:
    """The inputs with the whole trigger."""
    for part in parts:
        inputs = part.stamp(inputs)
    return inputs


def success_rate(predictor: Predictor, shown: Tensor, wanted: Tensor) -> float:
    """Fraction of the inputs `shown` that the model takes for what is `wanted` `(N,)`; NaN if there are none."""
    if len(shown) == 0:
        return float("nan")
    return float((predictor.logits(shown).argmax(dim=1) == wanted).double().mean())
