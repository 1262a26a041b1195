"""Audits: what poison leaves behind in data and in models, and how to find it."""

from fedrobust.audits.audited_model import AuditedModel
from fedrobust.audits.base import ClassVerdict, DataAudit, DataReport, ModelAudit, ModelReport
from fedrobust.audits.clients import ClientAudit, Reputation, RuleScores, UpdateClustering
from fedrobust.audits.data import (
    DATA_AUDITS,
    ActivationClustering,
    FrequencyDetector,
    SpectralSignatures,
    Strip,
    TrainedFrequencyDetector,
)
from fedrobust.audits.model import NeuralCleanse, TriggerInversion, Unlearning
from fedrobust.audits.plan import AuditPlan

__all__ = [
    "DATA_AUDITS",
    "ActivationClustering",
    "AuditPlan",
    "AuditedModel",
    "ClassVerdict",
    "ClientAudit",
    "DataAudit",
    "DataReport",
    "FrequencyDetector",
    "ModelAudit",
    "ModelReport",
    "NeuralCleanse",
    "Reputation",
    "RuleScores",
    "SpectralSignatures",
    "Strip",
    "TrainedFrequencyDetector",
    "TriggerInversion",
    "Unlearning",
    "UpdateClustering",
]
