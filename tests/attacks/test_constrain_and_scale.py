"""Constrain-and-scale against NumPy's formula and the hand-derived gradient of its anomaly term."""

import numpy as np
import pytest
import torch

from fedrobust.attacks import ConstrainAndScale
from fedrobust.component import FieldError


def models() -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    generator = torch.Generator().manual_seed(0)
    own = [
        torch.randn(3, 4, generator=generator, requires_grad=True),
        torch.randn(5, generator=generator).requires_grad_(),
    ]
    received = [torch.randn(3, 4, generator=generator), torch.randn(5, generator=generator)]
    return own, received


def flat(parts: list[torch.Tensor]) -> np.ndarray:
    return np.concatenate([part.detach().double().numpy().ravel() for part in parts])


@pytest.mark.parametrize("anomaly", ["euclidean", "cosine"])
@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_value(alpha, anomaly):
    own, received = models()
    x, g = flat(own), flat(received)
    expected = ((x - g) ** 2).sum() if anomaly == "euclidean" else 1 - x @ g / np.linalg.norm(x) / np.linalg.norm(g)
    loss = ConstrainAndScale(alpha=alpha, anomaly=anomaly)(torch.tensor(2.5), own, received)
    assert float(loss.detach()) == pytest.approx(alpha * 2.5 + (1 - alpha) * expected, rel=1e-5)


def test_the_anomaly_term_has_a_gradient():
    """d/dX (1-α)‖X-G‖² = 2(1-α)(X-G): a version without a gradient would be plain poisoning."""
    own, received = models()
    ConstrainAndScale(alpha=0.25)(torch.tensor(1.0), own, received).backward()
    for x, g in zip(own, received, strict=True):
        torch.testing.assert_close(x.grad, 1.5 * (x.detach() - g))


def test_cosine_gradient_is_orthogonal_to_the_model():
    """The cosine does not change along X itself, so ⟨∇, X⟩ = 0."""
    own, received = models()
    ConstrainAndScale(alpha=0.0, anomaly="cosine")(torch.tensor(0.0), own, received).backward()
    gradient, x = flat([part.grad for part in own if part.grad is not None]), flat(own)
    assert abs(gradient @ x) < 1e-5 * np.linalg.norm(gradient) * np.linalg.norm(x)
    assert np.linalg.norm(gradient) > 0.01


def test_fields_are_checked():
    with pytest.raises(FieldError, match=r"alpha: must be less than or equal to 1, got 1\.5"):
        ConstrainAndScale(alpha=1.5)
    with pytest.raises(FieldError, match="anomaly: must be 'euclidean' or 'cosine', got 'l1'"):
        ConstrainAndScale(anomaly="l1")
