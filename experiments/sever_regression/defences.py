"""Ridge regression as MATLAB has it, the attack of Sever's authors on it, and what is tried against the attack."""

from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from fedrobust.statistics import OuterGradients, Sever
from fedrobust.statistics.sever.filtered_fit import Groups, filtered_fit, relative_to_quantile
from fedrobust.statistics.sever.per_sample_gradients import Floats

PENALTY = 5650.0
NUM_ROUNDS = 3
DEFENCES = ("corrupted", "l2", "loss", "gradient", "gradient_centred", "sever", "sever_uncentred")


class MatlabRidge(RegressorMixin, BaseEstimator):
    """MATLAB's `ridge(y, X, penalty, 0)`: a penalty on the slopes of standardised columns, which y is not centred for.

    A column that does not vary is 1 after standardising, and so has a penalised slope beside the free intercept.
    """

    def __init__(self, penalty: float = PENALTY) -> None:
        self.penalty = penalty

    def fit(self, X: Any, y: Any) -> Self:
        """Fit on `X` `(n, d)` and `y` `(n,)`."""
        X, y = validate_data(self, X, y, y_numeric=True, dtype=np.float64)
        centre, scale = X.mean(axis=0), X.std(axis=0, ddof=1)
        constant = scale < np.sqrt(np.finfo(np.float64).eps)
        scale[constant] = 1.0
        standardised = (X - centre) / scale
        standardised[:, constant] = 1.0
        normal = standardised.T @ standardised + self.penalty * np.eye(X.shape[1])
        self.coef_ = np.linalg.solve(normal, standardised.T @ y) / scale
        self.intercept_ = float(y.mean() - centre @ self.coef_)
        return self

    def predict(self, X: Any) -> Floats:
        """The fitted values, `(m,)`."""
        check_is_fitted(self)
        return np.asarray(validate_data(self, X, reset=False) @ self.coef_ + self.intercept_)

    def per_sample_gradients(self, X: Any, y: Any) -> OuterGradients:
        """The residual times (1, x); the penalty's part is the same for all samples."""
        return OuterGradients((self.predict(X) - y)[:, None], np.asarray(X), intercept=True)


def attack(
    features: Floats, y: Floats, num_corrupted: int, scale: float, generator: np.random.Generator
) -> tuple[Floats, Floats]:
    """Points that take the gradient at θ = 0 away: all say -scale, near Xᵀy/(num_corrupted·scale)."""
    d = features.shape[1]
    direction = y @ features / num_corrupted
    noise = np.linalg.norm(direction) * generator.normal(size=(num_corrupted, d)) / (10 * np.sqrt(d))
    return (direction + noise) / scale, np.full(num_corrupted, -scale)


def mean_squared_error(estimator: Any, features: Floats, y: Floats) -> float:
    return float(np.mean((estimator.predict(features) - y) ** 2))


def robust_centre(features: Floats, y: Floats, drop_fraction: float) -> tuple[Floats, float]:
    """As the authors centre: features by the mean of what four rounds of a spectral filter leave, y by its median.

    Their filter looks at distances from the mean of all samples in all rounds.
    """
    kept = np.arange(len(y))
    mean = features.mean(axis=0)
    for _ in range(4):
        deviations = features[kept] - mean
        direction = np.linalg.eigh(deviations.T @ deviations)[1][:, -1]
        distances = np.abs(deviations @ direction)
        kept = kept[relative_to_quantile(distances, np.zeros(len(kept), dtype=np.intp), drop_fraction) < 1]
    return features[kept].mean(axis=0), float(np.median(y))


def errors(train: tuple[Floats, Floats], test: tuple[Floats, Floats], epsilon: float) -> dict[str, float]:
    """The test error with each defence, on centred data; `sever_uncentred` gets the data as they are."""
    found = {}
    if epsilon > 0:
        centre, middle = robust_centre(*train, epsilon / 2)
        centred, centred_test = (train[0] - centre, train[1] - middle), (test[0] - centre, test[1] - middle)
    else:
        centred, centred_test = train, test
    for name in DEFENCES:
        seen, seen_test = (train, test) if name == "sever_uncentred" else (centred, centred_test)
        if name.startswith("sever"):
            fitted = Sever(MatlabRidge(), contamination=epsilon, num_rounds=NUM_ROUNDS).fit(*seen).estimator_
        elif name == "corrupted":
            fitted = MatlabRidge().fit(*seen)
        else:
            fitted = filtered_fit(
                MatlabRidge(),
                *seen,
                SCORES[name],
                groups=np.zeros(len(seen[1]), dtype=np.intp),
                num_rounds=NUM_ROUNDS,
                drop_fraction=epsilon / 2,
            ).estimator
        found[name] = mean_squared_error(fitted, *seen_test)
    return found


def _l2(fitted: Any, X: Any, y: Any, groups: Groups) -> tuple[float, Floats]:
    return _with_mean(np.linalg.norm(X - X.mean(axis=0), axis=1))


def _loss(fitted: Any, X: Any, y: Any, groups: Groups) -> tuple[float, Floats]:
    return _with_mean(np.abs(fitted.predict(X) - y))


def _gradient(fitted: Any, X: Any, y: Any, groups: Groups) -> tuple[float, Floats]:
    """As the authors' code has it: the penalty's part in each, and the residual with the other sign."""
    theta = np.concatenate([[fitted.intercept_], fitted.coef_])
    return _with_mean(np.linalg.norm(-fitted.per_sample_gradients(X, y).dense() + PENALTY * theta, axis=1))


def _gradient_centred(fitted: Any, X: Any, y: Any, groups: Groups) -> tuple[float, Floats]:
    gradients = fitted.per_sample_gradients(X, y).dense()
    return _with_mean(np.linalg.norm(gradients - gradients.mean(axis=0), axis=1))


def _with_mean(scores: Floats) -> tuple[float, Floats]:
    return float(scores.mean()), scores


SCORES = {"l2": _l2, "loss": _loss, "gradient": _gradient, "gradient_centred": _gradient_centred}
