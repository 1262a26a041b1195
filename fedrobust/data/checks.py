"""What is wrong with a data set, said when it is loaded: later it would only show as a model that does not learn."""

import torch
from torch import Tensor

from fedrobust.data.examples import Dataset, Examples
from fedrobust.data.files import DataError
from fedrobust.notices import notice

_DIMENSIONS = {"image": 3, "tabular": 1, "text": 1}


def check_dataset(dataset: Dataset) -> None:
    """Look once at all examples and at what normalises them.

    Raises:
        DataError: the first thing that is wrong, with part, index and value, and what is allowed.
    """
    name, shape = dataset.name, dataset.input_shape
    if not isinstance(dataset.num_classes, int):
        raise DataError(f"{name}: num_classes must be a whole number, got {dataset.num_classes!r}")
    if dataset.num_classes < 2:
        raise DataError(f"{name}: num_classes must be at least 2, got {dataset.num_classes}")
    if dataset.kind not in _DIMENSIONS:
        raise DataError(f"{name}: kind must be {', '.join(_DIMENSIONS)}, got {dataset.kind!r}")
    for part, examples in (("train", dataset.train), ("test", dataset.test)):
        if len(examples) == 0:
            raise DataError(f"{name}: {part} must hold examples, got none")
        if tuple(examples.inputs.shape[1:]) != shape:
            raise DataError(
                f"{name}: inputs of {part} must have shape {shape} each, as those of train, got "
                f"{tuple(examples.inputs.shape[1:])}"
            )
        _check_labels(name, part, examples, dataset.num_classes)
        _check_inputs(name, part, examples.inputs)
    num_dimensions = _DIMENSIONS[dataset.kind]
    if len(shape) != num_dimensions:
        raise DataError(f"{name}: inputs of kind {dataset.kind} must have {num_dimensions} dimensions, got {shape}")
    _check_normalisation(dataset)
    if dataset.writers is not None and dataset.writers.shape != dataset.train.labels.shape:
        raise DataError(
            f"{name}: writers must name one for each of {len(dataset.train)} training examples, got "
            f"{tuple(dataset.writers.shape)}"
        )
    if dataset.vocabulary_size is not None:
        _check_words(dataset, dataset.vocabulary_size)


def _check_labels(name: str, part: str, examples: Examples, num_classes: int) -> None:
    labels = examples.labels
    wrong = (labels < 0) | (labels >= num_classes)
    if bool(wrong.any()):
        index = int(wrong.nonzero()[0])
        raise DataError(
            f"{name}: labels of {part} must lie in 0..{num_classes - 1}, got {int(labels[index])} at index {index} "
            f"({int(wrong.sum())} of {len(labels)} do not)"
        )


def _check_inputs(name: str, part: str, inputs: Tensor) -> None:
    if bool(inputs.sum().isfinite()):  # as fast as reading; a sum that overflows is looked at closely
        return
    wrong = ~inputs.flatten(1).isfinite().all(dim=1)
    if bool(wrong.any()):
        index = int(wrong.nonzero()[0])
        values = inputs[index].flatten()
        value = float(values[~values.isfinite()][0])
        raise DataError(
            f"{name}: inputs of {part} must be finite, got {value} in the example at index {index} "
            f"({int(wrong.sum())} of {len(inputs)} examples are not)"
        )


def _check_normalisation(dataset: Dataset) -> None:
    shape = dataset.model_shape
    for field, values in (("mean", dataset.mean), ("std", dataset.std)):
        if not isinstance(values, Tensor):
            raise DataError(f"{dataset.name}: {field} must be a tensor, got {type(values).__name__}")
        if not values.is_floating_point() or not bool(values.isfinite().all()):
            raise DataError(f"{dataset.name}: {field} must hold finite floating point numbers")
        if values.dtype != torch.float32:
            raise DataError(f"{dataset.name}: {field} must be float32, got {str(values.dtype).removeprefix('torch.')}")
        try:
            fits = tuple(torch.broadcast_shapes(values.shape, shape)) == shape
        except RuntimeError:
            fits = False
        if not fits:
            raise DataError(
                f"{dataset.name}: {field} must fit inputs of shape {shape}, as ({shape[0]}"
                f"{', 1' * (len(shape) - 1)}{',' if len(shape) == 1 else ''}), got {tuple(values.shape)}"
            )
    if not bool((dataset.std > 0).all()):
        flat = dataset.std.flatten()
        index = int((flat <= 0).nonzero()[0])
        raise DataError(f"{dataset.name}: std must be positive, got {float(flat[index])} at index {index}")
    largest = max(float(part.inputs.abs().max()) for part in (dataset.train, dataset.test)) + float(
        dataset.mean.abs().max()
    )
    if largest / float(dataset.std.min()) > torch.finfo(torch.float32).max:
        raise DataError(
            f"{dataset.name}: std must not be so small that inputs overflow: they go up to {largest:g}, the least std "
            f"is {float(dataset.std.min()):g}"
        )
    low, high = float(dataset.train.inputs.min()), float(dataset.train.inputs.max())
    if dataset.kind == "image" and (low < 0 or high > 1):
        notice(f"{dataset.name}: pixels lie in [{low:g}, {high:g}] and not in [0, 1], in which triggers are stamped")


def _check_words(dataset: Dataset, vocabulary_size: int) -> None:
    for part, examples in (("train", dataset.train), ("test", dataset.test)):
        words = examples.inputs
        wrong = ((words < 0) | (words >= vocabulary_size) | (words != words.round())).flatten(1).any(dim=1)
        if bool(wrong.any()):
            index = int(wrong.nonzero()[0])
            raise DataError(
                f"{dataset.name}: words of {part} must be whole numbers in 0..{vocabulary_size - 1}, and those of the "
                f"example at index {index} are not"
            )
