"""The robust statistics that the rules rest on; they know nothing of clients or federations."""

from fedrobust.statistics.filtering import Filtered
from fedrobust.statistics.gram import (
    gram_matrix,
    medoid_and_squared_radius,
    recentre,
    robust_gram_matrix,
    squared_distances,
    weighted_combination,
)
from fedrobust.statistics.hard_filter import hard_filter
from fedrobust.statistics.order_statistics import mean_of_order_statistics
from fedrobust.statistics.soft_filter import soft_filter
from fedrobust.statistics.spectral import TopDirection, top_direction

__all__ = [
    "Filtered",
    "TopDirection",
    "gram_matrix",
    "hard_filter",
    "mean_of_order_statistics",
    "medoid_and_squared_radius",
    "recentre",
    "robust_gram_matrix",
    "soft_filter",
    "squared_distances",
    "top_direction",
    "weighted_combination",
]
