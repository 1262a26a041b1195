"""Every audit of a model, with a clean model and a backdoored one that it must tell apart."""

import functools
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from fedrobust.attacks import Pixels
from fedrobust.attacks.data.dirty_label import poison_fraction
from fedrobust.audits import AuditedModel, ModelAudit, NeuralCleanse, TriggerInversion
from fedrobust.audits.model import WatermarkOwnership
from fedrobust.data.datasets import Dataset, Digits, Examples
from fedrobust.models import MLP
from fedrobust.seeds import seeded_initialisation, torch_generator
from fedrobust.watermarks import Triggers

TARGET = 6


@functools.cache
def digits() -> Dataset:
    return Digits().load(None, torch.device("cpu"))


@functools.cache
def secret() -> Triggers:
    """Noise with labels drawn at random."""
    generator = torch_generator(0, "secret")
    inputs, labels = torch.rand(30, 1, 8, 8, generator=generator), torch.randint(10, (30,), generator=generator)
    return Triggers(Examples(inputs, labels), 10, has_random_labels=True)


@functools.cache
def trained(kind: str, seed: int = 0) -> AuditedModel:
    """A small network with batch normalisation and dropout: `clean`, `backdoored` or `watermarked`."""
    dataset = digits()
    examples = dataset.train
    if kind == "backdoored":
        trigger = Pixels(pixels=[[7, 5], [7, 6], [7, 7]]).triggers((1, 8, 8))[0]
        examples = poison_fraction(examples, trigger, TARGET, None, 0.1, torch_generator(seed, "poison"))
    elif kind == "watermarked":
        marks = secret().examples
        examples = Examples(
            torch.cat([examples.inputs, *[marks.inputs] * 10]), torch.cat([examples.labels, *[marks.labels] * 10])
        )
    with seeded_initialisation(seed, "model"):
        model = nn.Sequential(
            nn.Flatten(),
            nn.Linear(64, 64),
            nn.BatchNorm1d(64),
            nn.ReLU(inplace=True),
            nn.Dropout(0.1),
            nn.Linear(64, 10),
        )
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        for _ in range(20):
            for batch in torch.randperm(len(examples), generator=torch_generator(seed, "order")).split(64):
                optimizer.zero_grad()
                F.cross_entropy(model(dataset.normalise(examples.inputs[batch])), examples.labels[batch]).backward()
                optimizer.step()
    optimizer.zero_grad()
    return AuditedModel(model.eval(), dataset.normalise)


@functools.cache
def ordinary(seed: int) -> AuditedModel:
    """A clean mlp, trained as in `experiments/audits/neural_cleanse`, whose false-positive rate is measured there."""
    examples, normalise = digits().train, digits().normalise
    with seeded_initialisation(seed, "model"):
        model = MLP().build((1, 8, 8), 10)
    optimizer, generator = torch.optim.SGD(model.parameters(), lr=0.1), torch_generator(seed, "batches")
    for _ in range(40):
        for batch in torch.randperm(len(examples), generator=generator).split(32):
            optimizer.zero_grad()
            F.cross_entropy(model(normalise(examples.inputs[batch])), examples.labels[batch]).backward()
            optimizer.step()
    return AuditedModel(model.eval(), normalise)


@dataclass(frozen=True)
class Case:
    """An audit, and what the suite must know of it.

    Attributes:
        make: the audit.
        quick: the same with few steps, whose verdict says little.
        kind: of the model that it must convict.
        label: that it must flag there, or `None` for several.
        reads_examples: whether it looks at the clean examples.
    """

    make: Callable[[], ModelAudit]
    quick: Callable[[], ModelAudit]
    kind: str
    label: int | None
    reads_examples: bool = True


def cleanse(num_checks: int) -> NeuralCleanse:
    return NeuralCleanse(inversion=TriggerInversion(num_checks=num_checks))


def ownership() -> WatermarkOwnership:
    return WatermarkOwnership(secret())


CASES = {
    "neural_cleanse": Case(lambda: cleanse(60), lambda: cleanse(8), "backdoored", TARGET),
    "watermark_ownership": Case(ownership, ownership, "watermarked", None, reads_examples=False),
}
