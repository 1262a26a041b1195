"""Which examples a limited or split data set holds; a scenario's seed changes nothing about it."""

import numpy as np
import torch
from torch import Tensor

from fedrobust.data.examples import Examples
from fedrobust.seeds import derive_seed, torch_generator

SPLIT_SEED = 0
"""Fixes the train/test split of the embedded sets and the shuffle of the limited ones, whatever the scenario's seed."""


def first_of_shuffle(name: str, part: str, num_available: int, limit: int | None) -> Tensor:
    """Indices: of all examples if there is no limit, else the first of a shuffle, so that less is a part of more.

    Raises:
        ValueError: a limit above the number of examples.
    """
    if limit is None:
        return torch.arange(num_available)
    if limit > num_available:
        raise ValueError(f"num_{part}={limit} is more than the {num_available} {part} examples of {name}")
    return torch.randperm(num_available, generator=torch_generator(SPLIT_SEED, "limit", name, part))[:limit]


def stratified_split(name: str, inputs: Tensor, labels: Tensor, num_test: int) -> tuple[Examples, Examples]:
    """Training and test examples, each class divided alike.

    Raises:
        ValueError: `num_test` leaves fewer training or test examples than classes.
    """
    from sklearn.model_selection import train_test_split

    num_classes = int(labels.max()) + 1
    if not num_classes <= num_test <= len(labels) - num_classes:
        raise ValueError(
            f"num_test={num_test} must leave one training and one test example a class: "
            f"{num_classes} to {len(labels) - num_classes} of {len(labels)}"
        )
    seed = derive_seed(SPLIT_SEED, "split", name) % 2**32  # scikit-learn takes 32 bits
    train, test = train_test_split(np.arange(len(labels)), test_size=num_test, stratify=labels, random_state=seed)
    examples = Examples(inputs, labels)
    return examples.subset(torch.from_numpy(train)), examples.subset(torch.from_numpy(test))


def channel_statistics(images: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation `(C, 1, 1)` of pictures `(N, C, H, W)`."""
    return images.mean(dim=(0, 2, 3)).view(-1, 1, 1), images.std(dim=(0, 2, 3), correction=0).view(-1, 1, 1)


def feature_statistics(features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation `(F,)` of features `(N, F)`; 1 for the deviation of a constant feature."""
    wide = features.double()  # features in bytes or addresses leave float32's exact range
    deviation = wide.std(dim=0, correction=0)
    constant = (features == features[:1]).all(dim=0)
    return wide.mean(dim=0).float(), deviation.masked_fill(constant, 1.0).float()
