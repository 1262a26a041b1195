"""Examples and Dataset: what they check, and normalisation against NumPy."""

import numpy as np
import pytest
import torch

from fedrobust.data.datasets import Dataset, Examples


def make_dataset() -> Dataset:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.rand((6, 3, 4, 5), generator=generator)
    examples = Examples(inputs, torch.tensor([0, 1, 2, 0, 1, 2]))
    mean, std = torch.tensor([0.1, 0.2, 0.3]).view(3, 1, 1), torch.tensor([1.0, 2.0, 4.0]).view(3, 1, 1)
    return Dataset("toy", examples, examples.subset(torch.tensor([0, 1])), 3, "image", mean, std)


def test_normalise_is_per_channel() -> None:
    """NumPy, one channel at a time."""
    dataset = make_dataset()
    normalised = dataset.normalise(dataset.train.inputs).numpy()
    raw = dataset.train.inputs.numpy()
    for channel, (mean, std) in enumerate([(0.1, 1.0), (0.2, 2.0), (0.3, 4.0)]):
        np.testing.assert_allclose(normalised[:, channel], (raw[:, channel] - mean) / std, rtol=1e-5, atol=1e-6)


def test_shapes_and_lengths() -> None:
    dataset = make_dataset()
    assert dataset.input_shape == (3, 4, 5)
    assert (len(dataset.train), len(dataset.test)) == (6, 2)


def test_subset_keeps_the_order_asked_for_and_copies() -> None:
    examples = make_dataset().train
    chosen = examples.subset(torch.tensor([4, 0]))
    assert chosen.labels.tolist() == [1, 0]
    assert torch.equal(chosen.inputs[0], examples.inputs[4])
    chosen.inputs.zero_()
    assert examples.inputs[4].abs().sum() > 0


def test_to_moves_every_tensor() -> None:
    """The meta device stands for another device."""
    moved = make_dataset().to(torch.device("meta"))
    tensors = (moved.train.inputs, moved.train.labels, moved.test.inputs, moved.test.labels, moved.mean, moved.std)
    assert {tensor.device.type for tensor in tensors} == {"meta"}


@pytest.mark.parametrize(
    ("inputs", "labels"),
    [
        (torch.zeros(3, 2), torch.zeros(4, dtype=torch.int64)),
        (torch.zeros(3, 2), torch.zeros((3, 1), dtype=torch.int64)),
        (torch.zeros(3, 2, dtype=torch.float64), torch.zeros(3, dtype=torch.int64)),
        (torch.zeros(3, 2), torch.zeros(3)),
    ],
)
def test_examples_refuse_what_does_not_fit(inputs: torch.Tensor, labels: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="examples need"):
        Examples(inputs, labels)
