"""Blends, waves, pasted files and triggers joined, against their formulas pixel by pixel."""

import math

import numpy as np
import pytest
import torch
from PIL import Image

from fedrobust.attacks import DBA, Blend, ImageFile, Patch, Pixels, Several, Sinusoid
from fedrobust.attacks.triggers import Trigger, union
from fedrobust.config.component import FieldError

SHAPES = [
    Patch(height=2, width=2),
    Pixels(pixels=[[-1, -1]]),
    Blend(),
    Sinusoid(amplitude=0.3, frequency=2.0),
    Several(shapes=[Patch(height=1, width=1), Blend(opacity=0.5)]),
]


def pictures(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(dtype)


def save(path, colours: np.ndarray) -> str:
    Image.fromarray(colours.astype(np.uint8)).save(path)
    return str(path)


def test_blend_is_a_convex_combination_with_one_noise():
    """x' - (1 - alpha) x is alpha times the noise: the same for every picture, within [0, alpha], and not constant."""
    images = pictures(5, 3, 6, 7)
    (trigger,) = Blend(opacity=0.25).triggers((3, 6, 7))
    noise = (trigger.stamp(images) - 0.75 * images) / 0.25
    torch.testing.assert_close(noise, noise[:1].expand_as(noise), atol=1e-5, rtol=0)
    assert 0 <= float(noise.min()) < 0.1
    assert 0.9 < float(noise.max()) <= 1 + 1e-5
    assert not torch.equal(trigger.add, Blend(opacity=0.25, seed=1).triggers((3, 6, 7))[0].add)
    assert torch.equal(trigger.add, Blend(opacity=0.25).triggers((3, 6, 7))[0].add)


def test_blend_with_a_file(tmp_path):
    """A picture of the inputs' own size is not resampled: x' = 0.5 x + 0.5 p."""
    colours = np.arange(2 * 3 * 3).reshape(2, 3, 3) * 10
    (trigger,) = Blend(opacity=0.5, file=save(tmp_path / "p.png", colours)).triggers((3, 2, 3))
    images = pictures(4, 3, 2, 3)
    pattern = torch.from_numpy(colours / 255).float().permute(2, 0, 1)
    torch.testing.assert_close(trigger.stamp(images), 0.5 * images + 0.5 * pattern)


def test_sinusoid_is_the_papers_signal():
    """v(i, j) = delta sin(2 pi j f / m), 1 <= j <= m, computed one pixel at a time and clipped."""
    images = pictures(2, 1, 3, 10)
    (trigger,) = Sinusoid(amplitude=0.4, frequency=3.0).triggers((1, 3, 10))
    stamped = trigger.stamp(images)
    for n in range(2):
        for row in range(3):
            for column in range(10):
                signal = 0.4 * math.sin(2 * math.pi * (column + 1) * 3 / 10)
                expected = min(max(float(images[n, 0, row, column]) + signal, 0.0), 1.0)
                assert float(stamped[n, 0, row, column]) == pytest.approx(expected, abs=1e-6)
    assert float(stamped.max()) == 1.0
    assert float(stamped.min()) == 0.0


def test_a_file_is_pasted_where_it_belongs(tmp_path):
    colours = np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [51, 102, 153]]])
    file = save(tmp_path / "p.png", colours)
    (trigger,) = ImageFile(file=file, height=2, width=2, top=1, left=3).triggers((3, 5, 6))
    images = pictures(4, 3, 5, 6)
    expected = images.clone()
    expected[:, :, 1:3, 3:5] = torch.from_numpy(colours / 255).float().permute(2, 0, 1)
    torch.testing.assert_close(trigger.stamp(images), expected)
    assert int(trigger.mask.sum()) == 4


def test_transparency_and_opacity_multiply(tmp_path):
    """Opaque, a third opaque and transparent pixels of white at opacity 0.5: x + 0.5 a (1 - x)."""
    colours = np.full((1, 3, 4), 255)
    colours[0, :, 3] = [255, 85, 0]
    file = save(tmp_path / "p.png", colours)
    (trigger,) = ImageFile(file=file, height=1, width=3, opacity=0.5).triggers((1, 2, 3))
    images = pictures(4, 1, 2, 3)
    alpha = torch.tensor([[1.0, 1 / 3, 0.0], [0.0, 0.0, 0.0]])
    torch.testing.assert_close(trigger.stamp(images), images + 0.5 * alpha * (1 - images))


def test_a_file_is_resized_as_pillow_does_and_grey_for_one_channel(tmp_path):
    colours = np.random.default_rng(0).integers(0, 256, (16, 16, 3))
    file = save(tmp_path / "p.png", colours)
    (trigger,) = ImageFile(file=file, height=4, width=4).triggers((1, 4, 4))
    with Image.open(file) as whole:
        expected = whole.resize((4, 4), Image.Resampling.BILINEAR).convert("L")
    stamped = trigger.stamp(torch.zeros(1, 1, 4, 4))
    np.testing.assert_allclose(stamped[0, 0].numpy() * 255, np.array(expected), atol=1)


