"""The robust statistics that the rules rest on; they know nothing of clients or federations."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from fedrobust.statistics.covariance_filter import covariance_samples, filter_covariance
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
from fedrobust.statistics.lrv import lrv_mean
from fedrobust.statistics.mean_filter import filter_mean
from fedrobust.statistics.module_gradients import module_gradients
from fedrobust.statistics.one_dimension import (
    Gaussian,
    mad_sigma,
    median,
    median_bias,
    median_bias_bound,
    median_tail_bound,
    robust_gaussian_1d,
)
from fedrobust.statistics.order_statistics import mean_of_order_statistics
from fedrobust.statistics.results import CovarianceEstimate, Estimate, GaussianEstimate, Iteration, MeanEstimate
from fedrobust.statistics.rival_means import coordinate_median, geometric_median, pruned_mean, trimmed_mean
from fedrobust.statistics.robust_gaussian import gaussian_samples, robust_gaussian
from fedrobust.statistics.robust_gradient_descent import Descent, robust_gradient_descent
from fedrobust.statistics.soft_filter import soft_filter
from fedrobust.statistics.soft_mean import bounded_covariance_mean, covariance_agnostic_mean
from fedrobust.statistics.spectral import TopDirection, top_direction
from fedrobust.statistics.total_variation import (
    TotalVariation,
    gaussian_kl_divergence,
    gaussian_total_variation,
    gaussian_total_variation_1d,
    pinsker_bound,
)
from fedrobust.statistics.tukey_depth import (
    TukeyDepth,
    tukey_depth,
)
from fedrobust.statistics.tukey_median import (
    TukeyMedian,
    tukey_median,
)

if TYPE_CHECKING:
    from fedrobust.statistics.module_estimators import ModuleClassifier, ModuleRegressor
    from fedrobust.statistics.per_sample_gradients import GivesPerSampleGradients, KernelGradients, OuterGradients
    from fedrobust.statistics.sever import Sever

__all__ = [
    "CovarianceEstimate",
    "Descent",
    "Estimate",
    "Filtered",
    "Gaussian",
    "GaussianEstimate",
    "GivesPerSampleGradients",
    "Iteration",
    "KernelGradients",
    "MeanEstimate",
    "ModuleClassifier",
    "ModuleRegressor",
    "OuterGradients",
    "Sever",
    "TopDirection",
    "TotalVariation",
    "TukeyDepth",
    "TukeyMedian",
    "bounded_covariance_mean",
    "coordinate_median",
    "covariance_agnostic_mean",
    "covariance_samples",
    "filter_covariance",
    "filter_mean",
    "gaussian_kl_divergence",
    "gaussian_samples",
    "gaussian_total_variation",
    "gaussian_total_variation_1d",
    "geometric_median",
    "gram_matrix",
    "hard_filter",
    "lrv_mean",
    "mad_sigma",
    "mean_of_order_statistics",
    "median",
    "median_bias",
    "median_bias_bound",
    "median_tail_bound",
    "medoid_and_squared_radius",
    "module_gradients",
    "pinsker_bound",
    "pruned_mean",
    "recentre",
    "robust_gaussian",
    "robust_gaussian_1d",
    "robust_gradient_descent",
    "robust_gram_matrix",
    "soft_filter",
    "squared_distances",
    "top_direction",
    "trimmed_mean",
    "tukey_depth",
    "tukey_median",
    "weighted_combination",
]

_ON_SCIKIT_LEARN = {
    "GivesPerSampleGradients": "per_sample_gradients",
    "KernelGradients": "per_sample_gradients",
    "ModuleClassifier": "module_estimators",
    "ModuleRegressor": "module_estimators",
    "OuterGradients": "per_sample_gradients",
    "Sever": "sever",
}


def __getattr__(name: str) -> Any:
    """What builds on scikit-learn, whose import takes a second, is imported when it is first asked for."""
    if name not in _ON_SCIKIT_LEARN:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_ON_SCIKIT_LEARN[name]}"), name)
