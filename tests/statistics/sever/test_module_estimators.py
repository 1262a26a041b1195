from typing import Any

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression, Ridge
from torch import nn

from fedrobust.seeds import numpy_generator, seeded_initialisation
from fedrobust.statistics import ModuleClassifier, ModuleRegressor


def linear(d: int, k: int) -> nn.Module:
    with seeded_initialisation(0, "linear", d, k):
        return nn.Linear(d, k).double()


def sample() -> tuple[np.ndarray, np.ndarray]:
    generator = numpy_generator(0, "module sample")
    features = generator.normal(size=(80, 3))
    return features, features @ [1.0, 2.0, -1.0] + generator.normal(size=80)


def test_a_linear_module_is_ridge_regression() -> None:
    """Half the mean squared error + λ/2‖w‖² without intercept is Ridge with α = nλ."""
    features, y = sample()
    with seeded_initialisation(0, "ridge"):
        module = nn.Linear(3, 1, bias=False).double()
    found = ModuleRegressor(module, num_steps=10, weight_decay=0.1).fit(features, y)
    expected = Ridge(alpha=8.0, fit_intercept=False).fit(features, y)
    np.testing.assert_allclose(found.module_.weight.detach().numpy()[0], expected.coef_, atol=1e-7)
    np.testing.assert_allclose(found.predict(features), expected.predict(features), atol=1e-6)
    gradients = (expected.predict(features) - y)[:, None] * features
    np.testing.assert_allclose(found.per_sample_gradients(features, y), gradients, atol=1e-5)


def test_a_linear_module_is_logistic_regression() -> None:
    """Cross-entropy of three logits, against scikit-learn without a penalty."""
    features, y = sample()
    labels = np.array(["a", "b", "c"])[np.digitize(y, [-1, 1])]
    found = ModuleClassifier(linear(3, 3), num_steps=20).fit(features, labels)
    expected = LogisticRegression(C=np.inf, tol=1e-8).fit(features, labels)
    np.testing.assert_allclose(found.predict_proba(features), expected.predict_proba(features), atol=1e-4)
    assert found.predict(features).tolist() == expected.predict(features).tolist()


def test_a_loss_and_an_optimiser_may_be_given() -> None:
    """The mean absolute error of a constant is least at the median; three SGD steps of 0.5 down its slope of 1."""
    module = nn.Linear(1, 1, bias=False).double()
    nn.init.zeros_(module.weight)
    estimator = ModuleRegressor(
        module,
        loss=nn.functional.l1_loss,
        optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.5),
        num_steps=3,
    )
    found = clone(estimator).fit(np.ones((3, 1)), [5.0, 6.0, 100.0])
    assert found.predict([[1.0]]) == pytest.approx([1.5])
    assert module.weight.item() == 0.0


@pytest.mark.parametrize(
    ("options", "message"),
    [({"num_steps": 0}, "num_steps must be at least 1"), ({"weight_decay": -1.0}, "weight_decay must not be negative")],
)
def test_parameters_out_of_range_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ModuleRegressor(linear(3, 1), **options).fit(*sample())
