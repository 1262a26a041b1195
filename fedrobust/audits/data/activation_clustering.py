"""Activation clustering: the features of a poisoned class fall into two clusters, one of them the poison.

Chen, Carvalho, Baracaldo, Ludwig, Edwards, Lee, Molloy, Srivastava, "Detecting Backdoor Attacks on Deep Neural Networks
by Activation Clustering", SafeAI at AAAI 2019, https://arxiv.org/abs/1811.03728
Departs: a class is convicted only if the cluster is small and clean examples of the class avoid it, which the paper has
none of, and the verdict by them alone is the default; for exclusionary reclassification the smaller clusters of all
classes are left out at once, so that one retraining serves all of them; independent components are not rotated after
whitening, which no distance notices; scores of single examples, which the paper has none of, say how much nearer an
example is to the smaller cluster's centre.
"""

import math
from dataclasses import dataclass, field
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Gt, Lt
from torch import Tensor

from fedrobust._linalg.samples import as_samples
from fedrobust.audits.audited_model import AuditedModel
from fedrobust.audits.base import ClassVerdict, DataReport, require_model
from fedrobust.audits.data.calibration import MIN_CLASS_SIZE, too_small
from fedrobust.audits.data.clean_reference import CleanReference, avoidance, smallest_reference
from fedrobust.audits.data.clusters import Clusters, cluster
from fedrobust.audits.data.retraining import retrain
from fedrobust.config.component import Count, Fraction, Positive, component
from fedrobust.data.examples import Examples
from fedrobust.training.local_training import LocalTraining

_NAMES = {
    "reference": "1 - p of clean examples avoiding the cluster",
    "reclassification": "share of the cluster given the top other label",
    "silhouette": "silhouette",
    "size": "share of the larger cluster",
}
"""Of the statistics that verdicts go by."""


@dataclass(frozen=True, eq=False)
class _ClusteredClass:
    """The clusters of a class, made together with its clean examples, and what these say of them."""

    pooled: Clusters
    clusters: Clusters
    reference: CleanReference | None

    @classmethod
    def of(cls, pooled: Clusters, num_examples: int, num_clean: int, level: float) -> "_ClusteredClass":
        """From the clusters of the class's examples followed by its clean ones."""
        clusters, num_clean_in = pooled.first(num_examples), int(pooled.is_smaller[num_examples:].sum())
        reference = CleanReference(int(clusters.is_smaller.sum()), num_examples, num_clean_in, num_clean, level)
        return cls(pooled, clusters.swapped() if reference.suspects_larger else clusters, reference)

    def without_reference(self) -> "_ClusteredClass":
        """The same, where the clean examples are too few to say anything."""
        return _ClusteredClass(self.pooled, self.pooled.first(len(self.clusters.scores)), None)

    def verdict(self, max_share: float) -> tuple[bool | None, str]:
        """See `CleanReference`; without one, whether the cluster is small enough to be convicted."""
        if self.reference is not None:
            return self.reference.verdict(max_share)
        share = 1 - self.clusters.larger_share
        if share <= max_share:
            return True, ""
        return None, (
            f"cannot tell which part would be poison: the smaller cluster's {share:.0%} of the class are more than "
            f"max_poison_fraction={max_share:g}"
        )


