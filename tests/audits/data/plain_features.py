"""Models whose penultimate features are their inputs, so that a test can choose the features."""

import torch
from torch import nn

from fedrobust.audits import AuditedModel
from fedrobust.data.examples import Examples


def plain_model(num_features: int, num_classes: int = 3) -> AuditedModel:
    """Flatten, then a linear head: the features are the raw inputs."""
    torch.manual_seed(0)
    return AuditedModel(nn.Sequential(nn.Flatten(), nn.Linear(num_features, num_classes)), lambda inputs: inputs)


def examples_of(*classes: torch.Tensor) -> Examples:
    """Class 0 holds the rows of the first tensor `(n_0, F)`, and so on."""
    labels = torch.cat([torch.full((len(rows),), label) for label, rows in enumerate(classes)])
    return Examples(torch.cat(classes).float(), labels)


def joined(first: Examples, second: Examples) -> Examples:
    return Examples(torch.cat([first.inputs, second.inputs]), torch.cat([first.labels, second.labels]))


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))
