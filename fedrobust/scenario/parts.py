"""What a scenario names, made: its data set, its model, its owner's watermark, and the server's clean examples."""

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from fedrobust.config.building import ConfigError
from fedrobust.config.component import FieldError
from fedrobust.data.checks import check_dataset
from fedrobust.data.datasets import Dataset
from fedrobust.devices import select_device
from fedrobust.scenario.scenario import Scenario
from fedrobust.seeds import seeded_initialisation, torch_generator
from fedrobust.watermarks import Mark


def load_dataset(scenario: Scenario) -> Dataset:
    """The scenario's data set, on its device.

    Raises:
        ConfigError: with the key, the value and what is allowed.
    """
    device = select_device(scenario.device)
    try:
        dataset = scenario.dataset.load(_data_root(scenario), device)
        check_dataset(dataset)
    except ValueError as error:
        raise ConfigError(f"dataset: {error}") from None
    return dataset


def initial_model(scenario: Scenario, dataset: Dataset, purpose: str = "model") -> nn.Module:
    """A fresh model on the data's device, initialised for a `purpose`: the global model before round 1.

    Raises:
        ConfigError: it cannot read such data.
    """
    _check_words(scenario, dataset)
    try:
        with seeded_initialisation(scenario.seed, purpose):
            model = scenario.model.build(dataset.model_shape, dataset.num_classes)
            _materialise(model, dataset)
    except (ValueError, RuntimeError) as error:
        raise ConfigError(f"model: {' '.join(str(error).split())}") from None
    return model.to(dataset.train.inputs.device)


def _materialise(model: nn.Module, dataset: Dataset) -> None:
    """Give lazily initialised parts (`nn.LazyLinear`) their shapes, by showing the model an example."""
    if not any(is_lazy(one) for one in (*model.parameters(), *model.buffers())):
        return
    was_training = model.training
    with torch.no_grad():
        model.eval()(dataset.normalise(dataset.train.inputs[:1]).cpu())
    model.train(was_training)
    if any(is_lazy(one) for one in (*model.parameters(), *model.buffers())):
        raise ValueError("has lazily initialised parameters that its forward pass does not reach")


def draw_mark(scenario: Scenario, dataset: Dataset) -> Mark | None:
    """The watermark of the scenario's owner, drawn for the data set by the scenario's seed; `None` without one.

    Raises:
        ConfigError: with the key, the value and what is allowed.
    """
    try:
        return scenario.watermark.draw(dataset, scenario.seed, _data_root(scenario))
    except FieldError as error:
        raise ConfigError(f"watermark.{error.field}: {error.message}") from None
    except ValueError as error:  # the files of another data set
        raise ConfigError(f"watermark: {error}") from None


def draw_clean_examples(scenario: Scenario, dataset: Dataset, number: int, key: str, purpose: str) -> Tensor:
    """Training examples that the server has, as indices: drawn uniformly from all, by the scenario's seed.

    Args:
        scenario: whose.
        dataset: whose training examples.
        number: how many.
        key: the config's name for `number`.
        purpose: what they are drawn for.

    Raises:
        ConfigError: more than there are.
    """
    num_examples = len(dataset.train)
    if number > num_examples:
        raise ConfigError(
            f"{key}: must be at most {num_examples}, the training examples of {dataset.name}, got {number}"
        )
    return torch.randperm(num_examples, generator=torch_generator(scenario.seed, purpose))[:number]


def _data_root(scenario: Scenario) -> Path | None:
    return None if scenario.data_root is None else Path(scenario.data_root)


def _check_words(scenario: Scenario, dataset: Dataset) -> None:
    """Texts are numbers of words: a model must read them as such, and know them all."""
    known, there = getattr(scenario.model, "vocabulary_size", None), dataset.vocabulary_size
    if known is None and there is not None:
        raise ConfigError(f"model: must read words (model=text_bag) for dataset={dataset.name}")
    if known is not None and there is None:
        raise ConfigError(f"model: reads words alone, and dataset={dataset.name} has none")
    if known != there:
        raise ConfigError(f"model.vocabulary_size: must be {there}, that of dataset={dataset.name}, got {known}")
