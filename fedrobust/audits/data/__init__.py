"""Audits of data: which examples are poisoned, and in which classes."""

from fedrobust.audits.data.activation_clustering import ActivationClustering
from fedrobust.audits.data.frequency_detector import FrequencyDetector
from fedrobust.audits.data.frequency_network import TrainedFrequencyDetector
from fedrobust.audits.data.retraining import retrain
from fedrobust.audits.data.spectral_signatures import SpectralSignatures
from fedrobust.audits.data.strip import Strip

DATA_AUDITS: tuple[type, ...] = (ActivationClustering, FrequencyDetector, SpectralSignatures, Strip)
"""Every audit of data that there is."""

__all__ = [
    "DATA_AUDITS",
    "ActivationClustering",
    "FrequencyDetector",
    "SpectralSignatures",
    "Strip",
    "TrainedFrequencyDetector",
    "retrain",
]
