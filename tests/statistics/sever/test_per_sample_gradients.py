from typing import Any

import numpy as np
import pytest
import scipy.sparse
import torch
from sklearn.linear_model import ElasticNet, Lasso, LinearRegression, LogisticRegression, Ridge
from sklearn.neighbors import KNeighborsClassifier
from sklearn.svm import SVC, LinearSVC
from torch import Tensor

from fedrobust.seeds import numpy_generator
from fedrobust.statistics.sever.per_sample_gradients import (
    KernelGradients,
    OuterGradients,
    as_gradients,
    per_sample_gradients,
)


def sample(num_outputs: int, *, labels: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """30 samples in 4 dimensions with real targets, or with noisy labels."""
    generator = numpy_generator(0, "sample", num_outputs, labels)
    features = generator.normal(size=(30, 4)) + 1.0
    if labels:
        values = features[:, 0] + generator.normal(size=30)
        return features, np.digitize(values, np.quantile(values, np.arange(1, labels) / labels)) * 2 - 1
    targets = features @ generator.normal(size=(4, num_outputs)) + generator.normal(size=(30, num_outputs))
    return features, targets[:, 0] if num_outputs == 1 else targets


def autograd(loss: Any, weights: np.ndarray, intercepts: np.ndarray, features: np.ndarray, y: np.ndarray) -> np.ndarray:
    """One call of torch.autograd a sample, output by output: the intercept's entry, then the weights'."""
    rows = []
    for one, target in zip(features, y):
        w = torch.tensor(np.atleast_2d(weights), requires_grad=True)
        b = torch.tensor(np.atleast_1d(intercepts), requires_grad=True)
        value: Tensor = loss(w @ torch.tensor(one) + b, target)
        by_weights, by_intercepts = torch.autograd.grad(value, (w, b))
        rows.append(torch.cat([by_intercepts[:, None], by_weights], dim=1).numpy())
    return np.stack(rows)  # (n, k, 1 + d)


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("num_outputs", [1, 3])
@pytest.mark.parametrize("estimator", [Ridge(alpha=2.0), LinearRegression(), ElasticNet(alpha=0.1), Lasso(alpha=0.1)])
def test_squared_error_equals_autograd(estimator: Any, num_outputs: int, sparse: bool) -> None:
    features, y = sample(num_outputs)
    estimator.fit(features, y)
    found = per_sample_gradients(estimator, scipy.sparse.csr_matrix(features) if sparse else features, y)
    expected = autograd(
        lambda f, t: (f - torch.as_tensor(t)).square().sum() / 2,
        estimator.coef_,
        np.broadcast_to(estimator.intercept_, (num_outputs,)).copy(),
        features,
        y,
    )
    np.testing.assert_allclose(found.dense(), expected.reshape(30, -1), atol=1e-12)


def test_without_an_intercept_there_is_no_entry_for_it() -> None:
    """(xθ - y)x."""
    features, y = sample(1)
    estimator = Ridge(fit_intercept=False).fit(features, y)
    expected = (features @ estimator.coef_ - y)[:, None] * features
    np.testing.assert_allclose(per_sample_gradients(estimator, features, y).dense(), expected, atol=1e-12)


def one_against_rest(power: int) -> Any:
    def of(classes: np.ndarray) -> Any:
        positive = torch.tensor(classes[1:] if len(classes) == 2 else classes)
        return lambda f, label: (1 - torch.where(positive == label, 1.0, -1.0) * f).relu().pow(power).sum()

    return of


def one_against_one(classes: np.ndarray) -> Any:
    if len(classes) == 2:
        return one_against_rest(1)(classes)
    pairs = [(a, b) for i, a in enumerate(classes) for b in classes[i + 1 :]]
    signs = {c: torch.tensor([float(c == a) - float(c == b) for a, b in pairs]) for c in classes}
    return lambda f, label: ((1 - signs[label] * f).relu() * signs[label].abs()).sum()


def cross_entropy(classes: np.ndarray) -> Any:
    def loss(f: Tensor, label: int) -> Tensor:
        logits = torch.cat([torch.zeros(1, dtype=f.dtype), f]) if len(classes) == 2 else f
        return -logits.log_softmax(dim=0)[list(classes).index(label)]

    return loss


@pytest.mark.parametrize("labels", [2, 3])
@pytest.mark.parametrize(
    ("estimator", "loss"),
    [
        (LogisticRegression(), cross_entropy),
        (LinearSVC(loss="hinge", max_iter=100_000), one_against_rest(1)),
        (LinearSVC(), one_against_rest(2)),
        (SVC(kernel="linear"), one_against_one),
        (SVC(kernel="linear", class_weight="balanced"), one_against_one),
        (LogisticRegression(class_weight={-1: 3.0, 1: 0.5}), cross_entropy),
    ],
)
def test_classification_losses_equal_autograd(estimator: Any, loss: Any, labels: int) -> None:
    """By the weights; class weights, here by scikit-learn's formula n / (k·n_c), multiply the loss.

    At samples that the estimator was not fitted on: its support vectors lie on the margin, where a hinge has no one
    gradient.
    """
    features, y = sample(1, labels=labels)
    if isinstance(estimator.class_weight, str):
        features, y = features[5:], y[5:]
    estimator.fit(features, y)
    features = features + numpy_generator(0, "new").normal(size=features.shape)
    expected = autograd(loss(estimator.classes_), estimator.coef_, estimator.intercept_, features, y)[:, :, 1:]
    if estimator.class_weight == "balanced":
        weights = {c: len(y) / (labels * (y == c).sum()) for c in estimator.classes_}
    else:
        weights = dict.fromkeys(estimator.classes_, 1.0) | (estimator.class_weight or {})
    expected = expected * np.array([weights[label] for label in y])[:, None, None]
    found = per_sample_gradients(estimator, features, y).dense()
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(found, expected.reshape(len(y), -1), atol=1e-9)


@pytest.mark.parametrize("class_weight", [None, "balanced"])
@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("labels", [2, 3])
def test_support_vectors_have_the_slope_that_makes_the_machine_optimal(
    labels: int, sparse: bool, class_weight: str | None
) -> None:
    """Stationarity of ½‖w‖² + C Σ hinge: the gradients of each machine sum to -w/C, at the data it was fitted on."""
    features, y = sample(1, labels=labels)
    inputs = scipy.sparse.csr_matrix(features) if sparse else features
    estimator = SVC(kernel="linear", C=0.7, class_weight=class_weight, tol=1e-6).fit(inputs, y)
    weights = estimator.coef_.toarray() if sparse else estimator.coef_
    found = per_sample_gradients(estimator, inputs, y).dense().sum(axis=0)
    np.testing.assert_allclose(found, -weights.ravel() / 0.7, atol=1e-9)


@pytest.mark.parametrize("kernel", ["poly", "precomputed", "callable", "linear"])
def test_kernels_give_the_inner_products_of_gradients_in_feature_space(kernel: str) -> None:
    """The kernel (x·z + 1)², whose feature map is known: products of pairs of the entries of (x, 1)."""
    features, y = sample(1, labels=2)
    extended = np.hstack([features, np.ones((30, 1))])
    lifted = (extended[:, :, None] * extended[:, None, :]).reshape(30, -1)
    lifted_svc = SVC(kernel="linear").fit(lifted, y)
    expected = per_sample_gradients(lifted_svc, lifted, y).gram()
    inputs = features
    if kernel == "poly":
        estimator = SVC(kernel="poly", degree=2, gamma=1.0, coef0=1.0)
    elif kernel == "callable":
        estimator = SVC(kernel=lambda a, b: (a @ b.T + 1) ** 2)
    elif kernel == "precomputed":
        estimator, inputs = SVC(kernel="precomputed"), lifted @ lifted.T
    else:
        estimator, inputs = SVC(kernel="linear"), lifted
    found = per_sample_gradients(estimator.fit(inputs, y), inputs, y)
    assert isinstance(found, OuterGradients if kernel == "linear" else KernelGradients)
    np.testing.assert_allclose(found.gram(), expected, rtol=1e-9, atol=1e-9 * np.abs(expected).max())


@pytest.mark.parametrize("intercept", [False, True])
@pytest.mark.parametrize("sparse", [False, True])
def test_factored_gradients_multiply_as_the_dense_ones(sparse: bool, intercept: bool) -> None:
    """NumPy, on explicit outer products."""
    generator = numpy_generator(0, "outer")
    coefficients, features = generator.normal(size=(7, 3)), generator.normal(size=(7, 5))
    gradients = OuterGradients(coefficients, scipy.sparse.csr_matrix(features) if sparse else features, intercept)
    extended = np.hstack([np.ones((7, 1)), features]) if intercept else features
    dense = np.stack([np.outer(c, x).ravel() for c, x in zip(coefficients, extended)])
    assert gradients.shape == dense.shape
    vector, other = generator.normal(size=dense.shape[1]), generator.normal(size=7)
    np.testing.assert_allclose(gradients.dense(), dense, atol=1e-12)
    np.testing.assert_allclose(gradients.matvec(vector), dense @ vector, atol=1e-12)
    np.testing.assert_allclose(gradients.rmatvec(other), dense.T @ other, atol=1e-12)
    np.testing.assert_allclose(gradients.gram(), dense @ dense.T, atol=1e-12)
    np.testing.assert_allclose(gradients.rows(np.array([4, 1])).dense(), dense[[4, 1]], atol=1e-12)


def test_an_estimator_answers_for_itself_or_not_at_all() -> None:
    class Own:
        def per_sample_gradients(self, X: Any, y: Any) -> np.ndarray:
            return np.asarray(X) * 2

    assert per_sample_gradients(Own(), np.ones((2, 1)), None).tolist() == [[2.0], [2.0]]
    with pytest.raises(TypeError, match="no per-sample gradients are known for KNeighborsClassifier"):
        per_sample_gradients(KNeighborsClassifier(), np.ones((2, 1)), [0, 1])


def test_gradients_of_other_kinds_are_taken() -> None:
    dense = [[1, 2], [3, 4]]
    assert as_gradients(dense, 2).tolist() == dense
    assert as_gradients(torch.tensor(dense), 2).dtype == np.float64
    assert as_gradients(scipy.sparse.csr_matrix(dense), 2).dense().tolist() == dense


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (np.ones(3), r"shape \(3, D\), got \(3,\)"),
        (np.ones((2, 2)), r"shape \(3, D\), got \(2, 2\)"),
        (np.ones((3, 0)), r"shape \(3, D\), got \(3, 0\)"),
        (np.full((3, 1), np.nan), "finite"),
        (OuterGradients(np.full((3, 1), np.inf), np.ones((3, 1))), "finite"),
    ],
)
def test_unsuitable_gradients_are_refused(found: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        as_gradients(found, 3)