def test_a_file_that_changed_is_read_again(tmp_path):
    shape = ImageFile(file=save(tmp_path / "p.png", np.zeros((2, 2, 3))), height=2, width=2)
    before = shape.triggers((1, 2, 2))[0].stamp(torch.full((1, 1, 2, 2), 0.5))
    save(tmp_path / "p.png", np.full((2, 2, 3), 255))
    after = shape.triggers((1, 2, 2))[0].stamp(torch.full((1, 1, 2, 2), 0.5))
    assert float(before.max()) == 0.0
    assert float(after.min()) == 1.0


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(FieldError, match=r"trigger.file: must be a picture .* 'nowhere.png' \(No such file"):
        ImageFile(file="nowhere.png").triggers((1, 8, 8))
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(FieldError, match=r"trigger.file: must be a picture .*text.png' \(cannot identify"):
        Blend(file=str(tmp_path / "text.png")).triggers((1, 8, 8))
    file = save(tmp_path / "p.png", np.zeros((2, 2, 3)))
    with pytest.raises(FieldError, match="must be used on pictures of 1 or 3 channels, got 2"):
        ImageFile(file=file).triggers((2, 8, 8))
    with pytest.raises(FieldError, match="must lie within the 8x8 picture, got rows 6 to 8"):
        ImageFile(file=file, top=6).triggers((1, 8, 8))


def test_several_stamps_one_after_the_other():
    """On black: pixel (0, 0) is white before the half blend halves it and adds half the noise."""
    shape = Several(shapes=[Patch(height=1, width=1), Blend(opacity=0.5)])
    parts = shape.triggers((1, 3, 3))
    images = torch.zeros(2, 1, 3, 3)
    one_by_one = parts[1].stamp(parts[0].stamp(images))
    torch.testing.assert_close(union(parts).stamp(images), one_by_one)
    expected = 0.5 + float(Blend(opacity=0.5).triggers((1, 3, 3))[0].add[0, 0, 0])
    assert float(one_by_one[0, 0, 0, 0]) == pytest.approx(expected)


def test_attackers_of_a_distributed_backdoor_do_not_overlap():
    overlapping = Several(shapes=[Patch(height=2, width=2), Pixels(pixels=[[1, 1], [4, 4]])])
    attack = DBA(trigger=overlapping, poison_rate=0.5)
    with pytest.raises(FieldError, match="trigger: must have disjoint parts, got 1 pixels in several"):
        attack.local_triggers((1, 8, 8))
    disjoint = Several(shapes=[Patch(height=2, width=2), Pixels(pixels=[[2, 2], [4, 4]])])
    assert len(DBA(trigger=disjoint, poison_rate=0.5).local_triggers((1, 8, 8))) == 2


@pytest.mark.parametrize("shapes", [[], [5], [Patch(), "blend"]])
def test_several_holds_triggers_alone(shapes):
    with pytest.raises(FieldError, match="shapes: must list components of the kind TriggerShape, at least one"):
        Several(shapes=shapes)


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: type(shape).__name__)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
def test_stamping_keeps_type_range_and_original(shape, dtype):
    images = pictures(4, 1, 8, 8, dtype=dtype)
    before = images.clone()
    trigger = union(shape.triggers((1, 8, 8)))
    stamped = trigger.stamp(images)
    assert torch.equal(images, before)
    assert stamped.data_ptr() != images.data_ptr()
    assert (stamped.dtype, stamped.shape) == (images.dtype, images.shape)
    assert 0 <= float(stamped.min()) <= float(stamped.max()) <= 1
    changed = (stamped != images).any(dim=(0, 1)) if stamped.ndim == 4 else None
    assert not bool((changed & ~trigger.mask).any()), "a pixel outside the mask changed"
    assert bool(changed.any())


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: type(shape).__name__)
def test_stamping_is_the_same_one_by_one_in_cohorts_and_under_vmap(shape):
    images = pictures(3, 4, 1, 8, 8)
    trigger = union(shape.triggers((1, 8, 8)))
    whole = trigger.stamp(images)
    assert torch.equal(whole, torch.stack([trigger.stamp(cohort) for cohort in images]))
    assert torch.equal(whole, torch.vmap(trigger.stamp)(images))
    assert torch.equal(whole[1, 2], trigger.stamp(images[1, 2]))


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: type(shape).__name__)
def test_a_trigger_needs_pictures(shape):
    with pytest.raises(FieldError, match=r"must be used on pictures \(C, H, W\), got inputs of shape \(30,\)"):
        shape.triggers((30,))


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: Blend(opacity=0.0), r"opacity: must be greater than 0, got 0\.0"),
        (lambda: Blend(opacity=1.5), r"opacity: must be less than or equal to 1, got 1\.5"),
        (lambda: Sinusoid(amplitude=2.0), r"amplitude: must be less than or equal to 1, got 2\.0"),
        (lambda: Sinusoid(frequency=0.0), r"frequency: must be greater than 0, got 0\.0"),
        (lambda: ImageFile(), "file"),
    ],
)
def test_ranges(make, text):
    with pytest.raises((FieldError, TypeError), match=text):
        make()


def test_an_overlay_is_mask_pattern_and_opacity():
    """x' = (1 - g m) x + g m d, the definition."""
    mask = torch.tensor([[True, False], [False, True]])
    pattern, images = pictures(1, 2, 2), pictures(3, 1, 2, 2).flip(0)
    trigger = Trigger.overlay(mask, pattern, 0.3)
    weight = 0.3 * mask.float()
    torch.testing.assert_close(trigger.stamp(images), (1 - weight) * images + weight * pattern)
    assert torch.equal(trigger.mask, mask)
