"""The frequency detector: its transform against the sum of cosines, its perturbations, and what it learns."""

import math

import pytest
import torch
from safetensors.torch import save_file
from sklearn.metrics import roc_auc_score

from fedrobust.audits import FrequencyDetector, TrainedFrequencyDetector
from fedrobust.audits.data import perturbations
from fedrobust.audits.data.frequency_network import dct
from fedrobust.data.examples import Examples


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def smooth_pictures(num: int, seed: int = 0, side: int = 16, channels: int = 1) -> torch.Tensor:
    """Random pictures of low frequencies, in [0, 1]."""
    coarse = torch.rand(num, channels, 4, 4, generator=generator(seed))
    return torch.nn.functional.interpolate(coarse, size=(side, side), mode="bicubic").clamp(0, 1)


def examples(num: int, seed: int = 0) -> Examples:
    return Examples(smooth_pictures(num, seed), torch.zeros(num, dtype=torch.int64))


@pytest.fixture(scope="module")
def detector() -> TrainedFrequencyDetector:
    return FrequencyDetector(num_epochs=8, width=8, learning_rate=3e-3).train(examples(600), generator())


def test_the_transform_is_the_sum_of_cosines():
    """X(u, v) = c_u c_v Σ x(i, j) cos(π(2i + 1)u / 2H) cos(π(2j + 1)v / 2W), c_0 = √(1/n), else √(2/n); 0 to 255."""
    pictures = torch.rand(2, 3, 4, 5, generator=generator())
    found = dct(pictures)
    for u in range(4):
        for v in range(5):
            scale = math.sqrt((1 if u == 0 else 2) / 4) * math.sqrt((1 if v == 0 else 2) / 5)
            total = sum(
                255
                * pictures[:, :, i, j]
                * math.cos(math.pi * (2 * i + 1) * u / 8)
                * math.cos(math.pi * (2 * j + 1) * v / 10)
                for i in range(4)
                for j in range(5)
            )
            torch.testing.assert_close(found[:, :, u, v], scale * total, rtol=1e-4, atol=1e-3)


def test_patches_are_rectangles_of_the_codes_sizes():
    """On black pictures a white patch is all that is lit: 2 to 7 a side, at most 5 from the nearest edges."""
    black = torch.zeros(300, 3, 32, 32)
    stamped = perturbations.white_patch(black, black, generator())
    sides = set()
    for picture in stamped:
        rows, columns = (picture[0] > 0).any(dim=1).nonzero(), (picture[0] > 0).any(dim=0).nonzero()
        height, width = (int(one.max() - one.min()) + 1 for one in (rows, columns))
        assert int((picture > 0).sum()) == 3 * height * width
        sides |= {height, width}
        for one in (rows, columns):
            assert min(int(one.min()), 31 - int(one.max())) <= 5
    assert sides == set(range(2, 8))


def test_noise_has_the_codes_moments():
    """Mean 25 of 255 and a variance between 10 and 70, in grey levels: from 3,072 draws a picture, within 5 sigma."""
    grey = torch.full((40, 3, 32, 32), 0.4)
    levels = 255 * (perturbations.noise(grey, grey, generator()) - grey)
    assert bool(((levels.mean(dim=(1, 2, 3)) - 25).abs() < 5 * math.sqrt(70 / 3072)).all())
    variances = levels.var(dim=(1, 2, 3))
    slack = 5 * math.sqrt(2 / 3071)
    assert bool(((variances > 10 * (1 - slack)) & (variances < 70 * (1 + slack))).all())


def test_shadows_halve_a_half_plane_and_blends_add_a_third():
    grey = torch.full((50, 1, 16, 16), 0.8)
    shaded = perturbations.shadow(grey, grey, generator())
    is_dark = torch.isclose(shaded, torch.tensor(0.4))
    assert bool((is_dark | torch.isclose(shaded, torch.tensor(0.8))).all())
    assert bool(is_dark.flatten(1).any(dim=1).all())
    assert bool((~is_dark).flatten(1).any(dim=1).all())
    other = torch.full((1, 1, 16, 16), 0.5)
    torch.testing.assert_close(perturbations.blend(grey, other, generator()), torch.full_like(grey, 0.95))


