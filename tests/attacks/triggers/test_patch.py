"""Patches against a pixel-by-pixel loop, and the layout that the DBA paper's code lists."""

import pytest
import torch

from fedrobust.attacks import Patch, PatchGrid, Pixels
from fedrobust.attacks.triggers import union
from fedrobust.config.component import FieldError


def test_stamp_overwrites_the_masked_pixels_and_nothing_else():
    """x' = (1-m) x + m value, computed pixel by pixel."""
    images = torch.rand(3, 2, 5, 6, generator=torch.Generator().manual_seed(0))
    before = images.clone()
    (trigger,) = Patch(height=2, width=3, top=1, left=2, value=0.25).triggers((2, 5, 6))
    stamped = trigger.stamp(images)
    for n in range(3):
        for c in range(2):
            for row in range(5):
                for column in range(6):
                    inside = 1 <= row < 3 and 2 <= column < 5
                    expected = 0.25 if inside else float(before[n, c, row, column])
                    assert float(stamped[n, c, row, column]) == expected
    assert torch.equal(images, before)


def test_grid_lies_where_the_authors_put_it():
    """The pixel lists of the DBA authors' MNIST configuration: 1x4 patches, gap 2, at (0, 0)."""
    authors = [
        [(0, 0), (0, 1), (0, 2), (0, 3)],
        [(0, 6), (0, 7), (0, 8), (0, 9)],
        [(3, 0), (3, 1), (3, 2), (3, 3)],
        [(3, 6), (3, 7), (3, 8), (3, 9)],
    ]
    parts = PatchGrid(height=1, width=4, gap=2).triggers((1, 28, 28))
    assert [[tuple(pixel) for pixel in part.mask.nonzero().tolist()] for part in parts] == authors


def test_grid_of_cifar_lies_where_the_authors_put_it():
    """The authors' CIFAR-10 configuration: 1x6 patches, gap 3: columns 0-5 and 9-14, rows 0 and 4."""
    parts = PatchGrid(height=1, width=6, gap=3).triggers((3, 32, 32))
    corners = [part.mask.nonzero()[0].tolist() for part in parts]
    assert corners == [[0, 0], [0, 9], [4, 0], [4, 9]]
    assert [int(part.mask.sum()) for part in parts] == [6, 6, 6, 6]


@pytest.mark.parametrize("num_patches", [1, 2, 3, 4, 6])
def test_parts_are_disjoint_and_their_union_is_the_whole(num_patches):
    """Disjoint: the pixels of the parts add up to the pixels of their union."""
    parts = PatchGrid(height=2, width=3, gap=1, top=1, left=2, num_patches=num_patches).triggers((1, 28, 28))
    whole = union(parts)
    assert len(parts) == num_patches
    assert int(whole.mask.sum()) == sum(int(part.mask.sum()) for part in parts) == 6 * num_patches
    images = torch.zeros(1, 1, 28, 28)
    one_by_one = images
    for part in parts:
        one_by_one = part.stamp(one_by_one)
    assert torch.equal(whole.stamp(images), one_by_one)


@pytest.mark.parametrize(
    ("shape", "trigger", "text"),
    [
        ((30,), Patch(), r"must be used on pictures \(C, H, W\), got inputs of shape \(30,\)"),
        ((1, 8, 8), Patch(height=3, top=6), r"must lie within the 8x8 picture, got rows 6 to 8 and columns 0 to 2"),
        ((1, 8, 8), PatchGrid(width=4, gap=2), r"must lie within the 8x8 picture, got rows 0 to 0 and columns 6 to 9"),
    ],
)
def test_a_trigger_outside_the_picture_is_refused(shape, trigger, text):
    with pytest.raises(FieldError, match=text):
        trigger.triggers(shape)


def test_pixels_count_from_both_ends():
    """[-1, -2] of a 4x5 picture is [3, 3]; pixel by pixel, a colour for each channel."""
    images = torch.rand(2, 3, 4, 5, generator=torch.Generator().manual_seed(1))
    colour = [1.0, 0.5, 0.0]
    (trigger,) = Pixels(pixels=[[0, 1], [-1, -2]], value=colour).triggers((3, 4, 5))
    expected = images.clone()
    for channel, value in enumerate(colour):
        expected[:, channel, 0, 1] = value
        expected[:, channel, 3, 3] = value
    assert torch.equal(trigger.stamp(images), expected)
    assert trigger.mask.nonzero().tolist() == [[0, 1], [3, 3]]


@pytest.mark.parametrize("pixels", [[], [[1]], [[1, 2, 3]]])
def test_pixels_are_pairs(pixels):
    with pytest.raises(FieldError, match=r"pixels: must be a list of \[row, column\], at least one, got"):
        Pixels(pixels=pixels)


@pytest.mark.parametrize("pixel", [[8, 0], [0, 8], [-9, 0]])
def test_a_pixel_outside_is_refused(pixel):
    with pytest.raises(FieldError, match=r"must lie within the 8x8 picture, got pixel"):
        Pixels(pixels=[pixel]).triggers((1, 8, 8))


def test_a_colour_needs_its_channels():
    with pytest.raises(FieldError, match=r"trigger.value: must be one number, or one for each of 1 channels"):
        Patch(value=[1.0, 0.0, 0.0]).triggers((1, 8, 8))
