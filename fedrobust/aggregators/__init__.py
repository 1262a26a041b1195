"""Aggregation rules: from the clients' updates to the one that the server applies."""

from fedrobust.aggregators.base import Aggregate, Aggregator, assumed_count
from fedrobust.aggregators.coordinate_median import CoordinateMedian
from fedrobust.aggregators.mean import Mean
from fedrobust.aggregators.sever import Sever
from fedrobust.aggregators.spectral_filter import SpectralFilter
from fedrobust.aggregators.trimmed_mean import TrimmedMean

__all__ = [
    "Aggregate",
    "Aggregator",
    "CoordinateMedian",
    "Mean",
    "Sever",
    "SpectralFilter",
    "TrimmedMean",
    "assumed_count",
]
