"""Victims outside a federation: a head trained on features that stay as they are, or all layers trained on."""

import copy
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedrobust.data.datasets import Dataset, Examples
from fedrobust.parameters import ParameterLayout, clone_buffers, load_into
from fedrobust.seeds import torch_generator
from fedrobust.training.local_training import LocalTraining
from fedrobust.training.loop import ClientJob, TrainingProgram, plan_batches, train_alone

_MAX_STEPS = 5000


def train_head(
    features: Tensor,
    labels: Tensor,
    num_classes: int,
    until: Literal["interpolation", "convergence"] = "convergence",
    learning_rate: float = 0.01,
) -> nn.Linear:
    """A logistic head on features: transfer learning with all other layers frozen.

    Args:
        features: `(N, F)`.
        labels: `(N,)` int64.
        num_classes: labels are below this.
        until: `interpolation` stops Adam, on all examples at once and from zero, as soon as each is classified as its
            label says; `convergence` minimises the cross-entropy with a penalty too small to matter, by Newton's
            method: it fits every example, and its direction is nearly that of the widest margin.
        learning_rate: Adam's.

    Raises:
        ValueError: labels that no head on these features fits.
    """
    head: nn.Linear = nn.utils.skip_init(nn.Linear, features.shape[1], num_classes, device=features.device)
    if until == "convergence":
        _minimise_cross_entropy(head, features, labels)
    else:
        _interpolate(head, features, labels, learning_rate)
    if not bool((head(features).argmax(dim=1) == labels).all()):
        raise ValueError(f"no head on {features.shape[1]} features was found to fit all {len(labels)} labels")
    return head.requires_grad_(False)


def train_model(
    model: nn.Module, dataset: Dataset, examples: Examples, training: LocalTraining, seed: int
) -> nn.Module:
    """A copy of `model`, trained on with `examples`; what one client that holds them all would do.

    Args:
        model: where training starts.
        dataset: gives augmentation and normalisation.
        examples: raw inputs.
        training: the programme.
        seed: fixes the batches.
    """
    trained = copy.deepcopy(model).requires_grad_(True)
    layout = ParameterLayout.of(trained)
    row, buffers = layout.flatten(trained), clone_buffers(trained)
    batches = plan_batches(
        torch.arange(len(examples)), training.batch_size, training.num_epochs, torch_generator(seed, "batches")
    )
    draws = None
    if dataset.augmentation is not None:
        draws = dataset.augmentation.draw(tuple(batches.shape), torch_generator(seed, "augmentation"))
    job = ClientJob(0, examples, batches, draws, TrainingProgram(training))
    train_alone(row, buffers, job, trained, layout, dataset)
    load_into(trained, layout.views(row), buffers)
    return trained.eval().requires_grad_(False)


def train_full_batch(
    model: nn.Module, dataset: Dataset, examples: Examples, num_steps: int = 300, learning_rate: float = 1e-3
) -> nn.Module:
    """A copy of `model`, trained by Adam on all examples at once: nothing in it is random.

    Args:
        model: where training starts.
        dataset: gives normalisation; nothing is augmented.
        examples: raw inputs.
        num_steps: of Adam.
        learning_rate: Adam's.
    """
    trained = copy.deepcopy(model).train().requires_grad_(True)
    inputs = dataset.normalise(examples.inputs)
    optimizer = torch.optim.Adam(trained.parameters(), lr=learning_rate)
    for _ in range(num_steps):
        optimizer.zero_grad()
        F.cross_entropy(trained(inputs), examples.labels).backward()
        optimizer.step()
    return trained.eval().requires_grad_(False)


def _interpolate(head: nn.Linear, features: Tensor, labels: Tensor, learning_rate: float) -> None:
    for parameter in head.parameters():
        nn.init.zeros_(parameter)
    optimizer = torch.optim.Adam(head.parameters(), lr=learning_rate)
    for _ in range(_MAX_STEPS):
        logits = head(features)
        if bool((logits.argmax(dim=1) == labels).all()):
            return
        optimizer.zero_grad()
        F.cross_entropy(logits, labels).backward()
        optimizer.step()


def _minimise_cross_entropy(head: nn.Linear, features: Tensor, labels: Tensor) -> None:
    from sklearn.linear_model import LogisticRegression

    # L-BFGS stops far from the minimum of so flat a loss, in a direction well away from the widest margin's
    newton = LogisticRegression(C=1e4, solver="newton-cg", max_iter=_MAX_STEPS, tol=1e-6)
    fitted = newton.fit(features.double().cpu().numpy(), labels.cpu().numpy())
    weight, bias = torch.from_numpy(fitted.coef_), torch.from_numpy(fitted.intercept_)
    if len(weight) == 1:  # of two classes scikit-learn gives the second's logit alone
        weight, bias = torch.cat([-weight, weight]) / 2, torch.cat([-bias, bias]) / 2
    there = torch.from_numpy(fitted.classes_)  # of a class without examples it knows nothing
    with torch.no_grad():
        head.weight.zero_()[there] = weight.to(head.weight)
        head.bias.fill_(-torch.inf)[there] = bias.to(head.bias)
