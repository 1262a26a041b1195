"""The robust statistics of the lectures: means, covariances, Gaussians, depth, SEVER.

They know nothing of clients or federations. Each is imported when it is first asked for: SciPy's and scikit-learn's
imports take seconds, and most users need one of them or none.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fedrobust._linalg.gram import gram_matrix as gram_matrix
    from fedrobust._linalg.gram import medoid_and_squared_radius as medoid_and_squared_radius
    from fedrobust._linalg.gram import recentre as recentre
    from fedrobust._linalg.gram import robust_gram_matrix as robust_gram_matrix
    from fedrobust._linalg.gram import squared_distances as squared_distances
    from fedrobust._linalg.gram import weighted_combination as weighted_combination
    from fedrobust._linalg.order_statistics import mean_of_order_statistics as mean_of_order_statistics
    from fedrobust._linalg.spectral import TopDirection as TopDirection
    from fedrobust._linalg.spectral import top_direction as top_direction
    from fedrobust.filters.filtering import Filtered as Filtered
    from fedrobust.filters.hard_filter import hard_filter as hard_filter
    from fedrobust.filters.results import CovarianceEstimate as CovarianceEstimate
    from fedrobust.filters.results import Estimate as Estimate
    from fedrobust.filters.results import GaussianEstimate as GaussianEstimate
    from fedrobust.filters.results import Iteration as Iteration
    from fedrobust.filters.results import MeanEstimate as MeanEstimate
    from fedrobust.filters.soft_filter import soft_filter as soft_filter
    from fedrobust.statistics.depth.tukey_depth import TukeyDepth as TukeyDepth
    from fedrobust.statistics.depth.tukey_depth import tukey_depth as tukey_depth
    from fedrobust.statistics.depth.tukey_median import TukeyMedian as TukeyMedian
    from fedrobust.statistics.depth.tukey_median import tukey_median as tukey_median
    from fedrobust.statistics.gaussian.one_dimension import Gaussian as Gaussian
    from fedrobust.statistics.gaussian.one_dimension import mad_sigma as mad_sigma
    from fedrobust.statistics.gaussian.one_dimension import median as median
    from fedrobust.statistics.gaussian.one_dimension import median_bias as median_bias
    from fedrobust.statistics.gaussian.one_dimension import median_bias_bound as median_bias_bound
    from fedrobust.statistics.gaussian.one_dimension import median_tail_bound as median_tail_bound
    from fedrobust.statistics.gaussian.one_dimension import robust_gaussian_1d as robust_gaussian_1d
    from fedrobust.statistics.gaussian.robust_gaussian import gaussian_samples as gaussian_samples
    from fedrobust.statistics.gaussian.robust_gaussian import robust_gaussian as robust_gaussian
    from fedrobust.statistics.gaussian.total_variation import TotalVariation as TotalVariation
    from fedrobust.statistics.gaussian.total_variation import gaussian_kl_divergence as gaussian_kl_divergence
    from fedrobust.statistics.gaussian.total_variation import gaussian_total_variation as gaussian_total_variation
    from fedrobust.statistics.gaussian.total_variation import gaussian_total_variation_1d as gaussian_total_variation_1d
    from fedrobust.statistics.gaussian.total_variation import pinsker_bound as pinsker_bound
    from fedrobust.statistics.moments.covariance_filter import covariance_samples as covariance_samples
    from fedrobust.statistics.moments.covariance_filter import filter_covariance as filter_covariance
    from fedrobust.statistics.moments.lrv import lrv_mean as lrv_mean
    from fedrobust.statistics.moments.mean_filter import filter_mean as filter_mean
    from fedrobust.statistics.moments.rival_means import coordinate_median as coordinate_median
    from fedrobust.statistics.moments.rival_means import geometric_median as geometric_median
    from fedrobust.statistics.moments.rival_means import pruned_mean as pruned_mean
    from fedrobust.statistics.moments.rival_means import trimmed_mean as trimmed_mean
    from fedrobust.statistics.moments.soft_mean import bounded_covariance_mean as bounded_covariance_mean
    from fedrobust.statistics.moments.soft_mean import covariance_agnostic_mean as covariance_agnostic_mean
    from fedrobust.statistics.sever.module_estimators import ModuleClassifier as ModuleClassifier
    from fedrobust.statistics.sever.module_estimators import ModuleRegressor as ModuleRegressor
    from fedrobust.statistics.sever.module_gradients import module_gradients as module_gradients
    from fedrobust.statistics.sever.per_sample_gradients import GivesPerSampleGradients as GivesPerSampleGradients
    from fedrobust.statistics.sever.per_sample_gradients import KernelGradients as KernelGradients
    from fedrobust.statistics.sever.per_sample_gradients import OuterGradients as OuterGradients
    from fedrobust.statistics.sever.sever import Sever as Sever
    from fedrobust.training.robust_gradient_descent import Descent as Descent
    from fedrobust.training.robust_gradient_descent import robust_gradient_descent as robust_gradient_descent

_HOME = {
    "_linalg.gram": (
        "gram_matrix",
        "medoid_and_squared_radius",
        "recentre",
        "robust_gram_matrix",
        "squared_distances",
        "weighted_combination",
    ),
    "_linalg.order_statistics": ("mean_of_order_statistics",),
    "_linalg.spectral": (
        "TopDirection",
        "top_direction",
    ),
    "filters.filtering": ("Filtered",),
    "filters.hard_filter": ("hard_filter",),
    "filters.results": (
        "CovarianceEstimate",
        "Estimate",
        "GaussianEstimate",
        "Iteration",
        "MeanEstimate",
    ),
    "filters.soft_filter": ("soft_filter",),
    "statistics.depth.tukey_depth": (
        "TukeyDepth",
        "tukey_depth",
    ),
    "statistics.depth.tukey_median": (
        "TukeyMedian",
        "tukey_median",
    ),
    "statistics.gaussian.one_dimension": (
        "Gaussian",
        "mad_sigma",
        "median",
        "median_bias",
        "median_bias_bound",
        "median_tail_bound",
        "robust_gaussian_1d",
    ),
    "statistics.gaussian.robust_gaussian": (
        "gaussian_samples",
        "robust_gaussian",
    ),
    "statistics.gaussian.total_variation": (
        "TotalVariation",
        "gaussian_kl_divergence",
        "gaussian_total_variation",
        "gaussian_total_variation_1d",
        "pinsker_bound",
    ),
    "statistics.moments.covariance_filter": (
        "covariance_samples",
        "filter_covariance",
    ),
    "statistics.moments.lrv": ("lrv_mean",),
    "statistics.moments.mean_filter": ("filter_mean",),
    "statistics.moments.rival_means": (
        "coordinate_median",
        "geometric_median",
        "pruned_mean",
        "trimmed_mean",
    ),
    "statistics.moments.soft_mean": (
        "bounded_covariance_mean",
        "covariance_agnostic_mean",
    ),
    "statistics.sever.module_estimators": (
        "ModuleClassifier",
        "ModuleRegressor",
    ),
    "statistics.sever.module_gradients": ("module_gradients",),
    "statistics.sever.per_sample_gradients": (
        "GivesPerSampleGradients",
        "KernelGradients",
        "OuterGradients",
    ),
    "statistics.sever.sever": ("Sever",),
    "training.robust_gradient_descent": (
        "Descent",
        "robust_gradient_descent",
    ),
}
_MODULE = {name: module for module, names in _HOME.items() for name in names}

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


def __getattr__(name: str) -> Any:
    """Import what is asked for from where it is defined."""
    if name not in _MODULE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"fedrobust.{_MODULE[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULE})
