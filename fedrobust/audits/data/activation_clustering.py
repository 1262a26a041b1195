"""Activation clustering: the features of a poisoned class fall into two clusters, one of them the poison.

Chen, Carvalho, Baracaldo, Ludwig, Edwards, Lee, Molloy, Srivastava, "Detecting Backdoor Attacks on Deep Neural Networks
by Activation Clustering", SafeAI at AAAI 2019, https://arxiv.org/abs/1811.03728
Departs: for exclusionary reclassification the smaller clusters of all classes are left out at once, so that one
retraining serves all of them; independent components are not rotated after whitening, which no distance notices; scores
of single examples, which the paper has none of, say how much nearer an example is to the smaller cluster's centre.
"""

import math
from dataclasses import dataclass, field
from typing import Annotated, Literal

import numpy as np
import torch
from annotated_types import Ge
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.metrics import silhouette_score
from torch import Tensor

from fedrobust.audits.audited_model import AuditedModel
from fedrobust.audits.base import ClassVerdict, DataReport, require_model
from fedrobust.audits.data.calibration import MIN_CLASS_SIZE, too_small
from fedrobust.audits.data.retraining import retrain
from fedrobust.clients.local_training import LocalTraining
from fedrobust.component import Count, Fraction, Positive, component
from fedrobust.data.examples import Examples
from fedrobust.statistics.samples import as_samples

_RANK_TOLERANCE = 1e-6
"""Of the largest singular value: features are float32, and what lies below is their rounding."""


@dataclass(frozen=True, eq=False)
class Clusters:
    """The two clusters of one class.

    Attributes:
        is_smaller: `(n,)` booleans, which examples are in the smaller one.
        scores: `(n,)` float64, (squared distance to the larger one's centre - that to the smaller one's) over the
            squared distance of the centres, from -1 at the larger one's to 1.
        points: `(n, num_components)`, what was clustered.
    """

    is_smaller: NDArray[np.bool_]
    scores: NDArray[np.float64]
    points: NDArray[np.float64]

    @property
    def larger_share(self) -> float:
        """The larger cluster's share of the class."""
        return 1.0 - float(self.is_smaller.mean())

    @property
    def silhouette(self) -> float:
        """The mean silhouette of the class, in [-1, 1]."""
        return float(silhouette_score(self.points, self.is_smaller))


