"""Explanation-guided backdoor of a malware detector: SHAP values choose what is stamped on goodware.

Severi, Meyer, Coull, Oprea, "Explanation-Guided Backdoor Poisoning Attacks Against Malware Classifiers", USENIX
Security 2021, https://www.usenix.org/conference/usenixsecurity21/presentation/severi (code:
https://github.com/ClonedOne/MalwareBackdoors)
Departs: the attackers explain a surrogate of their own, gradient boosting on examples that they hold, as the paper's
weaker attackers do; `random` features and values, the control, and every pair of selectors can be chosen, also
greedily, where the paper's greedy one is LargeSHAP with CountSHAP.
"""

import dataclasses
from typing import ClassVar, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fedrobust.attacks.data.dirty_label import PoisonRate, draw, stamped, wanted_labels
from fedrobust.attacks.triggers.features import FeatureTrigger
from fedrobust.config.component import Count, FieldError, Index, Trait, component
from fedrobust.data.datasets import Dataset, Examples
from fedrobust.seeds import numpy_generator

GOODWARE, MALWARE = 0, 1

Array: TypeAlias = npt.NDArray[np.float64]
FeatureSelector: TypeAlias = Literal["large_shap", "large_abs_shap", "random"]
ValueSelector: TypeAlias = Literal["min_population", "count_shap", "count_abs_shap", "random"]


@component
class ExplanationGuided:
    """Attackers stamp some of their goodware with a trigger and leave every label alone; at test, malware wears it.

    The trigger is found once, by `bind`, and is the same for all attackers and for the evaluation. The attack success
    rate is over malware that the model detects without the trigger.

    Attributes:
        features: `large_shap` takes those whose SHAP values sum to the least, which speak most for goodware;
            `large_abs_shap` those with the largest sum of absolute values; `random` any.
        values: of what a feature takes, `min_population` picks the rarest; `count_shap` and `count_abs_shap` the least
            of 1/count + the sum of (absolute) SHAP values where it is taken; `random` that of any example.
        greedy: after each feature, look on only at examples that have its value, so that the trigger is one of a
            kind that occurs; with `large_shap` and `count_shap` the paper's greedy selection.
        num_features: how many features are stamped.
        modifiable_features: the ones that may be; all, if `None`.
        poison_rate: fraction of the attacker's local examples that are stamped, at most all of its goodware; a fresh
            choice every round.
        num_surrogate_examples: labelled examples on which the surrogate learns, drawn from the training set by the
            scenario's seed; all, if `None`.
        trigger: what is stamped, if that is known; `None` lets `bind` find it.
    """

    features: FeatureSelector = "large_abs_shap"
    values: ValueSelector = "count_abs_shap"
    greedy: bool = False
    num_features: Count = 8
    modifiable_features: list[Index] | None = None
    poison_rate: PoisonRate = 0.01
    num_surrogate_examples: Count | None = None
    trigger: FeatureTrigger | None = None

    # Malware that the model misses anyway is no success of the trigger.
    traits: ClassVar[frozenset[Trait]] = frozenset({"counts_detected_only"})

    def bind(self, dataset: Dataset, generator: torch.Generator) -> "ExplanationGuided":
        """The attack with its trigger, found in examples of the training set.

        Raises:
            FieldError: the data set is not a table of goodware and malware, or has fewer features or examples.
        """
        if dataset.kind != "tabular" or dataset.num_classes != 2:
            raise FieldError(
                "features", f"must be of a table with two classes (0 goodware, 1 malware), got {dataset.name}"
            )
        if self.trigger is not None:
            return self
        allowed = self._allowed(dataset.input_shape[0])
        known = self._known(dataset.train, generator)
        inputs = known.inputs.cpu().double().numpy()
        draws = numpy_generator(int(torch.randint(2**31 - 1, (1,), generator=generator)))
        if self.features == "random" and self.values in ("random", "min_population"):
            shap_values = np.zeros_like(inputs)  # nothing reads them
        else:
            shap_values = explain(inputs, known.labels.cpu().numpy(), seed=int(draws.integers(2**31)))
        trigger = select_trigger(
            shap_values,
            inputs,
            self.num_features,
            features=self.features,
            values=self.values,
            greedy=self.greedy,
            allowed=allowed,
            generator=draws,
        )
        return dataclasses.replace(self, trigger=trigger)

    def poison(self, examples: Examples, attacker: int, generator: torch.Generator) -> Examples:
        """Stamp `poison_rate` of the examples, goodware all of them, in a copy."""
        (trigger,) = self.local_triggers(tuple(examples.inputs.shape[1:]))
        chosen = draw(examples.labels == GOODWARE, self.poison_rate, generator)
        return stamped(examples, chosen, trigger, target_label=None)

    def poison_batch(self, batch: Examples, attacker: int) -> Examples:
        """Batches stay as they are."""
        return batch

    def local_triggers(self, input_shape: tuple[int, ...]) -> tuple[FeatureTrigger, ...]:
        """The trigger.

        Raises:
            FieldError: it was not found yet, or the inputs do not have its features.
        """
        if self.trigger is None:
            raise FieldError("trigger", "must be given, or found by bind(dataset, generator) first")
        self.trigger.check(input_shape)
        return (self.trigger,)

    def wanted_labels(self, test: Examples) -> Tensor:
        """Goodware, for malware."""
        return wanted_labels(test.labels, GOODWARE, MALWARE)

    def _allowed(self, num_columns: int) -> list[int]:
        allowed = list(range(num_columns)) if self.modifiable_features is None else self.modifiable_features
        if max(allowed, default=0) >= num_columns:
            raise FieldError("modifiable_features", f"must be below {num_columns}, got {max(allowed)}")
        if self.num_features > len(set(allowed)):
            raise FieldError(
                "num_features",
                f"must be at most {len(set(allowed))}, those there are to stamp, got {self.num_features}",
            )
        return allowed

    def _known(self, train: Examples, generator: torch.Generator) -> Examples:
        if self.num_surrogate_examples is None:
            return train
        if self.num_surrogate_examples > len(train):
            raise FieldError(
                "num_surrogate_examples",
                f"must be at most {len(train)}, the training examples, got {self.num_surrogate_examples}",
            )
        return train.subset(torch.randperm(len(train), generator=generator)[: self.num_surrogate_examples])


