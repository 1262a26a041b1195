"""The gradient of each sample's loss at a fitted model, in the form that costs least.

For linear models it is an outer product, residual times features, and stays one: `OuterGradients` keeps the two
factors, the features sparse where they are. For kernel machines the features are never seen: `KernelGradients` knows
only inner products. Anything else gives a dense `(n, D)` array.

Parts of the gradient that are the same for every sample, such as a penalty's, are left out: what looks for outliers
centres the gradients first.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import singledispatch
from typing import Any, Protocol, Self, TypeAlias, runtime_checkable

import numpy as np
import scipy.sparse
from numpy.typing import NDArray
from sklearn.linear_model import ElasticNet, LinearRegression, LogisticRegression, Ridge
from sklearn.metrics.pairwise import pairwise_kernels
from sklearn.svm import SVC, LinearSVC
from sklearn.utils.class_weight import compute_sample_weight
from torch import Tensor

Floats: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class OuterGradients:
    """Gradient i is the outer product of `coefficients[i]` `(k,)` and `features[i]`, behind a 1 with `intercept`.

    Attributes:
        coefficients: `(n, k)` float64, the derivative of sample i's loss by the model's k outputs.
        features: `(n, d)` float64, an array or a scipy.sparse matrix.
        intercept: each output has an intercept of its own, so the features begin with a 1.
    """

    coefficients: Floats
    features: Any
    intercept: bool = False

    @property
    def shape(self) -> tuple[int, int]:
        """(n, D): samples and parameters."""
        n, k = self.coefficients.shape
        return n, k * (self.features.shape[1] + self.intercept)

    def rows(self, indices: NDArray[np.intp]) -> Self:
        """The gradients of some samples."""
        return type(self)(self.coefficients[indices], self.features[indices], self.intercept)

    def matvec(self, vector: Floats) -> Floats:
        """G·v `(n,)` for v `(D,)`."""
        blocks = np.asarray(vector).reshape(self.coefficients.shape[1], -1)
        projected = self.features @ blocks[:, int(self.intercept) :].T
        if self.intercept:
            projected = projected + blocks[:, 0]
        return np.asarray((self.coefficients * projected).sum(axis=1))

    def rmatvec(self, vector: Floats) -> Floats:
        """Gᵀ·u `(D,)` for u `(n,)`."""
        scaled = self.coefficients * np.asarray(vector).reshape(-1, 1)
        blocks = np.asarray(self.features.T @ scaled).T
        if self.intercept:
            blocks = np.hstack([scaled.sum(axis=0)[:, None], blocks])
        return blocks.ravel()

    def squared_lengths(self) -> Floats:
        """‖gᵢ‖², `(n,)`."""
        features = self.features
        squared = features.multiply(features) if scipy.sparse.issparse(features) else features * features
        lengths = np.asarray(squared.sum(axis=1)).ravel() + float(self.intercept)
        return np.asarray((self.coefficients**2).sum(axis=1) * lengths)

    def gram(self) -> Floats:
        """The inner products of all pairs of gradients, `(n, n)`."""
        inner = self.features @ self.features.T
        inner = inner.toarray() if scipy.sparse.issparse(inner) else inner
        return np.asarray((self.coefficients @ self.coefficients.T) * (inner + float(self.intercept)))

    def dense(self) -> Floats:
        """All gradients, `(n, D)`, output by output."""
        features = self.features.toarray() if scipy.sparse.issparse(self.features) else self.features
        if self.intercept:
            features = np.hstack([np.ones((len(features), 1)), features])
        return np.asarray((self.coefficients[:, :, None] * features[:, None, :]).reshape(len(features), -1))


@dataclass(frozen=True, eq=False)
class KernelGradients:
    """Gradient i is the outer product of `coefficients[i]` `(k,)` and the feature map of sample i, known by its kernel.

    Attributes:
        coefficients: `(n, k)` float64, the derivative of sample i's loss by the model's k outputs.
        kernel: `(n, n)` float64, the inner products of the feature maps.
    """

    coefficients: Floats
    kernel: Floats

    @property
    def shape(self) -> tuple[int, int | None]:
        """(n, D), where D is unknown."""
        return len(self.kernel), None

    def rows(self, indices: NDArray[np.intp]) -> Self:
        """The gradients of some samples."""
        return type(self)(self.coefficients[indices], self.kernel[np.ix_(indices, indices)])

    def squared_lengths(self) -> Floats:
        """‖gᵢ‖², `(n,)`."""
        return np.asarray((self.coefficients**2).sum(axis=1) * self.kernel.diagonal())

    def gram(self) -> Floats:
        """The inner products of all pairs of gradients, `(n, n)`."""
        return np.asarray((self.coefficients @ self.coefficients.T) * self.kernel)


Gradients: TypeAlias = OuterGradients | KernelGradients | Floats
"""Per-sample gradients: factored, known by a kernel, or dense `(n, D)`."""


@runtime_checkable
class GivesPerSampleGradients(Protocol):
    """A fitted model that knows the gradient of each sample's loss."""

    def per_sample_gradients(self, X: Any, y: Any) -> Gradients:
        """The gradients of the n samples' losses by the model's parameters, at its present parameters."""
        ...


