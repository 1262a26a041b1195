"""What is tried against a poisoned spam filter: nothing, the rivals of the paper, and Sever, on one kernel matrix."""

from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import scipy.sparse
from numpy.typing import NDArray
from sklearn.svm import SVC

from fedrobust.statistics import Sever
from fedrobust.statistics.sever.filtered_fit import Groups, filtered_fit
from fedrobust.statistics.sever.per_sample_gradients import Floats, KernelGradients, per_sample_gradients

DECAY = 0.09
NUM_ROUNDS = 2
DEFENCES = ("none", "l2", "loss", "gradient", "gradient_centred", "sever")


class DecaySVC(SVC):
    """Mean hinge loss + DECAY/2·‖w‖² with a free intercept, on a precomputed kernel.

    SVC's C multiplies a sum, so it depends on the number of samples, which filters change.
    """

    def __init__(self) -> None:
        super().__init__(kernel="precomputed", cache_size=300)

    def fit(self, X: Any, y: Any) -> Self:
        """Fit on the kernel `X` `(n, n)`."""
        self.C = 1 / (DECAY * len(y))
        return super().fit(X, y)


@dataclass(frozen=True)
class Mail:
    """A data set of word counts, as inner products.

    Attributes:
        features: `(n, d)` sparse, the training mails.
        labels: `(n,)`, 1 for spam and -1 for the rest.
        kernel: `(n, n)`.
        test_features: `(m, d)` sparse.
        test_labels: `(m,)`.
        test_kernel: `(m, n)`.
    """

    features: Any
    labels: NDArray[np.intp]
    kernel: Floats
    test_features: Any
    test_labels: NDArray[np.intp]
    test_kernel: Floats

    @classmethod
    def of(cls, features: Any, labels: Any, test_features: Any, test_labels: Any) -> Self:
        """All inner products."""
        features, test_features = features.tocsr(), test_features.tocsr()
        return cls(
            features=features,
            labels=labels,
            kernel=(features @ features.T).toarray(),
            test_features=test_features,
            test_labels=test_labels,
            test_kernel=(test_features @ features.T).toarray(),
        )

    def with_attack(self, features: Any, labels: Any) -> Self:
        """The same with poisoned mails behind the clean ones: only their inner products are new."""
        features = scipy.sparse.csr_matrix(features)
        across = (self.features @ features.T).toarray()
        within = (features @ features.T).toarray()
        return replace(
            self,
            features=scipy.sparse.vstack([self.features, features], format="csr"),
            labels=np.concatenate([self.labels, labels]),
            kernel=np.block([[self.kernel, across], [across.T, within]]),
            test_kernel=np.hstack([self.test_kernel, (self.test_features @ features.T).toarray()]),
        )


def test_error(decisions: Floats, labels: NDArray[np.intp]) -> float:
    """The part on the wrong side; on the border counts half."""
    margins = decisions * labels
    return float(np.mean(margins < 0) + 0.5 * np.mean(margins == 0))


def errors(mail: Mail, epsilon: float, drop_fraction: float) -> dict[str, float]:
    """The test error with each defence; `drop_fraction` is the part of each class that a round drops."""
    found = {}
    groups = (mail.labels > 0).astype(np.intp)
    for name in DEFENCES:
        if name == "sever":
            sever = Sever(DecaySVC(), contamination=epsilon, num_rounds=NUM_ROUNDS, drop_fraction=drop_fraction)
            decisions = sever.fit(mail.kernel, mail.labels).decision_function(mail.test_kernel)
        else:
            fit = filtered_fit(
                DecaySVC(),
                mail.kernel,
                mail.labels,
                SCORES.get(name, _loss),
                groups=groups,
                num_rounds=0 if name == "none" else NUM_ROUNDS,
                drop_fraction=drop_fraction,
            )
            decisions = fit.estimator.decision_function(mail.test_kernel[:, fit.kept])
        found[name] = test_error(decisions, mail.test_labels)
    return found


def _loss(fitted: Any, kernel: Any, y: Any, groups: Groups) -> tuple[float, Floats]:
    losses = np.maximum(1 - y * fitted.decision_function(kernel), 0.0)
    return float(losses.mean()), losses


def _gradient(fitted: Any, kernel: Any, y: Any, groups: Groups) -> tuple[float, Floats]:
    gradients = per_sample_gradients(fitted, kernel, y)
    norms = np.abs(gradients.coefficients[:, 0]) * np.sqrt(np.diag(kernel))
    return float(norms.mean()), norms


def _gradient_centred(fitted: Any, kernel: Any, y: Any, groups: Groups) -> tuple[float, Floats]:
    return _distances(per_sample_gradients(fitted, kernel, y), groups)


def _l2(fitted: Any, kernel: Any, y: Any, groups: Groups) -> tuple[float, Floats]:
    return _distances(KernelGradients(np.ones((len(y), 1)), kernel), groups)


def _distances(points: KernelGradients, groups: Groups) -> tuple[float, Floats]:
    """The distance of each point from the mean of its group."""
    squared = np.zeros(len(groups))
    for group in np.unique(groups):
        members = np.flatnonzero(groups == group)
        gram = points.rows(members).gram()
        squared[members] = np.diag(gram) - 2 * gram.mean(axis=1) + gram.mean()
    distances = np.sqrt(np.maximum(squared, 0.0))
    return float(distances.mean()), distances


SCORES = {"l2": _l2, "loss": _loss, "gradient": _gradient, "gradient_centred": _gradient_centred}
