"""Edge cases: turned pictures against torch.rot90 and scipy's affine map, and counts by hand."""

import math

import numpy as np
import pytest
import scipy.ndimage
import torch

from fedrobust.attacks import EdgeCase
from fedrobust.attacks.data.edge_case import Slant
from fedrobust.config.component import FieldError
from fedrobust.data.datasets import Examples


def pictures(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("size", [7, 8])
def test_right_angles_agree_with_rot90(size):
    images = pictures(3, 2, size, size)
    for turns in (1, 2, 3):
        turned = Slant(90.0 * turns, 0.0).stamp(images)
        torch.testing.assert_close(turned, torch.rot90(images, turns, dims=(-2, -1)), atol=1e-5, rtol=0)


@pytest.mark.parametrize(("rotation", "shear"), [(30.0, 0.0), (0.0, 0.5), (-50.0, 0.3)])
def test_other_angles_agree_with_scipy(rotation, shear):
    """scipy.ndimage.affine_transform, order 1, about the middle, in (row, column) order, on a picture with a margin.

    Output pixel p shows input pixel M (p - c) + c; anticlockwise in a picture whose rows run downwards.
    """
    image = torch.zeros(12, 17)
    image[3:9, 4:13] = pictures(6, 9)
    angle = math.radians(rotation)
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])  # (x, y), y downwards
    inverse = turn @ np.array([[1.0, shear], [0.0, 1.0]])
    matrix = inverse[::-1, ::-1]  # (row, column)
    middle = (np.array(image.shape) - 1) / 2
    expected = scipy.ndimage.affine_transform(
        image.double().numpy(), matrix, offset=middle - matrix @ middle, order=1, mode="constant"
    )
    turned = Slant(rotation, shear).stamp(image[None])
    np.testing.assert_allclose(turned[0].numpy(), expected, atol=1e-4)


def test_slanting_moves_the_top_to_the_right():
    """A vertical line sheared by one column a row becomes the rising diagonal."""
    image = torch.zeros(1, 5, 5)
    image[0, :, 2] = 1
    torch.testing.assert_close(Slant(0.0, 1.0).stamp(image)[0], torch.eye(5).flip(1), atol=1e-6, rtol=0)


def test_edge_cases_come_after_the_clean_examples():
    """100 examples, 10 of the source class: a rate of 5 % adds 5 turned ones, one of 90 % all ten."""
    clean = Examples(pictures(100, 1, 8, 8), torch.arange(100) % 10)
    for rate, expected in ((0.05, 5), (0.9, 10)):
        attack = EdgeCase(source_label=7, target_label=1, rotation=90.0, poison_rate=rate)
        poisoned = attack.poison(clean, 0, torch.Generator().manual_seed(0))
        assert torch.equal(poisoned.inputs[:100], clean.inputs)
        assert torch.equal(poisoned.labels[:100], clean.labels)
        assert poisoned.labels[100:].tolist() == [1] * expected
        sources = torch.rot90(clean.inputs[clean.labels == 7], 1, dims=(-2, -1))
        for edge in poisoned.inputs[100:]:
            assert float((sources - edge).abs().amax(dim=(1, 2, 3)).min()) < 1e-5
        assert len({tuple(edge.flatten().tolist()) for edge in poisoned.inputs[100:]}) == expected


def test_success_is_asked_of_the_source_class():
    test = Examples(pictures(10, 1, 8, 8), torch.arange(10))
    assert EdgeCase(source_label=7, target_label=1).wanted_labels(test).tolist() == [0, 1, 2, 3, 4, 5, 6, 1, 8, 9]


def test_without_an_example_of_the_source_there_is_no_edge_case():
    clean = Examples(pictures(4, 1, 8, 8), torch.zeros(4, dtype=torch.int64))
    assert len(EdgeCase().poison(clean, 0, torch.Generator())) == 4


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"source_label": 1}, "source_label: must differ from target_label, got 1 for both"),
        ({"rotation": 0.0}, r"rotation: must turn the picture, or shear must slant it, got 0\.0 and 0"),
        ({"rotation": 360.0}, "rotation: must turn the picture"),
        ({"rotation": math.inf}, "rotation: must be a finite number, got inf"),
    ],
)
def test_a_tail_that_is_none_is_refused(fields, text):
    with pytest.raises(FieldError, match=text):
        EdgeCase(**fields)


def test_edge_cases_need_pictures():
    with pytest.raises(FieldError, match=r"must be used on pictures \(C, H, W\), got inputs of shape \(30,\)"):
        EdgeCase().local_triggers((30,))
