"""Constrain-and-scale against NumPy's formula and the hand-derived gradient of its anomaly term."""

import dataclasses

import numpy as np
import pytest
import torch
from small_step import by_autograd, make_step, random_batch, random_model

from fedrobust.attacks import ConstrainAndScale
from fedrobust.config.component import FieldError
from fedrobust.training.step import Parameters


def flat(parts: Parameters) -> np.ndarray:
    return np.concatenate([part.detach().double().numpy().ravel() for part in parts.values()])


def terms(x: np.ndarray, g: np.ndarray) -> dict[str, float]:
    """Each anomaly term of a flat model x by its formula."""
    return {
        "euclidean": np.linalg.norm(x - g),
        "squared_euclidean": ((x - g) ** 2).sum(),
        "cosine": 1 - x @ g / np.linalg.norm(x) / np.linalg.norm(g),
    }


@pytest.mark.parametrize("anomaly", ["euclidean", "squared_euclidean", "cosine"])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_value_of_the_anomaly_term(anomaly, seed):
    own, received = random_model(0), random_model(seed)
    expected = terms(flat(own), flat(received))[anomaly]
    value = ConstrainAndScale(anomaly=anomaly).anomaly_of(own, received)
    assert float(value) == pytest.approx(expected, rel=1e-5)


def test_the_distance_is_that_of_the_authors_code_by_default():
    """Their `model_dist_norm_var` is `torch.norm(·, 2)` of all differences in one vector: 13 for 3, 4 and 12 (not 169).

    https://github.com/ebagdasa/backdoor_federated_learning, helper.py; DBA's code has the same.
    """
    own = {"weight": torch.tensor([[1.0, 3.0], [4.0, 2.0]]), "bias": torch.tensor([12.0])}
    received = {"weight": torch.tensor([[1.0, 0.0], [0.0, 2.0]]), "bias": torch.tensor([0.0])}
    assert float(ConstrainAndScale().anomaly_of(own, received)) == 13.0


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("anomaly", ["euclidean", "squared_euclidean"])
def test_the_gradient_is_that_of_both_terms(alpha, anomaly):
    """α ∇L_class + (1-α)(X - G)/‖X - G‖, or + 2(1-α)(X - G): without the second term it would be plain poisoning."""
    step = make_step(random_batch())
    gradient, class_loss, memory = ConstrainAndScale(alpha=alpha, anomaly=anomaly)(step)
    assert memory == {}
    expected, expected_loss = by_autograd(step.class_loss, step.parameters)
    assert float(class_loss) == pytest.approx(float(expected_loss))
    distance = float(np.linalg.norm(flat(step.parameters) - flat(step.received)))
    for name, own in step.parameters.items():
        pull = (own - step.received[name]) * (1 / distance if anomaly == "euclidean" else 2)
        torch.testing.assert_close(gradient[name], alpha * expected[name] + (1 - alpha) * pull)


@pytest.mark.parametrize("anomaly", ["euclidean", "squared_euclidean", "cosine"])
def test_at_the_received_model_nothing_pulls(anomaly):
    """There every attacker starts, and there the distance has no derivative: it must not become NaN."""
    step = make_step(random_batch())
    step = dataclasses.replace(step, parameters=dict(step.received))
    gradient, *_ = ConstrainAndScale(alpha=0.0, anomaly=anomaly)(step)
    np.testing.assert_allclose(flat(gradient), 0.0, atol=1e-6)


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
    with pytest.raises(FieldError, match="anomaly: must be 'euclidean', 'squared_euclidean' or 'cosine', got 'l1'"):
        ConstrainAndScale(anomaly="l1")