GradientFunction: TypeAlias = Callable[[Any, Any, Any], Any]
"""From a fitted estimator, `X` and `y` to whatever `as_gradients` takes."""


def as_gradients(found: Any, num_samples: int) -> Gradients:
    """Check gradients of `num_samples` samples; a scipy.sparse matrix stays sparse, all else becomes float64.

    Raises:
        ValueError: not one row for each sample; NaN or infinity.
    """
    if not isinstance(found, OuterGradients | KernelGradients):
        if scipy.sparse.issparse(found):
            found = OuterGradients(np.ones((found.shape[0], 1)), _features(found))
        else:
            found = np.asarray(found.detach().cpu() if isinstance(found, Tensor) else found, dtype=np.float64)
    shape = found.shape
    if len(shape) != 2 or shape[0] != num_samples or shape[1] == 0:
        raise ValueError(f"per-sample gradients must have shape ({num_samples}, D), got {shape}")
    numbers = found if isinstance(found, np.ndarray) else found.coefficients
    if not np.isfinite(numbers).all():
        raise ValueError("per-sample gradients must be finite, some hold NaN or infinity")
    checked: Gradients = found
    return checked


@singledispatch
def per_sample_gradients(estimator: Any, X: Any, y: Any) -> Gradients:
    """The gradient of each sample's loss at a fitted estimator.

    scikit-learn's Ridge, LinearRegression, Lasso and ElasticNet (squared error, halved), LogisticRegression, LinearSVC
    and SVC (hinge; every kernel) are known; an estimator with a method `per_sample_gradients(X, y)` answers for itself;
    `per_sample_gradients.register(Type)` adds another.

    Args:
        estimator: fitted.
        X: `(n, d)`, an array or a scipy.sparse matrix; the `(n, n)` kernel for a precomputed one.
        y: `(n,)` or `(n, k)` targets, or labels.

    Raises:
        TypeError: an estimator of which nothing of this is true.

    Source: Diakonikolas et al., "Sever: A Robust Meta-Algorithm for Stochastic Optimization", ICML 2019,
        https://arxiv.org/abs/1803.02815, whose experiments take the intercept's entry in regression and leave it out in
        classification, as is done here.
    Departs: nothing.
    """
    if isinstance(estimator, GivesPerSampleGradients):
        gradients: Gradients = estimator.per_sample_gradients(X, y)
        return gradients
    raise TypeError(
        f"no per-sample gradients are known for {type(estimator).__name__}: give it a method "
        "per_sample_gradients(X, y), or pass a function as `gradients`"
    )


@per_sample_gradients.register(Ridge)
@per_sample_gradients.register(LinearRegression)
@per_sample_gradients.register(ElasticNet)  # and Lasso, which is one
def _squared_error(estimator: Any, X: Any, y: Any) -> OuterGradients:
    """½(f(x) - y)²: the residual times (1, x)."""
    predicted = np.asarray(estimator.predict(X), dtype=np.float64).reshape(len(y), -1)
    residuals = predicted - np.asarray(y, dtype=np.float64).reshape(len(y), -1)
    return OuterGradients(residuals, _features(X), bool(estimator.fit_intercept))


@per_sample_gradients.register(LogisticRegression)
def _logistic(estimator: LogisticRegression, X: Any, y: Any) -> OuterGradients:
    """-log p(y|x): p(1|x) - y for two classes, p(.|x) less the indicator of the label for more."""
    probabilities = np.asarray(estimator.predict_proba(X), dtype=np.float64)
    wrong = probabilities - (np.asarray(y)[:, None] == estimator.classes_)
    coefficients = wrong[:, 1:] if len(estimator.classes_) == 2 else wrong
    return OuterGradients(_weighted(estimator, coefficients, y), _features(X))


