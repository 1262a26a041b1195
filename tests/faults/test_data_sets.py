"""Data sets of somebody's own with one thing wrong: it is said before training, with the place."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from fedrobust.config.building import ConfigError
from fedrobust.config.component import component
from fedrobust.config.compose import compose_config
from fedrobust.data.datasets import Dataset, Digits, Examples
from fedrobust.notices import collected_notices
from fedrobust.scenario import build_scenario, prepare

DIGITS = Digits().load(None, torch.device("cpu"))


@component
class Own:
    """A data set that is there already."""

    dataset: Any

    def load(self, data_root: Path | None, device: torch.device) -> Dataset:
        made: Dataset = self.dataset()
        return made


def with_input(part: str, index: int, value: float) -> Callable[[], Dataset]:
    def make() -> Dataset:
        examples: Examples = getattr(DIGITS, part)
        inputs = examples.inputs.clone()
        inputs[index].flatten()[7] = value
        return replace(DIGITS, **{part: Examples(inputs, examples.labels)})

    return make


def with_label(part: str, index: int, value: int) -> Callable[[], Dataset]:
    def make() -> Dataset:
        examples: Examples = getattr(DIGITS, part)
        labels = examples.labels.clone()
        labels[index] = value
        return replace(DIGITS, **{part: Examples(examples.inputs, labels)})

    return make


def changed(**fields: Any) -> Callable[[], Dataset]:
    return lambda: replace(DIGITS, **fields)


def texts(word: float) -> Callable[[], Dataset]:
    def make() -> Dataset:
        inputs = torch.arange(60.0).view(20, 3)
        inputs[11, 1] = word
        examples = Examples(inputs, torch.arange(20) % 2)
        return Dataset("own", examples, examples, 2, "text", torch.zeros(3), torch.ones(3), vocabulary_size=60)

    return make


NAN, INF = float("nan"), float("inf")
EMPTY = Examples(torch.zeros(0, 1, 8, 8), torch.zeros(0, dtype=torch.int64))
WRONG: dict[str, tuple[Callable[[], Dataset], str]] = {
    **{
        f"label {value} at {index} of {part}": (
            with_label(part, index, value),
            rf"labels of {part} must lie in 0\.\.9, got {value} at index {index} \(1 of",
        )
        for part, index, value in [
            ("train", 0, -1),
            ("train", 1296, 10),
            ("train", 500, 255),
            ("test", 0, 10),
            ("test", 499, -1),
            ("test", 3, 10**9),
        ]
    },
    **{
        f"{value} at {index} of {part}": (
            with_input(part, index, value),
            rf"inputs of {part} must be finite, got {value} in the example at index {index} \(1 of",
        )
        for part, index, value in [
            ("train", 0, NAN),
            ("train", 1296, INF),
            ("train", 700, -INF),
            ("test", 0, NAN),
            ("test", 499, INF),
            ("test", 250, -INF),
        ]
    },
    "labels from 1": (
        lambda: replace(DIGITS, train=Examples(DIGITS.train.inputs, DIGITS.train.labels + 1)),
        r"labels of train must lie in 0\.\.9, got 10 at index",
    ),
    "fewer classes than labels": (changed(num_classes=7), r"labels of train must lie in 0\.\.6, got [789] at index"),
    "classes as text": (changed(num_classes="10"), "num_classes must be a whole number, got '10'"),
    "classes as a float": (changed(num_classes=10.0), r"num_classes must be a whole number, got 10\.0"),
    "another kind": (changed(kind="table"), "kind must be image, tabular, text, got 'table'"),
    "std as a list": (changed(std=[1.0]), "std must be a tensor, got list"),
    "mean of float64": (changed(mean=torch.zeros(1, 1, 1).double()), "mean must be float32, got float64"),
    "std of float16": (changed(std=torch.ones(1, 1, 1).half()), "std must be float32, got float16"),
    "std next to nothing": (changed(std=torch.full((1, 1, 1), 1e-45)), "std must not be so small that inputs overflow"),
    "one class": (changed(num_classes=1), "num_classes must be at least 2, got 1"),
    "no class": (changed(num_classes=0), "num_classes must be at least 2, got 0"),
    "std 0": (changed(std=torch.zeros(1, 1, 1)), r"std must be positive, got 0\.0 at index 0"),
    "std negative": (changed(std=torch.full((1, 1, 1), -0.5)), r"std must be positive, got -0\.5 at index 0"),
    "std NaN": (changed(std=torch.full((1, 1, 1), NAN)), "std must hold finite floating point numbers"),
    "std infinite": (changed(std=torch.full((1, 1, 1), INF)), "std must hold finite floating point numbers"),
    "std of integers": (changed(std=torch.ones(1, 1, 1, dtype=torch.int64)), "std must hold finite floating point"),
    "one std of many 0": (
        changed(std=torch.ones(1, 8, 8).index_fill(2, torch.tensor([3]), 0.0)),
        r"std must be positive, got 0\.0 at index 3",
    ),
    "mean NaN": (changed(mean=torch.full((1, 1, 1), NAN)), "mean must hold finite floating point numbers"),
    "mean of three channels": (changed(mean=torch.zeros(3, 1, 1)), r"mean must fit inputs of shape \(1, 8, 8\)"),
    "mean of the wrong size": (
        changed(mean=torch.zeros(5)),
        r"mean must fit inputs of shape \(1, 8, 8\), as \(1, 1, 1\)",
    ),
    "mean of a batch": (changed(mean=torch.zeros(4, 1, 8, 8)), r"mean must fit inputs of shape \(1, 8, 8\)"),
    "std of the wrong size": (changed(std=torch.ones(2, 8, 8)), r"std must fit inputs of shape \(1, 8, 8\)"),
    "no training examples": (changed(train=EMPTY), "train must hold examples, got none"),
    "no test examples": (changed(test=EMPTY), "test must hold examples, got none"),
    "a test of another size": (
        changed(test=Examples(torch.zeros(5, 1, 9, 9), torch.zeros(5, dtype=torch.int64))),
        r"inputs of test must have shape \(1, 8, 8\) each, as those of train, got \(1, 9, 9\)",
    ),
    "a test of other channels": (
        changed(test=Examples(torch.zeros(5, 3, 8, 8), torch.zeros(5, dtype=torch.int64))),
        r"inputs of test must have shape \(1, 8, 8\) each, as those of train, got \(3, 8, 8\)",
    ),
    "pictures called a table": (
        changed(kind="tabular"),
        r"inputs of kind tabular must have 1 dimensions, got \(1, 8, 8\)",
    ),
    "too few writers": (changed(writers=torch.zeros(5, dtype=torch.int64)), r"writers must name one for each of 1297"),
    "too many writers": (changed(writers=torch.zeros(1298, dtype=torch.int64)), r"writers must name one for each of"),
    "a word too high": (texts(60.0), r"words of train must be whole numbers in 0\.\.59.* at index 11 are not"),
    "a negative word": (texts(-1.0), r"words of train must be whole numbers in 0\.\.59.* at index 11 are not"),
    "half a word": (texts(3.5), r"words of train must be whole numbers in 0\.\.59.* at index 11 are not"),
    "a word that is NaN": (texts(NAN), r"inputs of train must be finite, got nan in the example at index 11"),
    "lengths that differ": (
        lambda: replace(DIGITS, train=Examples(DIGITS.train.inputs, DIGITS.train.labels[:-1])),
        r"examples need inputs \(N, ...\) and labels \(N,\), got \(1297, 1, 8, 8\) and \(1296,\)",
    ),
    "inputs of bytes": (
        lambda: replace(DIGITS, train=Examples(DIGITS.train.inputs.byte(), DIGITS.train.labels)),
        "examples need float32 inputs and int64 labels, got torch.uint8",
    ),
    "labels of floats": (
        lambda: replace(DIGITS, train=Examples(DIGITS.train.inputs, DIGITS.train.labels.float())),
        "examples need float32 inputs and int64 labels, got torch.float32 and torch.float32",
    ),
}


@pytest.mark.fault(
    "Data sets", "a data set with something wrong in it", "one line before training, with part, index and value"
)
@pytest.mark.parametrize("name", WRONG)
def test_is_refused(name: str) -> None:
    make, message = WRONG[name]
    scenario = build_scenario(compose_config(["attack=none"])[0])
    with pytest.raises(ConfigError, match=rf"^dataset: .*{message}") as refusal:
        prepare(replace(scenario, dataset=Own(dataset=make)))
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("value", [1e38, -1e38])
def test_large_numbers_are_numbers(value: float) -> None:
    def make() -> Dataset:
        inputs = DIGITS.train.inputs.clone()
        inputs[:20] = value  # their sum overflows
        return replace(DIGITS, train=Examples(inputs, DIGITS.train.labels))

    scenario = build_scenario(compose_config(["attack=none"])[0])
    prepare(replace(scenario, dataset=Own(dataset=make)))


def test_a_good_one_is_taken() -> None:
    prepare(replace(build_scenario(compose_config(["attack=none"])[0]), dataset=Own(dataset=lambda: DIGITS)))


def test_pixels_beyond_those_of_a_trigger_are_pointed_out() -> None:
    """A trigger's white is 1: on pixels of 0 to 255 nobody sees it, and who holds out against it shows nothing."""

    def made() -> Dataset:
        return replace(DIGITS, train=Examples(255 * DIGITS.train.inputs, DIGITS.train.labels))

    scenario = build_scenario(compose_config(["num_clients=4", "attack.num_malicious=1"])[0])
    with collected_notices() as said:
        prepare(replace(scenario, dataset=Own(dataset=made)))
    assert "digits: pixels lie in [0, 255] and not in [0, 1], in which triggers are stamped" in said
