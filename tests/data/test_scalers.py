"""Scalers against the libraries themselves, called as their users call them."""

import sys

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional
from torchvision.transforms import v2

from fedrobust.config.component import FieldError
from fedrobust.data.scalers import SCALERS, Scaler, check_scaler, to_bytes

SIZES = [((40, 56), (8, 16)), ((64, 64), (8, 8)), ((45, 30), (13, 9))]


def pictures(height: int, width: int, channels: int = 3) -> torch.Tensor:
    """Random bytes over 255."""
    values = np.random.default_rng(0).integers(0, 256, (4, channels, height, width))
    return torch.from_numpy(values).float() / 255


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("name", SCALERS)
def test_the_matrices_are_what_the_scaler_does(name, sizes):
    """C_L X C_R against the scaler, both in [0, 1], of pixels far enough from the ends that nothing leaves the range.

    To 1e-3 where floating point comes out. Bytes are rounded, by OpenCV also the weights and by Pillow also between
    the axes: to one byte. The next two tests have the 1e-3 for these libraries, without the rounding.
    """
    (height, width), small = sizes
    scaler = Scaler(name, small)
    left, right = scaler.matrices(height, width)
    assert left.shape == (small[0], height)
    assert right.shape == (width, small[1])
    inputs = (pictures(height, width) * 127 + 64).round() / 255
    expected = left @ inputs.double().numpy() @ right
    found = scaler(inputs).double().numpy()
    if not scaler.scales_bytes:
        np.testing.assert_allclose(found, expected, atol=1e-3)
    else:
        np.testing.assert_allclose(found, expected, atol=1.001 / 255)


@pytest.mark.parametrize("kind", ["nearest", "linear", "cubic", "area"])
def test_opencv_matrices_to_a_thousandth(kind):
    """OpenCV itself on floating-point pixels."""
    plane = np.random.default_rng(1).random((45, 30)).astype(np.float32)
    left, right = Scaler(f"opencv_{kind}", (13, 9)).matrices(45, 30)
    found = cv2.resize(plane, (9, 13), interpolation=getattr(cv2, f"INTER_{kind.upper()}"))
    np.testing.assert_allclose(left @ plane @ right, found, atol=1e-3)


@pytest.mark.parametrize("kind", ["nearest", "box", "bilinear", "bicubic", "lanczos"])
def test_pillow_matrices_to_a_thousandth(kind):
    """Pillow itself on floating-point pixels (its mode F)."""
    plane = np.random.default_rng(1).random((45, 30)).astype(np.float32)
    left, right = Scaler(f"pillow_{kind}", (13, 9)).matrices(45, 30)
    found = np.array(Image.fromarray(plane).resize((9, 13), Image.Resampling[kind.upper()]))
    np.testing.assert_allclose(left @ plane @ right, found, atol=1e-3)


def test_a_picture_is_what_the_library_makes_of_it():
    inputs = pictures(40, 56)
    pixels = to_bytes(inputs)
    size = (8, 16)
    by_opencv = np.stack([cv2.resize(one, (16, 8), interpolation=cv2.INTER_CUBIC) for one in pixels])
    by_pillow = np.stack([np.array(Image.fromarray(one).resize((16, 8), Image.Resampling.BICUBIC)) for one in pixels])
    assert (to_bytes(Scaler("opencv_cubic", size)(inputs)) == by_opencv).all()
    assert (to_bytes(Scaler("pillow_bicubic", size)(inputs)) == by_pillow).all()
    by_torchvision = v2.Resize(size)(inputs)  # antialiased by default
    assert torch.equal(Scaler("torchvision_bilinear", size)(inputs), by_torchvision)
    assert torch.equal(Scaler("torchvision_bilinear_plain", size)(inputs), v2.Resize(size, antialias=False)(inputs))
    bilinear = functional.interpolate(inputs, size, mode="bilinear")
    assert torch.equal(Scaler("interpolate_bilinear", size)(inputs), bilinear)
    assert torch.equal(
        Scaler("interpolate_bilinear_antialias", size)(inputs),
        functional.interpolate(inputs, size, mode="bilinear", antialias=True),
    )


@pytest.mark.parametrize("name", SCALERS)
def test_grey_pictures_keep_their_channel_and_nothing_is_written(name):
    inputs = pictures(16, 16, channels=1)
    before = inputs.clone()
    scaled = Scaler(name, (4, 8))(inputs)
    assert (scaled.shape, scaled.dtype) == ((4, 1, 4, 8), torch.float32)
    assert torch.equal(inputs, before)


def test_antialiasing_scalers_read_every_pixel_and_the_others_do_not():
    """At a ratio of 8: what part of a row has any weight. Linear reads 2 of 8 pixels, cubic 4, nearest 1."""
    read = {name: float((Scaler(name, (8, 8)).matrices(64, 64)[0] != 0).any(axis=0).mean()) for name in SCALERS}
    assert read["opencv_nearest"] == read["pillow_nearest"] == read["interpolate_nearest"] == 1 / 8
    assert read["opencv_linear"] == read["interpolate_bilinear"] == read["torchvision_bilinear_plain"] == 2 / 8
    assert read["opencv_cubic"] == read["interpolate_bicubic"] == 4 / 8
    others = ("area", "box", "pillow_bilinear", "pillow_bicubic", "lanczos", "torchvision_bilinear", "antialias")
    for name in SCALERS:
        if name.endswith(others):
            assert read[name] == 1


def test_what_cannot_be_done_is_said(monkeypatch):
    with pytest.raises(ValueError, match="opencv_linear has no gradient; torchvision_"):
        Scaler("opencv_linear", (4, 4))(pictures(8, 8).requires_grad_())
    inputs = pictures(8, 8).requires_grad_()
    Scaler("torchvision_bilinear", (4, 4))(inputs).sum().backward()
    assert inputs.grad is not None
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(FieldError, match=r'needs OpenCV: pip install "fedrobust\[scaling\]"'):
        check_scaler("opencv_area")
    check_scaler("pillow_box")
