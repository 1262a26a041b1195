"""Constrain-and-scale against NumPy's formula and the hand-derived gradient of its anomaly term."""

import numpy as np
import pytest
import torch
from small_step import by_autograd, make_step, random_batch, random_model

from fedrobust.attacks import ConstrainAndScale
from fedrobust.attacks.step import Parameters
from fedrobust.component import FieldError


def flat(parts: Parameters) -> np.ndarray:
    return np.concatenate([part.detach().double().numpy().ravel() for part in parts.values()])


@pytest.mark.parametrize("anomaly", ["euclidean", "cosine"])
def test_value_of_the_anomaly_term(anomaly):
    own, received = random_model(0), random_model(1)
    x, g = flat(own), flat(received)
    expected = ((x - g) ** 2).sum() if anomaly == "euclidean" else 1 - x @ g / np.linalg.norm(x) / np.linalg.norm(g)
    value = ConstrainAndScale(anomaly=anomaly).anomaly_of(own, received)
    assert float(value) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_the_gradient_is_that_of_both_terms(alpha):
    """α ∇L_class + 2(1-α)(X - G): a version without the second would be plain poisoning."""
    step = make_step(random_batch())
    gradient, class_loss, memory = ConstrainAndScale(alpha=alpha)(step)
    assert memory == {}
    expected, expected_loss = by_autograd(step.class_loss, step.parameters)
    assert float(class_loss) == pytest.approx(float(expected_loss))
    for name, own in step.parameters.items():
        pull = 2 * (own - step.received[name])
        torch.testing.assert_close(gradient[name], alpha * expected[name] + (1 - alpha) * pull)


def test_cosine_gradient_is_orthogonal_to_the_model():
    """The cosine does not change along X itself, so ⟨∇, X⟩ = 0."""
    step = make_step(random_batch())
    gradient, *_ = ConstrainAndScale(alpha=0.0, anomaly="cosine")(step)
    pull, x = flat(gradient), flat(step.parameters)
    assert abs(pull @ x) < 1e-5 * np.linalg.norm(pull) * np.linalg.norm(x)
    assert np.linalg.norm(pull) > 0.01


def test_fields_are_checked():
    with pytest.raises(FieldError, match=r"alpha: must be less than or equal to 1, got 1\.5"):
        ConstrainAndScale(alpha=1.5)
    with pytest.raises(FieldError, match="anomaly: must be 'euclidean' or 'cosine', got 'l1'"):
        ConstrainAndScale(anomaly="l1")
