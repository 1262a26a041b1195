"""The image-scaling attack on single pictures: against a solver of quadratic programmes, and against the scalers."""

import numpy as np
import pytest
import torch
from scipy.optimize import LinearConstraint, minimize
from sklearn.datasets import load_sample_image
from torch import Tensor

from fedrobust.attacks.data.scaled_picture import hide, nearest, psnr
from fedrobust.config.component import FieldError
from fedrobust.data.scalers import Scaler, to_bytes

VULNERABLE = ("opencv_nearest", "opencv_linear", "opencv_cubic", "interpolate_bilinear")
ANTIALIASING = ("opencv_area", "pillow_bilinear", "torchvision_bilinear")


def patches(photograph: str, seed: int, number: int = 10, size: int = 64) -> Tensor:
    """Parts of one of scikit-learn's photographs, as whole bytes over 255."""
    pixels = torch.from_numpy(load_sample_image(photograph).copy()).permute(2, 0, 1).float() / 255
    draws = torch.Generator().manual_seed(seed)
    corners = [
        [int(torch.randint(side - size, (1,), generator=draws)) for side in pixels.shape[1:]] for _ in range(number)
    ]
    return torch.stack([pixels[:, top : top + size, left : left + size] for top, left in corners])


@pytest.mark.parametrize("name", ["opencv_linear", "opencv_cubic", "opencv_area", "pillow_bilinear"])
def test_a_column_is_changed_as_little_as_can_be(name: str) -> None:
    """Against SciPy's SLSQP on the same quadratic programme: as small a change, to half a per cent of its norm."""
    weights, _ = Scaler(name, (4, 4)).matrices(14, 14)
    draws = np.random.default_rng(0)
    source = draws.uniform(0, 255, (14, 6))
    target = weights @ draws.uniform(0, 255, (14, 6))  # of a picture, so that there is a solution
    answer = nearest(weights, source, target, 2.0)
    assert np.abs(weights @ answer - target).max() <= 2.0 + 0.05
    assert answer.min() >= 0
    assert answer.max() <= 255
    for column in range(6):
        start, wanted = source[:, column] / 255, target[:, column] / 255
        exact = minimize(
            lambda a, start=start: 0.5 * ((a - start) ** 2).sum(),
            start,
            jac=lambda a, start=start: a - start,
            bounds=[(0, 1)] * 14,
            constraints=[LinearConstraint(weights, wanted - 2 / 255, wanted + 2 / 255)],
            method="SLSQP",
            options={"maxiter": 500, "ftol": 1e-12},
        )
        assert exact.success
        best = 255 * np.linalg.norm(exact.x - start)
        assert np.linalg.norm(answer[:, column] - source[:, column]) <= 1.005 * best + 0.1


def test_what_fits_already_is_left_alone() -> None:
    weights, _ = Scaler("opencv_linear", (4, 4)).matrices(16, 16)
    source = np.random.default_rng(0).uniform(0, 255, (16, 5))
    assert np.array_equal(nearest(weights, source, weights @ source, 0.5), source)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", [*VULNERABLE, *ANTIALIASING])
def test_who_can_be_fooled(name: str, seed: int) -> None:
    """From 64 to 8 pixels, after rounding to bytes, by the scaler itself: what comes out is within ε of what is hidden.

    For four scalers the change stays above 18 dB, what counts as hidden; for antialiasing ones it shows, below 12 dB.
    An independent small implementation had 20.6 to 27.0 dB and 7.1 to 8.9 dB. All of it for parts of one photograph:
    how unlike two pictures are decides, too.
    """
    sources, others = patches("china.jpg", seed), patches("china.jpg", seed + 50)
    scaler = Scaler(name, (8, 8))
    targets = torch.from_numpy(to_bytes(scaler(others))).permute(0, 3, 1, 2).float() / 255
    made = hide(sources, targets, scaler)
    assert torch.equal(made, (made * 255).round() / 255)
    assert 0 <= float(made.min()) <= float(made.max()) <= 1
    shown = psnr(made, sources)
    if name in VULNERABLE:
        reached = scaler(made)
        assert float((reached - targets).abs().max()) <= 0.01 + 0.5 / 255 + 1e-6  # targets, too, are rounded to bytes
        assert float(shown.mean()) > 18
    else:
        assert float(shown.mean()) < 12


def test_psnr_by_hand() -> None:
    """A change of 0.1 everywhere has a mean square of 0.01: 20 dB."""
    assert psnr(torch.full((2, 1, 4, 4), 0.6), torch.full((2, 1, 4, 4), 0.5)).tolist() == pytest.approx([20.0, 20.0])


def test_epsilon_must_leave_room_for_rounding() -> None:
    sources = patches("china.jpg", 0, number=1)
    scaler = Scaler("opencv_linear", (8, 8))
    with pytest.raises(FieldError, match=r"epsilon: must be above 0.0059, what rounding takes, got 0.005"):
        hide(sources, scaler(sources), scaler, 0.005)