@component
class ActivationClustering:
    """Cluster the features of each class in two, and flag the smaller cluster where the verdict is that it is poison.

    The verdict goes by one of:

    - `reclassification`: a model trained without the smaller clusters classifies them. Poison if those that it gives
      their own label are fewer than `min_own_ratio` times those that it gives the most frequent other label. Costs a
      training; needs two classes.
    - `silhouette`: poison if two clusters describe the class well, above `min_silhouette`.
    - `size`: poison if the smaller cluster has less than `max_poison_fraction` of the class.

    None of them comes with a false-positive rate: `experiments/audits` measures it.

    Attributes:
        verdict: see above.
        layer: where the features are read; `None` is the penultimate layer.
        reduction: `ica` clusters components of unit variance, `pca` principal components with the variance they have.
        num_components: of them, at most the rank of the class's features.
        min_own_ratio: T of the paper.
        min_silhouette: the paper suggests 0.10 to 0.15.
        max_poison_fraction: of a class.
        training: of the model without the clusters.
        num_starts: of k-means. Whitened features vary as much in every direction, and few starts miss the best split.
    """

    verdict: Literal["reclassification", "silhouette", "size"] = "reclassification"
    layer: str | None = None
    reduction: Literal["ica", "pca"] = "ica"
    num_components: Annotated[int, Ge(1)] = 10
    min_own_ratio: Positive = 1.0
    min_silhouette: Fraction = 0.15
    max_poison_fraction: Fraction = 0.35
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
                "verdict=silhouette and verdict=size do with one"
            )
        features = as_samples(model.features(examples.inputs, self.layer).cpu(), name="features").points
        seed = int(torch.randint(2**31, (), generator=generator))
        scores = torch.full((len(labels),), math.nan, dtype=torch.float64)
        smaller = torch.zeros(len(labels), dtype=torch.bool)
        found: dict[int, Clusters | None] = {}
        for label in present:
            rows = (labels == label).nonzero().squeeze(1)
            if len(rows) >= MIN_CLASS_SIZE:
                clusters = self.cluster(features[rows], seed)
                found[label] = clusters
                if clusters is not None:
                    scores[rows] = torch.from_numpy(clusters.scores)
                    smaller[rows] = torch.from_numpy(clusters.is_smaller)
        statistics = self._statistics(examples, model, generator, found, smaller)
        verdicts = tuple(
            _judge(label, int((labels == label).sum()), found, statistics, self.statistic_threshold)
            for label in present
        )
        convicted = torch.tensor([verdict.label for verdict in verdicts if verdict.is_poisoned], dtype=torch.int64)
        return DataReport(
            audit="activation clustering",
            labels=labels,
            scores=scores,
            flagged=smaller & torch.isin(labels, convicted),
            verdicts=verdicts,
            score_name="nearness to the smaller cluster",
            statistic_name={
                "reclassification": "share of the cluster given the top other label",
                "silhouette": "silhouette",
                "size": "share of the larger cluster",
            }[self.verdict],
            statistic_threshold=self.statistic_threshold,
        )

    @property
    def statistic_threshold(self) -> float:
        """Above it a class is convicted: own / other < T is the same as other / (own + other) > 1 / (1 + T)."""
        if self.verdict == "reclassification":
            return 1 / (1 + self.min_own_ratio)
        return self.min_silhouette if self.verdict == "silhouette" else 1 - self.max_poison_fraction

    def cluster(self, features: Tensor, seed: int) -> Clusters | None:
        """The two clusters of one class's features `(n, F)`, finite; `None` if all are equal."""
        centred = features.double().numpy()
        centred = centred - centred.mean(axis=0)
        rank = (
            int(np.linalg.matrix_rank(centred, rtol=_RANK_TOLERANCE)) if np.ptp(features.numpy(), axis=0).any() else 0
        )
        if rank == 0:
            return None
        points = self._reduce(centred, min(self.num_components, rank, len(centred) - 1), seed)
        fitted = KMeans(n_clusters=2, n_init=self.num_starts, random_state=seed).fit(points)
        small = int(np.bincount(fitted.labels_, minlength=2).argmin())
        squared = np.square(points[:, None] - fitted.cluster_centers_).sum(axis=2)
        between = float(np.square(fitted.cluster_centers_[0] - fitted.cluster_centers_[1]).sum())
        return Clusters(fitted.labels_ == small, (squared[:, 1 - small] - squared[:, small]) / between, points)

    def _reduce(self, centred: NDArray[np.float64], num_components: int, seed: int) -> NDArray[np.float64]:
        # Independent components are whitened principal ones, rotated. Distances, all that k-means and silhouettes go
        # by, are the same under any rotation, so the search for it, which may not converge, is left out.
        pca = PCA(n_components=num_components, whiten=self.reduction == "ica", random_state=seed)
        return np.asarray(pca.fit_transform(centred))

    def _statistics(
        self,
        examples: Examples,
        model: AuditedModel,
        generator: torch.Generator,
        found: dict[int, Clusters | None],
        smaller: Tensor,
    ) -> dict[int, float]:
        """What the verdicts go by, for the classes that have clusters."""
        clustered = {label: clusters for label, clusters in found.items() if clusters is not None}
        if self.verdict == "silhouette":
            return {label: clusters.silhouette for label, clusters in clustered.items()}
        if self.verdict == "size":
            return {label: clusters.larger_share for label, clusters in clustered.items()}
        if not clustered:
            return {}
        kept, left_out = (examples.subset(rows.nonzero().squeeze(1)) for rows in (~smaller, smaller))
        logits = retrain(model, kept, self.training, generator).logits(left_out.inputs)
        if not bool(logits.isfinite().all()):
            raise ValueError(
                f"the model trained without the smaller clusters must be finite, and training diverged "
                f"(learning_rate={self.training.learning_rate})"
            )
        answers = logits.argmax(dim=1).cpu()
        own_labels = left_out.labels.cpu()
        return {label: other_share(answers[own_labels == label], label) for label in clustered}


def other_share(answers: Tensor, label: int) -> float:
    """Other / (own + other): own answers are `label`, other are those of the most frequent other label."""
    own = int((answers == label).sum())
    others = answers[answers != label]
    other = int(torch.bincount(others).max()) if len(others) else 0
    return other / (own + other)


def _judge(
    label: int, n: int, found: dict[int, Clusters | None], statistics: dict[int, float], threshold: float
) -> ClassVerdict:
    if label in statistics:
        return ClassVerdict(label, statistics[label] > threshold, statistics[label], n)
    if label in found:
        return ClassVerdict(label, None, math.nan, n, "all features are equal")
    return too_small(label, n)
