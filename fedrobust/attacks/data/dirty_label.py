"""Poisoning of local examples: which are chosen, and what becomes of them, always in a copy."""

from typing import Annotated

import torch
from annotated_types import Gt, Le
from torch import Tensor

from fedrobust.attacks.triggers import Stamp
from fedrobust.config.component import FieldError
from fedrobust.data.datasets import Examples

PoisonRate = Annotated[float, Gt(0), Le(1)]


def check_classes(target_label: int, source_label: int | None) -> None:
    """Check that a class is not attacked to become itself.

    Raises:
        FieldError: it is.
    """
    if source_label is not None and source_label == target_label:
        raise FieldError("source_label", f"must differ from target_label, got {source_label} for both")


def may_be_poisoned(labels: Tensor, target_label: int, source_label: int | None) -> Tensor:
    """Which examples a backdoor speaks of: those of `source_label`, or all but the target's own (all-to-one).

    An example that has the target label already teaches the model nothing about the trigger, and counting it would
    make a clean model look attacked.
    """
    return labels == source_label if source_label is not None else labels != target_label


def wanted_labels(labels: Tensor, target_label: int, source_label: int | None) -> Tensor:
    """The target where a backdoor speaks of an example, its true label elsewhere."""
    return torch.where(may_be_poisoned(labels, target_label, source_label), target_label, labels)


def draw(candidates: Tensor, rate: float, generator: torch.Generator) -> Tensor:
    """Indices of a random `rate` of all N examples, at most all that `candidates` `(N,)` booleans admit."""
    return draw_count(candidates, round(rate * len(candidates)), generator)


def draw_count(candidates: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Indices of `count` random examples, at most all that `candidates` `(N,)` booleans admit."""
    indices = candidates.nonzero().squeeze(1)
    return indices[torch.randperm(len(indices), generator=generator)[:count].to(indices.device)]


def poison_fraction(
    examples: Examples,
    trigger: Stamp,
    target_label: int,
    source_label: int | None,
    rate: float,
    generator: torch.Generator,
) -> Examples:
    """Poison a random `rate` of all examples (at most those that may be poisoned), in a copy."""
    chosen = draw(may_be_poisoned(examples.labels, target_label, source_label), rate, generator)
    return stamped(examples, chosen, trigger, target_label)


def poison_first(batch: Examples, trigger: Stamp, target_label: int, source_label: int | None, count: int) -> Examples:
    """Poison the first `count` examples of a batch that may be poisoned, in a copy."""
    candidates = may_be_poisoned(batch.labels, target_label, source_label).nonzero().squeeze(1)
    return stamped(batch, candidates[:count], trigger, target_label)


def stamped(examples: Examples, chosen: Tensor, trigger: Stamp, target_label: int | None) -> Examples:
    """A copy with the trigger on the `chosen` indices and, unless that is `None`, the target as their label."""
    inputs, labels = examples.inputs.clone(), examples.labels.clone()
    inputs[chosen] = trigger.stamp(inputs[chosen])
    if target_label is not None:
        labels[chosen] = target_label
    return Examples(inputs, labels)
