"""What tampering did to a deployed model, beside what chance flips would do and what the model did before."""

import statistics

import torch
from torch import Tensor

from fedrobust.attacks.base import ReceivedModel
from fedrobust.attacks.deployed_model import Tampering
from fedrobust.attacks.deployed_model.quantisation import (
    StoredModel,
    count_bit_flips,
    count_changed_weights,
    random_flips,
)
from fedrobust.data.datasets import Examples
from fedrobust.evaluation.attack_success import success_rate
from fedrobust.parameters import ParameterLayout
from fedrobust.training.predictor import Predictor

NUM_CONTROLS = 3
"""Random choices of as many bits that the control averages over."""


def measure_tampering(
    received: ReceivedModel, tampering: Tampering, generator: torch.Generator
) -> dict[str, float | int | None]:
    """Figures of the model as released and as deployed, on the test set.

    The chosen example is left out of accuracies. Attack success counts the test examples whose class is not the target,
    with the trigger if there is one; with a chosen example it is whether that one is taken for the target. The released
    model's is the control. `random_flips_clean_accuracy` is after as many random flips of int8 weights, the mean of
    three draws from `generator`; there is none for float32, where one exponent bit can ruin everything.
    """
    test = received.dataset.test
    kept = test if tampering.chosen is None else _without(test, tampering.chosen)
    num_flips = count_bit_flips(tampering.released, tampering.deployed)
    row: dict[str, float | int | None] = {
        "num_bits": tampering.released.num_bits,
        "num_bit_flips": num_flips,
        "num_changed_weights": count_changed_weights(tampering.released, tampering.deployed),
        "random_flips_clean_accuracy": None,
        "attacked_example": tampering.chosen,
        "attacked_target_label": tampering.target_label,
    }
    for name, stored in (("released", tampering.released), ("deployed", tampering.deployed)):
        predictor = _predictor(received, stored)
        row[f"{name}_clean_accuracy"] = _accuracy(predictor, kept)
        row[f"{name}_attack_success_rate"] = _success(predictor, tampering, test)
    if tampering.released.codes:
        drawn = [random_flips(tampering.released, num_flips, generator) for _ in range(NUM_CONTROLS)]
        accuracies = [_accuracy(_predictor(received, tampering.released.flipped(*flips)), kept) for flips in drawn]
        row["random_flips_clean_accuracy"] = statistics.fmean(accuracies)
    return row


def _predictor(received: ReceivedModel, stored: StoredModel) -> Predictor:
    layout, parameters = ParameterLayout.of(received.model), stored.parameters()
    vector = torch.cat([parameters[name].reshape(-1) for name in layout.names])
    frozen = {name: values for name, values in parameters.items() if name not in layout.names}
    return Predictor(received.model, layout, vector, {**received.buffers, **frozen}, received.dataset)


def _accuracy(predictor: Predictor, examples: Examples) -> float:
    return float((predictor.logits(examples.inputs).argmax(dim=1) == examples.labels).double().mean())


def _success(predictor: Predictor, tampering: Tampering, test: Examples) -> float | None:
    """`None` for an attack that wants no class in particular."""
    if tampering.target_label is None:
        return None
    victims = test.labels != tampering.target_label
    if tampering.chosen is not None:
        victims = torch.arange(len(test), device=test.labels.device) == tampering.chosen
    inputs = test.inputs[victims]
    shown = inputs if tampering.trigger is None else tampering.trigger.stamp(inputs)
    wanted: Tensor = torch.full((len(shown),), tampering.target_label, device=shown.device)
    return success_rate(predictor, shown, wanted)


def _without(examples: Examples, index: int) -> Examples:
    places = torch.arange(len(examples), device=examples.labels.device)
    return examples.subset(places[places != index])
