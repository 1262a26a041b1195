"""A small data set of pictures and a model for it, for the tests of watermarks."""

from pathlib import Path

import torch
from torch import nn

from fedrobust.data.examples import Dataset, Examples
from fedrobust.parameters import ParameterLayout, clone_buffers
from fedrobust.seeds import seeded_initialisation, torch_generator
from fedrobust.training.predictor import Predictor
from fedrobust.watermarks import Material


def pictures(channels: int = 1, side: int = 8, num_classes: int = 10, number: int = 60) -> Dataset:
    """Pictures of noise whose labels go round."""
    inputs = torch.rand(number, channels, side, side, generator=torch_generator(0, "pictures"))
    examples = Examples(inputs, torch.arange(number) % num_classes)
    mean, std = torch.full((channels, 1, 1), 0.5), torch.full((channels, 1, 1), 0.25)
    return Dataset("toy", examples, examples, num_classes, "image", mean, std)


def material(dataset: Dataset, num_own: int = 0, seed: int = 0, data_root: Path | None = None) -> Material:
    return Material(dataset, dataset.train.subset(torch.arange(num_own)), data_root, torch_generator(seed, "draw"))


def predictor_of(dataset: Dataset, model: nn.Module | None = None) -> Predictor:
    """A fresh linear model, or `model`."""
    if model is None:
        with seeded_initialisation(0, "test"):
            model = nn.Sequential(nn.Flatten(), nn.Linear(dataset.train.inputs[0].numel(), dataset.num_classes))
    layout = ParameterLayout.of(model)
    return Predictor(model, layout, layout.flatten(model), clone_buffers(model), dataset)
