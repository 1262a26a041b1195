"""Every data audit, and pictures that all of them can read: digits, enlarged to 16 x 16."""

from dataclasses import dataclass
from functools import cache

import torch
import torch.nn.functional as F

from fedrobust.audits import ActivationClustering, AuditedModel, DataAudit, FrequencyDetector, SpectralSignatures, Strip
from fedrobust.audits.data import retrain
from fedrobust.data.datasets import Digits
from fedrobust.data.examples import Examples
from fedrobust.models import SmallCNN
from fedrobust.training.local_training import LocalTraining


@dataclass(frozen=True)
class Case:
    """An audit.

    Attributes:
        audit: with settings that suit a test.
        reads_model: whether it needs one.
        reads_features: whether it looks at a named layer.
        reads_clean: whether it needs clean examples.
        needs_classes: whether one class alone is refused.
        takes_clean: whether it reads them if there are any.
        num_calibration: clean scores that its threshold rests on; none if its rate is exact, or none is stated.
        false_positive_rate: of single examples, as stated; `None` if none is.
    """

    audit: DataAudit
    reads_model: bool
    reads_features: bool
    reads_clean: bool
    needs_classes: bool = False
    takes_clean: bool = False
    num_calibration: int | None = None
    false_positive_rate: float | None = None


TRAINING = LocalTraining(learning_rate=0.05, momentum=0.9, num_epochs=4)

CASES = {
    "spectral_signatures": Case(SpectralSignatures(max_poison_fraction=0.1), True, True, False),
    "activation_clustering": Case(ActivationClustering(num_starts=10), True, True, False, takes_clean=True),
    "clustering_by_reclassification": Case(
        ActivationClustering(verdict="reclassification", training=TRAINING, num_starts=10),
        True,
        True,
        False,
        needs_classes=True,
    ),
    "clustering_by_silhouette": Case(ActivationClustering(verdict="silhouette", num_starts=10), True, True, False),
    "clustering_by_size": Case(ActivationClustering(verdict="size", reduction="pca", num_starts=10), True, True, False),
    "frequency_detector": Case(
        FrequencyDetector(false_positive_rate=0.1, num_epochs=2, width=4),
        False,
        False,
        True,
        num_calibration=125,
        false_positive_rate=0.1,
    ),
    "strip": Case(
        Strip(false_positive_rate=0.1, num_overlays=10),
        True,
        False,
        True,
        num_calibration=250,
        false_positive_rate=0.1,
    ),
}


@cache
def pictures() -> tuple[Examples, Examples]:
    """800 digits to audit and 500 clean ones."""
    dataset = Digits().load(None, torch.device("cpu"))
    train, test = (
        Examples(F.interpolate(part.inputs, size=(16, 16), mode="bilinear"), part.labels)
        for part in (dataset.train, dataset.test)
    )
    return train.subset(torch.arange(800)), test


@cache
def trained_model() -> AuditedModel:
    """A model of the digits; tests must not change it."""
    torch.manual_seed(0)
    fresh = AuditedModel(SmallCNN(channels=(4, 8), hidden_size=32).build((1, 16, 16), 10), lambda one: 3 * one - 1)
    return retrain(fresh, pictures()[0], TRAINING, torch.Generator().manual_seed(0))
