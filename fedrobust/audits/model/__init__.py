"""Audits of models: what a backdoor leaves behind in the weights."""

from fedrobust.audits.model.anomaly_index import anomaly_index
from fedrobust.audits.model.neural_cleanse import NeuralCleanse, NeuralCleanseReport
from fedrobust.audits.model.trigger_inversion import InvertedTriggers, TriggerInversion
from fedrobust.audits.model.unlearning import Unlearning
from fedrobust.audits.model.watermark_ownership import OwnershipReport, WatermarkOwnership
from fedrobust.audits.model.weight_hash import WeightCheck, WeightHash

__all__ = [
    "InvertedTriggers",
    "NeuralCleanse",
    "NeuralCleanseReport",
    "OwnershipReport",
    "TriggerInversion",
    "Unlearning",
    "WatermarkOwnership",
    "WeightCheck",
    "WeightHash",
    "anomaly_index",
]
