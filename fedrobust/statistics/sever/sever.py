"""Sever: fit, drop the samples whose gradients lie farthest out along their top direction, fit again.

Diakonikolas et al., "Sever: A Robust Meta-Algorithm for Stochastic Optimization", ICML 2019,
https://arxiv.org/abs/1803.02815
"""

from collections.abc import Callable
from typing import Any, Self, TypeVar

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, MetaEstimatorMixin, is_classifier, is_regressor
from sklearn.utils import get_tags
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from fedrobust._linalg.samples import check_contamination
from fedrobust.filters.results import Estimate
from fedrobust.statistics.sever.chosen_fit import choose_fit
from fedrobust.statistics.sever.filtered_fit import Groups
from fedrobust.statistics.sever.per_sample_gradients import GradientFunction, per_sample_gradients

_Method = TypeVar("_Method", bound=Callable[..., Any])


def _if_wrapped_has(name: str) -> Callable[[_Method], _Method]:
    """Make a method available if the wrapped estimator has it; if not, its own error says so."""

    def has(sever: Any) -> bool:
        getattr(getattr(sever, "estimator_", sever.estimator), name)
        return True

    decorated: Callable[[_Method], _Method] = available_if(has)
    return decorated


class Sever(MetaEstimatorMixin, BaseEstimator):  # type: ignore[misc]
    """A regressor or classifier that is fitted on the samples whose gradients agree.

    Formula: fit θ on the samples S; gᵢ = ∇ℓ(θ; xᵢ, yᵢ); v the top right singular vector of the rows gᵢ - ḡ; drop from
        S all i whose score |⟨gᵢ - ḡ, v⟩| is at least the (1-p)-quantile of the scores; repeat; fit once more. p = ε/2
        in regression. A classifier does this in each class by itself, all with p = (N/n₊)ε/2, where n₊ is the size of
        the smallest class: all corrupted samples may be in it. The authors play 3 rounds in regression and 2 in
        classification. `num_rounds=None` plays these, and up to 9 if any of their fits beats the plain one, while half
        of each class is left; then it keeps one of the fits, the plain one among them. Each is compared with each by
        the mean ‖gᵢ‖² over the samples that are among the (1-ε)N with the shortest gradients of both. Fits that are
        beaten by at most 1.2 times what the least beaten one is are as good: of these the authors' number of rounds is
        kept where ε is at most 0.1, as in their experiments, else the smallest number.
    Bound: for losses whose gradients at the optimum have covariance at most σ²I, and for the paper's randomised filter,
        an approximately critical point with ‖∇f(θ)‖ = O(σ√ε); none is known for this deterministic filter.
    Fails when: the plain fit passes through the corrupted samples, which have little residual and much leverage (copies
        of one point far out where the features vary little): then the good samples have the long gradients, rounds drop
        those, and no figure of the result shows it. Nor is it seen from ε = 0.3 on whether a fit describes the good
        samples or the corrupted ones and some of the good.
    Source: Diakonikolas et al., "Sever: A Robust Meta-Algorithm for Stochastic Optimization", ICML 2019,
        https://arxiv.org/abs/1803.02815; quantile, rounds and classes as in the authors' code,
        https://github.com/hoonose/sever; the comparison in pairs: Lecué and Lerasle, Annals of Statistics 2020,
        https://arxiv.org/abs/1711.10306
    Departs: the choice among the fits: the authors keep the last, which at ε = 0.2 may be worse than the plain one; a
        given `num_rounds` does as they do. `contamination=0` drops nothing, where a quantile would drop the largest
        score. A class of which nothing would be left keeps all its samples in that round, as the authors do for all
        samples together. Scores that equal the quantile are dropped, unless they alone are more than a part 2p of the
        class as it was at first, which is more than can be corrupted: samples beyond the margin of an SVM all have the
        same gradient, zero, and the authors' code drops all of them where the quantile falls on their score. The
        quantile is MATLAB's, as theirs.

    Args:
        estimator: a regressor or classifier. Fitted clones of it must have per-sample gradients: see
            `per_sample_gradients`, or give `gradients`.
        contamination: ε, the part of the samples that may be corrupted, in [0, ½).
        num_rounds: filter rounds, of which the last one's fit is kept; `None` for the choice above.
        drop_fraction: p, the part of the samples (of each class) that one round drops, in [0, 1); `None` for the
            formula above.
        by_class: filter each label by itself; `None`: for classifiers.
        gradients: a function (fitted estimator, X, y) -> gradients to use instead of `per_sample_gradients`.

    Attributes:
        estimator_: the clone that was fitted on the kept samples.
        support_: indices of the kept samples, ascending.
        scores_: `(n,)`, larger is more suspicious: the score in the last round before the fit that looked at the
            sample, relative to that round's quantile. Dropped samples have 1 or more, kept ones less; 0 where no round
            dropped anything.
        result_: weights 0 or 1, what each round saw, those beyond the fit included, and as details after how many
            rounds the fit was kept (`rounds_used`) and its ratio to the plain fit in the comparison above
            (`gradients_over_plain`, below 1 where it is better), with a `.summary()`.
        classes_: the labels, of a classifier.
        n_features_in_: as scikit-learn defines it, as is `feature_names_in_`.
    """

    def __init__(
        self,
        estimator: Any,
        *,
        contamination: float = 0.1,
        num_rounds: int | None = None,
        drop_fraction: float | None = None,
        by_class: bool | None = None,
        gradients: GradientFunction | None = None,
    ) -> None:
        self.estimator = estimator
        self.contamination = contamination
        self.num_rounds = num_rounds
        self.drop_fraction = drop_fraction
        self.by_class = by_class
        self.gradients = gradients

    def fit(self, X: Any, y: Any) -> Self:
        """Fit on `X` `(n, d)` and `y` `(n,)`, or `(n, k)` where the estimator takes several targets.

        Raises:
            ValueError: a parameter out of its range; NaN, infinity, an empty or one-dimensional `X`; a class so small
                that a round would drop it whole; what the wrapped estimator refuses.
            TypeError: no per-sample gradients are known for the estimator.
        """
        contamination = check_contamination(self.contamination)
        num_rounds = self._num_rounds()
        X, y = validate_data(
            self,
            X,
            y,
            accept_sparse="csr",
            multi_output=get_tags(self.estimator).target_tags.multi_output,
            y_numeric=is_regressor(self.estimator),
        )
        if is_classifier(self.estimator):
            check_classification_targets(y)
        groups = self._groups(y)
        drop_fraction = self._drop_fraction(contamination, groups)
        chosen = choose_fit(
            self.estimator,
            X,
            y,
            self.gradients or per_sample_gradients,
            groups=groups,
            contamination=contamination if self.drop_fraction is None else min(0.5, max(contamination, drop_fraction)),
            drop_fraction=drop_fraction,
            authors_rounds=2 if is_classifier(self.estimator) else 3,
            num_rounds=num_rounds,
        )
        found = chosen.fit
        self.estimator_ = found.estimator
        self.support_ = found.kept
        self.scores_ = found.scores
        weights = np.zeros(len(y))
        weights[found.kept] = 1.0
        self.result_ = Estimate(
            method=f"Sever({type(self.estimator).__name__})",
            weights=weights,
            iterations=found.iterations,
            details={
                "contamination": contamination,
                "drop_fraction": drop_fraction,
                "rounds_used": float(chosen.rounds_used),
                "num_screened": float(chosen.num_screened),
                "gradients_over_plain": chosen.over_plain,
            },
        )
        return self

    @_if_wrapped_has("predict")
    def predict(self, X: Any) -> Any:
        """What the fitted estimator predicts for `X` `(m, d)`."""
        return self._fitted().predict(self._new(X))

    @_if_wrapped_has("decision_function")
    def decision_function(self, X: Any) -> Any:
        """The fitted estimator's decision values for `X` `(m, d)`."""
        return self._fitted().decision_function(self._new(X))

    @_if_wrapped_has("predict_proba")
    def predict_proba(self, X: Any) -> Any:
        """The fitted estimator's class probabilities for `X` `(m, d)`."""
        return self._fitted().predict_proba(self._new(X))

    @_if_wrapped_has("predict_log_proba")
    def predict_log_proba(self, X: Any) -> Any:
        """The logarithms of the fitted estimator's class probabilities for `X` `(m, d)`."""
        return self._fitted().predict_log_proba(self._new(X))

    @_if_wrapped_has("score")
    def score(self, X: Any, y: Any) -> float:
        """The fitted estimator's own score (R², accuracy) on `X` `(m, d)` and `y`."""
        return float(self._fitted().score(self._new(X), y))

    @property
    def classes_(self) -> Any:
        """The labels, of a classifier."""
        return self.estimator_.classes_

    def summary(self) -> str:
        """A few lines for people: what was kept, and what each round saw."""
        check_is_fitted(self, "result_")
        return self.result_.summary()

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        wrapped = get_tags(self.estimator)
        tags.estimator_type = wrapped.estimator_type
        tags.classifier_tags = wrapped.classifier_tags
        tags.regressor_tags = wrapped.regressor_tags
        tags.target_tags = wrapped.target_tags
        tags.input_tags.sparse = wrapped.input_tags.sparse
        tags.input_tags.pairwise = wrapped.input_tags.pairwise
        return tags

    def _num_rounds(self) -> int | None:
        if self.num_rounds is None:
            return None
        if isinstance(self.num_rounds, bool) or int(self.num_rounds) != self.num_rounds or self.num_rounds < 0:
            raise ValueError(f"num_rounds must be a whole number of at least 0, or None, got {self.num_rounds!r}")
        return int(self.num_rounds)

    def _groups(self, y: NDArray[Any]) -> Groups:
        by_class = is_classifier(self.estimator) if self.by_class is None else self.by_class
        if not by_class:
            return np.zeros(len(y), dtype=np.intp)
        return np.unique(y, return_inverse=True)[1].reshape(-1)

    def _drop_fraction(self, contamination: float, groups: Groups) -> float:
        if self.drop_fraction is not None:
            if not 0 <= self.drop_fraction < 1:
                raise ValueError(f"drop_fraction must lie in [0, 1), or be None, got {self.drop_fraction!r}")
            return float(self.drop_fraction)
        smallest = int(np.bincount(groups).min())
        fraction = len(groups) / smallest * contamination / 2
        if fraction >= 1:
            raise ValueError(
                f"a round would drop whole classes: contamination {contamination} of {len(groups)} samples is "
                f"{contamination * len(groups):g}, and the smallest class has {smallest}; "
                "lower contamination, or set drop_fraction"
            )
        return fraction

    def _fitted(self) -> Any:
        check_is_fitted(self, "estimator_")
        return self.estimator_

    def _new(self, X: Any) -> Any:
        """New samples as the fitted estimator knows them: of a kernel, the columns of the kept samples."""
        X = validate_data(self, X, accept_sparse="csr", reset=False)
        return X[:, self.support_] if get_tags(self.estimator).input_tags.pairwise else X
