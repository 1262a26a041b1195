"""Dirty-label poisoning: stamp the trigger on some examples and give them the target label."""

from typing import Annotated

import torch
from annotated_types import Gt, Le
from torch import Tensor

from fedrobust.attacks.triggers import Trigger
from fedrobust.data.datasets import Examples

PoisonRate = Annotated[float, Gt(0), Le(1)]


def may_be_poisoned(labels: Tensor, target_label: int, source_label: int | None) -> Tensor:
    """Which examples a backdoor speaks of: those of `source_label`, or all but the target's own (all-to-one).

    An example that has the target label already teaches the model nothing about the trigger, and counting it would
    make a clean model look attacked.
    """
    return labels == source_label if source_label is not None else labels != target_label


def poison_fraction(
    examples: Examples,
    trigger: Trigger,
    target_label: int,
    source_label: int | None,
    rate: float,
    generator: torch.Generator,
) -> Examples:
    """Poison a random `rate` of all examples (at most those that may be poisoned), in a copy."""
    candidates = may_be_poisoned(examples.labels, target_label, source_label).nonzero().squeeze(1)
    count = min(round(rate * len(examples)), len(candidates))
    order = torch.randperm(len(candidates), generator=generator)[:count].to(candidates.device)
    return _stamp(examples, candidates[order], trigger, target_label)


def poison_first(
    batch: Examples, trigger: Trigger, target_label: int, source_label: int | None, count: int
) -> Examples:
    """Poison the first `count` examples of a batch that may be poisoned, in a copy."""
    candidates = may_be_poisoned(batch.labels, target_label, source_label).nonzero().squeeze(1)
    return _stamp(batch, candidates[:count], trigger, target_label)


def _stamp(examples: Examples, chosen: Tensor, trigger: Trigger, target_label: int) -> Examples:
    inputs, labels = examples.inputs.clone(), examples.labels.clone()
    inputs[chosen] = trigger.stamp(inputs[chosen])
    labels[chosen] = target_label
    return Examples(inputs, labels)
