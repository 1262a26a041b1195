"""Aggregation rules: from the clients' updates to the one that the server applies."""

from fedrobust.aggregators.base import Aggregate, Aggregator, RoundContext, UnsuitableSizeError
from fedrobust.aggregators.bulyan import Bulyan
from fedrobust.aggregators.centred_clipping import CentredClipping
from fedrobust.aggregators.coordinate_median import CoordinateMedian
from fedrobust.aggregators.dnc import DnC
from fedrobust.aggregators.fl_trust import FLTrust
from fedrobust.aggregators.flame import Flame
from fedrobust.aggregators.fools_gold import FoolsGold
from fedrobust.aggregators.geometric_median import GeometricMedian
from fedrobust.aggregators.krum import Krum, MultiKrum
from fedrobust.aggregators.mda import MDA
from fedrobust.aggregators.meamed import Meamed
from fedrobust.aggregators.mean import Mean
from fedrobust.aggregators.no_regret_filter import NoRegretFilter
from fedrobust.aggregators.norm_clipping import NormClipping
from fedrobust.aggregators.randomised_sever import RandomisedSever
from fedrobust.aggregators.robust_learning_rate import RobustLearningRate
from fedrobust.aggregators.sever import Sever
from fedrobust.aggregators.sign_guard import SignGuard
from fedrobust.aggregators.sign_majority import SignMajority
from fedrobust.aggregators.spectral_filter import SpectralFilter
from fedrobust.aggregators.trimmed_mean import TrimmedMean
from fedrobust.filters.filtering import assumed_count

RULES: tuple[type, ...] = (
    Bulyan,
    CentredClipping,
    CoordinateMedian,
    DnC,
    FLTrust,
    Flame,
    FoolsGold,
    GeometricMedian,
    Krum,
    MDA,
    Meamed,
    Mean,
    MultiKrum,
    NoRegretFilter,
    NormClipping,
    RandomisedSever,
    RobustLearningRate,
    Sever,
    SignGuard,
    SignMajority,
    SpectralFilter,
    TrimmedMean,
)
"""Every rule that there is."""

__all__ = [
    "MDA",
    "RULES",
    "Aggregate",
    "Aggregator",
    "Bulyan",
    "CentredClipping",
    "CoordinateMedian",
    "DnC",
    "FLTrust",
    "Flame",
    "FoolsGold",
    "GeometricMedian",
    "Krum",
    "Meamed",
    "Mean",
    "MultiKrum",
    "NoRegretFilter",
    "NormClipping",
    "RandomisedSever",
    "RobustLearningRate",
    "RoundContext",
    "Sever",
    "SignGuard",
    "SignMajority",
    "SpectralFilter",
    "TrimmedMean",
    "UnsuitableSizeError",
    "assumed_count",
]
