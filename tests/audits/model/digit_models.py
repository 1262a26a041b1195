"""Digits models, clean and backdoored, trained as anyone would; and trigger inversion as anyone would write it."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedrobust.attacks import Pixels
from fedrobust.attacks.data.dirty_label import poison_fraction
from fedrobust.attacks.triggers import Trigger
from fedrobust.audits import AuditedModel
from fedrobust.audits.model import TriggerInversion
from fedrobust.data.datasets import Dataset, Digits, Examples
from fedrobust.models import MLP
from fedrobust.seeds import seeded_initialisation, torch_generator


def digits() -> Dataset:
    return Digits().load(None, torch.device("cpu"))


def corner_trigger() -> Trigger:
    """Three white pixels in the bottom right corner."""
    return Pixels(pixels=[[7, 5], [7, 6], [7, 7]]).triggers((1, 8, 8))[0]


def train_digits(seed: int, target: int | None, dataset: Dataset, num_epochs: int = 25) -> AuditedModel:
    """The default mlp on all training digits, a tenth of them with the trigger and the target as their label."""
    examples = dataset.train
    if target is not None:
        examples = poison_fraction(examples, corner_trigger(), target, None, 0.1, torch_generator(seed, "poison"))
    with seeded_initialisation(seed, "model"):
        model = MLP().build(dataset.input_shape, 10)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    generator = torch_generator(seed, "batches")
    for _ in range(num_epochs):
        for batch in torch.randperm(len(examples), generator=generator).split(64):
            optimizer.zero_grad()
            F.cross_entropy(model(dataset.normalise(examples.inputs[batch])), examples.labels[batch]).backward()
            optimizer.step()
    optimizer.zero_grad()
    return AuditedModel(model, dataset.normalise)


def success_rate(model: AuditedModel, trigger: Trigger, target: int, examples: Examples) -> float:
    """Of triggered examples whose class is not the target, the fraction taken for it."""
    victims = examples.subset((examples.labels != target).nonzero().squeeze(1))
    return float((model.logits(trigger.stamp(victims.inputs)).argmax(dim=1) == target).double().mean())


def accuracy(model: AuditedModel, examples: Examples) -> float:
    return float((model.logits(examples.inputs).argmax(dim=1) == examples.labels).double().mean())


def plain_inversion(
    settings: TriggerInversion,
    module: nn.Module,
    normalise: Callable[[Tensor], Tensor],
    inputs: Tensor,
    label: int,
    start: Tensor,
    plan: Tensor,
) -> tuple[Tensor, Tensor, float]:
    """One label after the paper and its authors' code: torch's Adam, Python numbers, one mask.

    `start` `(1 + C, H, W)` holds the first mask and pattern; returns mask, pattern and ‖m‖₁ (NaN: none was found).
    """
    logits = torch.atanh((2 * start - 1) * (1 - 1e-7))
    mask_logits, pattern_logits = logits[0].clone().requires_grad_(), logits[1:].clone().requires_grad_()
    optimizer = torch.optim.Adam([mask_logits, pattern_logits], lr=settings.learning_rate, betas=(0.5, 0.9))
    weight, ups, downs, went_up, went_down, stale = settings.initial_weight, 0, 0, False, False, 0
    best, smallest = None, math.inf
    wanted = torch.full((len(inputs),), label)
    for batches in plan:
        for batch in batches:
            mask, pattern = mask_logits.tanh() / 2 + 0.5, pattern_logits.tanh() / 2 + 0.5
            stamped = (1 - mask) * inputs[batch] + mask * pattern
            loss = F.cross_entropy(module(normalise(stamped)), wanted[batch]) + weight * mask.abs().sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        with torch.no_grad():
            mask, pattern = mask_logits.tanh() / 2 + 0.5, pattern_logits.tanh() / 2 + 0.5
            predicted = module(normalise((1 - mask) * inputs + mask * pattern)).argmax(dim=1)
        succeeds = float((predicted == label).double().mean()) >= settings.success_rate
        size = float(mask.sum())
        if succeeds and size < smallest:
            best, smallest, stale = (mask, pattern), size, 0
        elif best is not None:
            stale += 1
        ups, downs = (ups + 1, 0) if succeeds else (0, downs + 1)
        if ups == settings.patience:
            weight, ups, went_up = weight * 2, 0, True
        if downs == settings.patience:
            weight, downs, went_down = weight / 2**1.5, 0, True
        if stale >= settings.max_stale and went_up and went_down:
            break
    if best is None:
        return mask, pattern, math.nan
    return (*best, smallest)