def test_every_kind_of_perturbation_occurs_and_nothing_is_written_to():
    pictures = smooth_pictures(200, channels=3)
    before = pictures.clone()
    perturbed = perturbations.perturb(pictures, generator())
    assert torch.equal(pictures, before)
    assert (perturbed.shape, perturbed.dtype) == (pictures.shape, pictures.dtype)
    assert 0 <= float(perturbed.min()) <= float(perturbed.max()) <= 1
    share = (perturbed != pictures).float().mean(dim=(1, 2, 3))
    assert float(share.min()) > 0
    assert float((share < 0.25).double().mean()) > 0.2  # patches
    assert float((share > 0.9).double().mean()) > 0.2  # noise and blends
    assert torch.equal(perturbed, perturbations.perturb(pictures, generator()))


def test_what_it_has_not_seen_is_told_apart(detector):
    """A checkerboard patch is sharp; a faint wave over the whole picture, as smooth as the pictures, is not."""
    fresh = smooth_pictures(400, seed=5)
    checker, wave = fresh.clone(), fresh.clone()
    checker[:, :, 2:6, 2:6] = (torch.arange(4).view(4, 1) + torch.arange(4)).remainder(2).float()
    wave = (wave + 0.03 * torch.sin(2 * math.pi * torch.arange(16) / 16)).clamp(0, 1)
    truth = [0] * 400 + [1] * 400

    def auc(triggered: torch.Tensor) -> float:
        return float(roc_auc_score(truth, torch.cat([detector.scores(fresh), detector.scores(triggered)]).numpy()))

    assert auc(checker) > 0.95
    assert auc(wave) < 0.7
    assert float(detector.accepts(checker).double().mean()) < 0.2


def test_the_threshold_keeps_the_false_positive_rate(detector):
    """150 held-out pictures, k = ⌊0.05 * 151⌋ = 7: the rate is Beta(7, 144), 0.046 ± 0.017; with 2,000 fresh pictures.

    The bound is its mean and five standard deviations, binomial noise included.
    """
    rejected = ~detector.accepts(smooth_pictures(2000, seed=9))
    assert float(rejected.double().mean()) < 0.046 + 5 * math.hypot(0.017, math.sqrt(0.046 * 0.954 / 2000))


def test_saved_and_loaded_it_is_the_same(detector, tmp_path):
    path = tmp_path / "detector.safetensors"
    detector.save(path)
    loaded = TrainedFrequencyDetector.load(path)
    pictures = smooth_pictures(20, seed=3)
    assert torch.equal(loaded.scores(pictures), detector.scores(pictures))
    assert (loaded.threshold, loaded.false_positive_rate) == (detector.threshold, detector.false_positive_rate)
    report = FrequencyDetector(detector_file=str(path))(Examples(pictures, torch.zeros(20).long()), None, generator())
    assert torch.equal(report.scores, detector.scores(pictures))
    assert report.score_threshold == detector.threshold


def test_what_is_no_detector_is_refused(tmp_path):
    pickled, other, absent = tmp_path / "model.pt", tmp_path / "other.safetensors", tmp_path / "absent.safetensors"
    torch.save({"weight": torch.zeros(2)}, pickled)
    save_file({"weight": torch.zeros(2)}, other)
    for path, says in ((pickled, "cannot be read"), (absent, "cannot be read"), (other, "holds no trained")):
        with pytest.raises(ValueError, match=says):
            TrainedFrequencyDetector.load(path)


def test_what_it_cannot_read_is_refused(detector):
    audit = FrequencyDetector()
    labels = torch.zeros(2, dtype=torch.int64)
    for inputs, says in (
        (torch.rand(2, 7), r"reads pictures \(N, C, H, W\), got shape \(2, 7\)"),
        (torch.rand(2, 1, 8, 8), "at least 16x16, got 8x8"),
        (torch.full((2, 1, 16, 16), math.nan), r"inputs must be finite, rows \[0, 1\] hold NaN"),
    ):
        with pytest.raises(ValueError, match=says):
            audit(Examples(inputs, labels), None, generator(), clean=examples(100))
    with pytest.raises(ValueError, match=r"trained on pictures of shape \(1, 16, 16\), got \(3, 16, 16\)"):
        detector.scores(torch.rand(1, 3, 16, 16))
    with pytest.raises(ValueError, match="FrequencyDetector needs at least 76 clean examples, got 75"):
        audit.train(examples(75), generator())
