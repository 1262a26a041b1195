"""Spectral signatures: poison shifts the mean of a class's features, and the top singular direction shows it.

Tran, Li, Madry, "Spectral Signatures in Backdoor Attacks", NeurIPS 2018, https://arxiv.org/abs/1811.00636
Departs: the paper filters every class and judges none; here a class is convicted too, where its top eigenvalue stands
out among those of all classes by the median and the scaled median absolute deviation (one-sided). The features are
centred, as in the paper's algorithm; its published code projects uncentred ones.
"""

import math
from typing import Annotated

import torch
from annotated_types import Gt, Lt
from torch import Tensor

from fedrobust._linalg.samples import as_samples
from fedrobust.audits.audited_model import AuditedModel
from fedrobust.audits.base import ClassVerdict, DataReport, require_model
from fedrobust.audits.data.calibration import MIN_CLASS_SIZE, too_small
from fedrobust.config.component import Count, Positive, component
from fedrobust.data.examples import Examples
from fedrobust.filters.covariance_direction import sample_direction
from fedrobust.statistics.gaussian.one_dimension import mad_sigma, median

_REMOVAL_FACTOR = 1.5
"""Of the paper's algorithm: so many times the bound are removed."""

_MIN_CLASSES = 8
"""The median absolute deviation of fewer eigenvalues means nothing."""


@component
class SpectralSignatures:
    """Leave out of every class the 1.5ε examples that project farthest on its top singular direction.

    It says how many examples it leaves out whether or not there is poison: on clean data its false-positive rate is
    1.5ε of every class.

    Attributes:
        max_poison_fraction: ε as a part of each class, in (0, ½).
        max_poison_count: ε as a number of examples; if given, it counts instead of the fraction.
        layer: where the features are read; `None` is the penultimate layer.
        max_anomaly_index: above it a class is convicted.
    """

    max_poison_fraction: Annotated[float, Gt(0), Lt(0.5)] = 0.1
    max_poison_count: Count | None = None
    layer: str | None = None
    max_anomaly_index: Positive = 3.5

    @property
    def uncalibrated(self) -> str:
        """Why its flags and verdicts have no stated rate of false alarms."""
        return "1.5ε of every class are flagged, poison or not, and eigenvalues are compared among classes alone"

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
        """Score and flag; classes with fewer than 10 examples are not judged.

        Raises:
            ValueError: no model, no such layer, or features that are not finite.
        """
        features = require_model(model, "SpectralSignatures").features(examples.inputs, self.layer)
        labels = examples.labels.cpu()
        points = as_samples(features.cpu(), name="features").points
        scores = torch.full((len(labels),), math.nan, dtype=torch.float64)
        flagged = torch.zeros(len(labels), dtype=torch.bool)
        eigenvalues: dict[int, float] = {}
        for label in torch.unique(labels).tolist():
            rows = (labels == label).nonzero().squeeze(1)
            if len(rows) >= MIN_CLASS_SIZE:
                eigenvalues[label], scores[rows] = spectral_scores(points[rows])
                flagged[rows[scores[rows].topk(self.num_removed(len(rows))).indices]] = True
        return DataReport(
            audit="spectral signatures",
            labels=labels,
            scores=scores,
            flagged=flagged,
            verdicts=self._verdicts(labels, eigenvalues),
            score_name="squared projection on the top singular direction",
            statistic_name="anomaly index of the top eigenvalue",
            statistic_threshold=self.max_anomaly_index,
            uncalibrated=self.uncalibrated,
        )

    def num_removed(self, class_size: int) -> int:
        """⌊1.5ε⌋, at most the whole class."""
        bound = self.max_poison_fraction * class_size if self.max_poison_count is None else self.max_poison_count
        return min(math.floor(_REMOVAL_FACTOR * bound + 1e-9), class_size)

    def _verdicts(self, labels: Tensor, eigenvalues: dict[int, float]) -> tuple[ClassVerdict, ...]:
        values = torch.tensor(list(eigenvalues.values()), dtype=torch.float64)
        spread = mad_sigma(values) if len(values) >= _MIN_CLASSES else 0.0
        few = f"{len(values)} classes of {MIN_CLASS_SIZE} examples, {_MIN_CLASSES} are needed to compare them"
        reason = few if len(values) < _MIN_CLASSES else "most top eigenvalues are equal"
        verdicts = []
        for label in torch.unique(labels).tolist():
            n = int((labels == label).sum())
            if label not in eigenvalues:
                verdicts.append(too_small(label, n))
            elif spread <= 0:
                verdicts.append(ClassVerdict(label, None, math.nan, n, reason))
            else:
                index = (eigenvalues[label] - median(values)) / spread
                verdicts.append(ClassVerdict(label, index > self.max_anomaly_index, index, n))
        return tuple(verdicts)


def spectral_scores(features: Tensor) -> tuple[float, Tensor]:
    """The variance along the top singular direction v of the centred features, and τ = ⟨R - R̄, v⟩² of each.

    Args:
        features: `(n, F)`, finite.

    Returns:
        The variance and the scores `(n,)` float64.
    """
    uniform = torch.full((len(features),), 1 / len(features), dtype=torch.float64)
    top = sample_direction(features)(uniform)
    return top.eigenvalue, top.squared_projections