@component
class ActivationClustering:
    """Cluster the features of each class in two, and flag the smaller cluster where the verdict is that it is poison.

    With clean examples, the class's own are clustered along with it. If the class is as clean as they are, they lie in
    both clusters at the same rate; poison has a cluster that they avoid. Only a class whose clean examples avoid the
    cluster, by Fisher's exact test, is convicted: the chance that a clean class is, of all classes, is at most
    1 - `confidence`. This holds as far as clean examples have the features of the class's clean ones, although the
    model was trained on these alone; `experiments/audits/clean_rates` measures it. Little poison is beyond the test: to
    convict k of n examples it takes some n / k · log(classes / (1 - `confidence`)) clean ones of the class, and the
    reason of a class that cannot be told says how many.

    The verdict goes by one of:

    - `reference`: that test alone; without clean examples no class is judged.
    - `reclassification`: a model trained without the smaller clusters classifies them. Poison if those that it gives
      their own label are fewer than `min_own_ratio` times those that it gives the most frequent other label. Costs a
      training; needs two classes.
    - `silhouette`: poison if two clusters describe the class well, above `min_silhouette`.
    - `size`: poison if the smaller cluster has less than `max_poison_fraction` of the class.

    The last three are the paper's. With clean examples, they must pass the test besides; without, the report says that
    they are not calibrated: at least one class of nearly every clean model is convicted then.

    Where the suspected cluster has more than `max_poison_fraction` of the class, no verdict tells which part is the
    poison: the class is not judged.

    Attributes:
        verdict: see above.
        layer: where the features are read; `None` is the penultimate layer.
        reduction: `ica` clusters components of unit variance, `pca` principal components with the variance they have.
        num_components: of them, at most the rank of the class's features.
        min_own_ratio: T of the paper.
        min_silhouette: the paper suggests 0.10 to 0.15.
        max_poison_fraction: of a class, the most that is convicted. Above ½ the cluster that clean examples avoid may
            be the larger one, at twice the number of tests.
        confidence: that no clean class is convicted, of all classes.
        min_accuracy: of the model on the clean examples; the features of one that knows less are not gone by.
        training: of the model without the clusters.
        num_starts: of k-means. Whitened features vary as much in every direction, and few starts miss the best split.
    """

    verdict: Literal["reference", "reclassification", "silhouette", "size"] = "reference"
    layer: str | None = None
    reduction: Literal["ica", "pca"] = "ica"
    num_components: Annotated[int, Ge(1)] = 10
    min_own_ratio: Positive = 1.0
    min_silhouette: Fraction = 0.15
    max_poison_fraction: Fraction = 0.35
    confidence: Annotated[float, Gt(0), Lt(1)] = 0.95
    min_accuracy: Fraction = 0.5
    training: LocalTraining = field(default_factory=lambda: LocalTraining(num_epochs=10))
    num_starts: Count = 100

    def check(self, model: AuditedModel, examples: Examples, clean: Examples) -> None:
        """Look whether there is the layer.

        Raises:
            ValueError: there is not.
        """
        model.features(examples.inputs, self.layer)

    def __call__(
        self,
        examples: Examples,
        model: AuditedModel | None,
        generator: torch.Generator,
        clean: Examples | None = None,
    ) -> DataReport:
        """Score and flag; classes with fewer than 10 examples, or with features that are all equal, are not judged.

        Raises:
            ValueError: no model, no such layer, features that are not finite, or, where the verdict is by
                reclassification, a single class or training that diverges.
        """
        model = require_model(model, "ActivationClustering")
        labels = examples.labels.cpu()
        present = torch.unique(labels).tolist()
        if self.verdict == "reclassification" and len(present) < 2:
            raise ValueError(
                f"exclusionary reclassification needs examples of at least 2 classes, got labels {present}; "
                "the other verdicts do with one"
            )
        seed = int(torch.randint(2**31, (), generator=generator))
        uncalibrated = self._reason_against(model, clean)
        found, reason = self._clusters(examples, model, None if uncalibrated else clean, seed)
        uncalibrated = uncalibrated or reason
        scores = torch.full((len(labels),), math.nan, dtype=torch.float64)
        suspected = torch.zeros(len(labels), dtype=torch.bool)
        for label, one in found.items():
            if one is not None:
                rows = labels == label
                scores[rows] = torch.from_numpy(one.clusters.scores)
                suspected[rows] = torch.from_numpy(one.clusters.is_smaller)
        clustered = {label: one for label, one in found.items() if one is not None}
        statistics = self._statistics(examples, model, generator, clustered, suspected)
        verdicts = tuple(
            self._judge(label, int((labels == label).sum()), found, statistics, uncalibrated) for label in present
        )
        convicted = torch.tensor([verdict.label for verdict in verdicts if verdict.is_poisoned], dtype=torch.int64)
        return DataReport(
            audit="activation clustering",
            labels=labels,
            scores=scores,
            flagged=suspected & torch.isin(labels, convicted),
            verdicts=verdicts,
            score_name="nearness to the smaller cluster",
            statistic_name=_NAMES[self.verdict],
            statistic_threshold=self.statistic_threshold,
            uncalibrated=uncalibrated,
        )

    @property
    def statistic_threshold(self) -> float:
        """At or below it no class is convicted: own / other < T is the same as other / (own + other) > 1 / (1 + T)."""
        if self.verdict == "reclassification":
            return 1 / (1 + self.min_own_ratio)
        return {
            "reference": self.confidence, "silhouette": self.min_silhouette, "size": 1 - self.max_poison_fraction,
        }[self.verdict]  # fmt: skip

    def cluster(self, features: Tensor, seed: int) -> Clusters | None:
        """The two clusters of one class's features `(n, F)`, finite; `None` if all are equal."""
        return cluster(features, self.reduction, self.num_components, self.num_starts, seed)

    def _reason_against(self, model: AuditedModel, clean: Examples | None) -> str:
        """Why the clean examples say nothing of the classes, or an empty text."""
        if clean is None or len(clean) == 0:
            return "no clean examples"
        right = model.logits(clean.inputs).argmax(dim=1).cpu() == clean.labels.cpu()
        accuracy = float(right.double().mean())
        if accuracy < self.min_accuracy:
            return f"the model is right about {accuracy:.0%} of the clean examples, min_accuracy={self.min_accuracy:g}"
        return ""

    def _clusters(
        self, examples: Examples, model: AuditedModel, clean: Examples | None, seed: int
    ) -> tuple[dict[int, _ClusteredClass | None], str]:
        """By label, for classes of enough examples; and why no class's clean examples say anything, or an empty text.

        Those of a class whose features are all equal are `None`.
        """
        labels = examples.labels.cpu()
        shown = [examples.inputs] if clean is None else [examples.inputs, clean.inputs.to(examples.inputs.device)]
        parts = model.features(torch.cat(shown), self.layer).cpu().split([len(one) for one in shown])
        features, *others = (as_samples(part, name="features").points for part in parts)
        sizes = {
            label: n for label in labels.unique().tolist() if (n := int((labels == label).sum())) >= MIN_CLASS_SIZE
        }
        if clean is None:
            alone = {label: self.cluster(features[labels == label], seed) for label in sizes}
            return {label: None if one is None else _ClusteredClass(one, one, None) for label, one in alone.items()}, ""
        of_class = {label: others[0][clean.labels.cpu() == label] for label in sizes}
        pooled = {
            label: self.cluster(torch.cat([own, of_class[label]]), seed) if bool((own != own[0]).any()) else None
            for label in sizes
            for own in [features[labels == label]]
        }
        level = (1 - self.confidence) / self._num_tests(sum(one is not None for one in pooled.values()))
        found = {
            label: None if one is None else _ClusteredClass.of(one, sizes[label], len(of_class[label]), level)
            for label, one in pooled.items()
        }
        missing = {label: self._missing(sizes[label], len(of_class[label]), level) for label in found}
        if all(missing.values()) and missing:
            label = min(missing, key=lambda one: missing[one])
            return {name: None if one is None else one.without_reference() for name, one in found.items()}, (
                f"{len(clean)} clean examples are too few: of class {label}, {missing[label]} more are needed to "
                f"convict {self.max_poison_fraction:.0%} of it"
            )
        return found, ""

    def _missing(self, n: int, num_clean: int, level: float) -> int:
        """How many more clean examples it takes to convict the largest part that may be convicted."""
        most = max(1, math.floor(self.max_poison_fraction * n))
        if avoidance(most, n, 0, num_clean) < level:
            return 0
        return smallest_reference(most, n, level) - num_clean

    def _num_tests(self, num_classes: int) -> int:
        """Two clusters can each have at most ½ of a class's examples only if both have just that."""
        return max(1, num_classes) * (1 if self.max_poison_fraction <= 0.5 else 2)

    def _statistics(
        self,
        examples: Examples,
        model: AuditedModel,
        generator: torch.Generator,
        clustered: dict[int, _ClusteredClass],
        suspected: Tensor,
    ) -> dict[int, float]:
        """What the verdicts go by, for the classes that have clusters."""
        if self.verdict == "reference":
            num_tests = self._num_tests(len(clustered))
            return {
                label: math.nan if one.reference is None else 1 - min(1.0, num_tests * one.reference.p_value)
                for label, one in clustered.items()
            }
        if self.verdict == "silhouette":
            return {label: one.pooled.silhouette for label, one in clustered.items()}
        if self.verdict == "size":
            return {label: one.clusters.larger_share for label, one in clustered.items()}
        if not clustered:
            return {}
        kept, left_out = (examples.subset(rows.nonzero().squeeze(1)) for rows in (~suspected, suspected))
        logits = retrain(model, kept, self.training, generator).logits(left_out.inputs)
        if not bool(logits.isfinite().all()):
            raise ValueError(
                f"the model trained without the smaller clusters must be finite, and training diverged "
                f"(learning_rate={self.training.learning_rate})"
            )
        answers = logits.argmax(dim=1).cpu()
        own_labels = left_out.labels.cpu()
        return {label: other_share(answers[own_labels == label], label) for label in clustered}

    def _judge(
        self,
        label: int,
        n: int,
        found: dict[int, _ClusteredClass | None],
        statistics: dict[int, float],
        uncalibrated: str,
    ) -> ClassVerdict:
        if label not in found:
            return too_small(label, n)
        one = found[label]
        if one is None:
            return ClassVerdict(label, None, math.nan, n, "all features are equal")
        is_poisoned, reason = one.verdict(self.max_poison_fraction)
        if self.verdict == "reference" and uncalibrated:
            return ClassVerdict(label, None, math.nan, n, f"not calibrated: {uncalibrated}")
        if self.verdict != "reference" and is_poisoned:
            is_poisoned = statistics[label] > self.statistic_threshold
        return ClassVerdict(label, is_poisoned, statistics[label], n, reason)


def other_share(answers: Tensor, label: int) -> float:
    """Other / (own + other): own answers are `label`, other are those of the most frequent other label; 0 if none."""
    own = int((answers == label).sum())
    others = answers[answers != label]
    other = int(torch.bincount(others).max()) if len(others) else 0
    return other / (own + other) if own + other else 0.0
