"""Accuracy and loss of a model on a set of examples."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from fedrobust.data.datasets import Examples
from fedrobust.training.predictor import Predictor


@dataclass(frozen=True)
class Accuracy:
    """What a model does on clean test examples.

    Attributes:
        accuracy: fraction classified as labelled.
        loss: mean cross-entropy in nats.
        per_class: accuracy of each class, NaN for a class without examples.
    """

    accuracy: float
    loss: float
    per_class: list[float]


def measure_accuracy(predictor: Predictor, examples: Examples, num_classes: int) -> Accuracy:
    """Accuracy, loss and per-class accuracy on `examples`."""
    logits = predictor.logits(examples.inputs)
    predicted = logits.argmax(dim=1)
    hits = (predicted == examples.labels).double()
    totals = torch.bincount(examples.labels, minlength=num_classes)
    correct = torch.bincount(examples.labels, weights=hits, minlength=num_classes)
    loss = float(F.cross_entropy(logits, examples.labels))
    return Accuracy(float(hits.mean()), loss, (correct / totals).tolist())
