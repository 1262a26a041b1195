"""Random crops and flips against one image at a time, padded and sliced by NumPy."""

import numpy as np
import pytest
import torch

from fedrobust.data.augmentation import RandomCropFlip


@pytest.mark.parametrize(("shape", "padding"), [((7, 3, 8, 8), 4), ((5, 1, 6, 9), 2)])
def test_apply_equals_the_slow_loop(shape: tuple[int, ...], padding: int) -> None:
    augmentation = RandomCropFlip(padding=padding)
    generator = torch.Generator().manual_seed(1)
    inputs = torch.rand(shape, generator=generator)
    before = inputs.clone()
    draws = augmentation.draw(shape[:1], generator)
    result = augmentation.apply(inputs, draws).numpy()
    height, width = shape[2:]
    for image, (flip, top, left), got in zip(inputs.numpy(), draws.tolist(), result, strict=True):
        padded = np.pad(image, ((0, 0), (padding, padding), (padding, padding)))
        cropped = padded[:, top : top + height, left : left + width]
        np.testing.assert_array_equal(got, cropped[:, :, ::-1] if flip else cropped)
    assert torch.equal(inputs, before)


def test_the_middle_crop_changes_nothing() -> None:
    inputs = torch.rand((2, 3, 5, 5), generator=torch.Generator().manual_seed(0))
    assert torch.equal(RandomCropFlip(padding=3).apply(inputs, torch.tensor([[0, 3, 3]] * 2)), inputs)


def test_draws_are_uniform_and_in_range() -> None:
    """20,000 draws: each of 2 flips and 5 corners within five standard deviations of its expected count."""
    draws = RandomCropFlip(padding=2).draw((100, 200), torch.Generator().manual_seed(0))
    assert draws.shape == (100, 200, 3)
    assert draws.dtype == torch.int64
    for column, num_values in ((0, 2), (1, 5), (2, 5)):
        counts = np.bincount(draws[..., column].flatten().numpy())
        assert len(counts) == num_values
        probability = 1 / num_values
        deviation = np.sqrt(20_000 * probability * (1 - probability))
        assert np.abs(counts - 20_000 * probability).max() < 5 * deviation


def test_the_same_generator_gives_the_same_draws() -> None:
    first, second = (RandomCropFlip().draw((4, 5), torch.Generator().manual_seed(7)) for _ in range(2))
    assert torch.equal(first, second)


@pytest.mark.parametrize(
    ("inputs", "draws"), [(torch.zeros(2, 8, 8), torch.zeros(2, 3)), (torch.zeros(2, 1, 8, 8), torch.zeros(3, 3))]
)
def test_apply_refuses_other_shapes(inputs: torch.Tensor, draws: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="expected images"):
        RandomCropFlip().apply(inputs, draws.long())


def test_padding_must_be_positive() -> None:
    with pytest.raises(ValueError, match="padding"):
        RandomCropFlip(padding=0)