@per_sample_gradients.register(LinearSVC)
def _linear_hinge(estimator: LinearSVC, X: Any, y: Any) -> OuterGradients:
    """One machine for each class against the rest; the subgradient at margin 1 is 0."""
    values = np.asarray(estimator.decision_function(X), dtype=np.float64).reshape(len(y), -1)
    positive = estimator.classes_[1:] if len(estimator.classes_) == 2 else estimator.classes_
    signs = np.where(np.asarray(y)[:, None] == positive, 1.0, -1.0)
    lacking = np.maximum(1 - signs * values, 0.0)
    slopes = 2 * lacking if estimator.loss == "squared_hinge" else (lacking > 0).astype(np.float64)
    return OuterGradients(_weighted(estimator, -signs * slopes, y), _features(X))


@per_sample_gradients.register(SVC)
def _kernel_hinge(estimator: SVC, X: Any, y: Any) -> OuterGradients | KernelGradients:
    """One machine for each pair of classes; a sample has no part in the pairs of others.

    At margin 1, where support vectors lie, the subgradients are all slopes from 0 to 1. The one that makes the machine
    optimal is the sample's dual variable over its bound, and is taken; the side of 1 where rounding left it says
    nothing.
    """
    one_to_one = copy.copy(estimator)
    one_to_one.decision_function_shape = "ovo"
    values = np.asarray(one_to_one.decision_function(X), dtype=np.float64).reshape(len(y), -1)
    labels, classes = np.asarray(y), estimator.classes_
    pairs = [(i, j) for i in range(len(classes)) for j in range(i + 1, len(classes))]
    signs = np.stack([(labels == classes[i]) * 1.0 - (labels == classes[j]) * 1.0 for i, j in pairs], axis=1)
    if len(classes) == 2:  # the second class is positive, of more the first of a pair
        signs = -signs
    margins = signs * values
    slopes = (margins < 1).astype(np.float64)
    if estimator.shape_fit_[0] == len(y):
        slopes = np.where(np.abs(margins - 1) <= 2 * estimator.tol, _dual_slopes(estimator, len(y), pairs), slopes)
    coefficients = _weighted(estimator, -signs * slopes, y)
    if estimator.kernel == "linear":
        return OuterGradients(coefficients, _features(X))
    return KernelGradients(coefficients, _kernel(estimator, X))


def _dual_slopes(estimator: SVC, n: int, pairs: list[tuple[int, int]]) -> Floats:
    """The dual variables over their bounds, `(n, pairs)`: 0 beyond the margin, 1 within.

    libsvm keeps those of class i in the machine for i < j in row j - 1, and those of class j in row i.
    """
    dual = estimator.dual_coef_.toarray() if scipy.sparse.issparse(estimator.dual_coef_) else estimator.dual_coef_
    ends = np.cumsum(estimator.n_support_)
    slopes = np.zeros((n, len(pairs)))
    for column, pair in enumerate(pairs):
        for row, own in zip((pair[1] - 1, pair[0]), pair):
            vectors = np.arange(ends[own] - estimator.n_support_[own], ends[own])
            bound = estimator.C * estimator.class_weight_[own]
            slopes[estimator.support_[vectors], column] = np.abs(dual[row, vectors]) / bound
    return slopes


def _kernel(estimator: SVC, X: Any) -> Floats:
    if callable(estimator.kernel):
        kernel = estimator.kernel(X, X)
    elif estimator.kernel == "precomputed":
        kernel = X
    else:
        kernel = pairwise_kernels(
            X,
            metric=estimator.kernel,
            filter_params=True,
            gamma=estimator._gamma,  # "scale" and "auto" as numbers
            degree=estimator.degree,
            coef0=estimator.coef0,
        )
    return np.asarray(kernel, dtype=np.float64)


def _weighted(estimator: Any, coefficients: Floats, y: Any) -> Floats:
    if estimator.class_weight is None:
        return coefficients
    return np.asarray(coefficients * compute_sample_weight(estimator.class_weight, y)[:, None])


def _features(X: Any) -> Any:
    return X.tocsr().astype(np.float64) if scipy.sparse.issparse(X) else np.asarray(X, dtype=np.float64)