def explain(inputs: Array, labels: npt.NDArray[np.int64], *, seed: int) -> Array:
    """SHAP values `(N, F)` of a gradient boosting surrogate for its training examples; positive speaks for malware.

    Raises:
        FieldError: shap is not installed.
    """
    try:
        import shap
    except ModuleNotFoundError as error:
        raise FieldError("trigger", 'must be given, or found with shap: pip install "fedrobust[explain]"') from error
    from sklearn.ensemble import GradientBoostingClassifier

    surrogate = GradientBoostingClassifier(random_state=seed).fit(inputs, labels)
    return np.asarray(shap.TreeExplainer(surrogate).shap_values(inputs), dtype=np.float64)


def select_trigger(
    shap_values: Array,
    inputs: Array,
    num_features: int,
    *,
    features: FeatureSelector,
    values: ValueSelector,
    greedy: bool = False,
    allowed: list[int] | None = None,
    generator: np.random.Generator | None = None,
) -> FeatureTrigger:
    """Choose features one after the other, each with its value; ties go to the lower feature and the lower value.

    Args:
        shap_values: S `(N, F)`, positive speaks for malware.
        inputs: X `(N, F)`.
        num_features: how many.
        features: how a feature is chosen.
        values: how its value is.
        greedy: go on with the examples that have the value.
        allowed: the features that may be chosen; all, if `None`.
        generator: for `random` choices.
    """
    draws = generator or numpy_generator(0, "trigger")
    left = sorted(set(range(inputs.shape[1]) if allowed is None else allowed))
    chosen: list[int] = []
    taken: list[float] = []
    for _ in range(num_features):
        ranks = _feature_scores(shap_values[:, left], features, draws)
        feature = left.pop(int(ranks.argmin()))
        value = select_value(shap_values[:, feature], inputs[:, feature], values, draws)
        chosen.append(feature)
        taken.append(value)
        if greedy:
            matching = inputs[:, feature] == value
            shap_values, inputs = shap_values[matching], inputs[matching]
    return FeatureTrigger(features=chosen, values=taken)


def select_value(shap_column: Array, column: Array, values: ValueSelector, generator: np.random.Generator) -> float:
    """One of the values that a feature takes, from its SHAP values `(N,)` and itself `(N,)`."""
    if values == "random":
        return float(generator.choice(column))
    found, index, counts = np.unique(column, return_inverse=True, return_counts=True)
    if values == "min_population":
        return float(found[counts.argmin()])
    weights = shap_column if values == "count_shap" else np.abs(shap_column)
    return float(found[(1 / counts + np.bincount(index, weights=weights)).argmin()])


def _feature_scores(shap_values: Array, features: FeatureSelector, generator: np.random.Generator) -> Array:
    """One score for each of the columns; the least is chosen."""
    if features == "random":
        return np.asarray(generator.random(shap_values.shape[1]))
    if features == "large_shap":
        return np.asarray(shap_values.sum(axis=0))
    return np.asarray(-np.abs(shap_values).sum(axis=0))
