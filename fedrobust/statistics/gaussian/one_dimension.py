"""Robust estimates in one dimension: the median, the spread from the median absolute deviation, and their bounds.

Huber and Ronchetti, "Robust Statistics", Wiley 2009; Diakonikolas and Kane, "Algorithmic High-Dimensional Robust
Statistics", Cambridge University Press 2023, chapter 1, https://sites.google.com/view/ars-book
"""

import math
from dataclasses import dataclass

from scipy.special import ndtr, ndtri
from torch import Tensor

from fedrobust._linalg.samples import Array, as_samples, check_contamination

_QUARTILE = float(ndtri(0.75))
"""Φ⁻¹(3/4) = 0.6745: the median absolute deviation of a standard Gaussian."""


@dataclass(frozen=True)
class Gaussian:
    """A Gaussian in one dimension.

    Attributes:
        mean: finite.
        sigma: the standard deviation, in the units of the mean; 0 is a point mass.

    Raises:
        ValueError: a mean that is not finite, a sigma that is negative or not finite.
    """

    mean: float
    sigma: float

    def __post_init__(self) -> None:
        if not math.isfinite(self.mean):
            raise ValueError(f"mean must be finite, got {self.mean}")
        if not (math.isfinite(self.sigma) and self.sigma >= 0):
            raise ValueError(f"sigma must be finite and at least 0, got {self.sigma}")

    def summary(self) -> str:
        """A line for people."""
        return f"Gaussian: mean {self.mean:.6g}, sigma {self.sigma:.6g}"


def median(x: Array) -> float:
    """The median, for an even number of values the midpoint of the two middle ones.

    (`torch.median` would return the lower of the two.)

    Args:
        x: `(N,)`, N >= 1.

    Raises:
        ValueError: another rank, no value, NaN or infinity.

    Departs: nothing.
    """
    return _median(as_samples(x, num_dimensions=1).points)


def mad_sigma(x: Array) -> float:
    """The standard deviation of a Gaussian from the median absolute deviation: median |xᵢ - median(x)| / Φ⁻¹(3/4).

    Exactly 0.0 where more than half of the values are equal: whoever divides by it must look first.

    Args:
        x: `(N,)`, N >= 1.

    Raises:
        ValueError: another rank, no value, NaN or infinity.

    Source: Hampel, "The influence curve and its role in robust estimation", JASA 1974,
    https://doi.org/10.1080/01621459.1974.10482962
    Departs: nothing. Consistent for the Gaussian, without a correction for small samples.
    """
    return _mad_sigma(as_samples(x, num_dimensions=1).points)


def robust_gaussian_1d(x: Array) -> Gaussian:
    """The Gaussian with the median as its mean and the scaled median absolute deviation as its sigma.

    With a part ε of the sample corrupted, mean and sigma err by O(ε)σ, so it is within O(ε) in total variation.

    Args:
        x: `(N,)`, N >= 1. One value, or more than half of them equal, give sigma = 0.

    Raises:
        ValueError: another rank, no value, NaN or infinity.

    Source: Diakonikolas and Kane, "Algorithmic High-Dimensional Robust Statistics", Cambridge University Press 2023,
    section 1.3, https://sites.google.com/view/ars-book
    Departs: nothing.
    """
    points = as_samples(x, num_dimensions=1).points
    return Gaussian(_median(points), _mad_sigma(points))


def median_bias(contamination: float) -> float:
    """How far, in σ, a part ε of far values on one side moves the median of a Gaussian: Φ⁻¹(1 / (2(1 - ε))).

    That is the largest bias that any ε-contamination can cause, in the limit of many samples: half of all mass is then
    1 / (2(1 - ε)) of the Gaussian's.

    Raises:
        ValueError: `contamination` outside [0, ½).

    Source: Huber, "Robust Estimation of a Location Parameter", Annals of Mathematical Statistics 1964,
    https://doi.org/10.1214/aoms/1177703732
    Departs: nothing.
    """
    return float(ndtri(1 / (2 * (1 - check_contamination(contamination)))))


def median_bias_bound(contamination: float) -> float:
    """The simpler, looser bound Φ⁻¹(½ + ε) on the bias of the median, in σ.

    It also holds where the ε-part replaces points of the adversary's choice, instead of being mixed in.

    Raises:
        ValueError: `contamination` outside [0, ½).

    Source: Diakonikolas and Kane, "Algorithmic High-Dimensional Robust Statistics", Cambridge University Press 2023,
    section 1.3, https://sites.google.com/view/ars-book
    Departs: nothing.
    """
    return float(ndtri(0.5 + check_contamination(contamination)))


def median_tail_bound(num_samples: int, contamination: float, t: float) -> float:
    """A bound on Pr[|median - μ| > tσ]: 2 exp(-2n (Φ(t) - ½ - ε)²), at most 1.

    Hoeffding's inequality for the number of the n clean values beyond t, of which (½ - ε)n would have to lie there.
    Where Φ(t) <= ½ + ε the adversary alone can do it, and the bound is 1.

    Args:
        num_samples: n >= 1.
        contamination: ε, the part of the sample that the adversary replaced.
        t: in σ, at least 0.

    Raises:
        ValueError: an argument out of its range.

    Source: Hoeffding, JASA 1963, https://doi.org/10.1080/01621459.1963.10500830; Diakonikolas and Kane, "Algorithmic
    High-Dimensional Robust Statistics", Cambridge University Press 2023, section 1.3,
    https://sites.google.com/view/ars-book
    Departs: nothing.
    """
    epsilon = check_contamination(contamination)
    if num_samples < 1:
        raise ValueError(f"num_samples must be at least 1, got {num_samples}")
    if not t >= 0:
        raise ValueError(f"t must be at least 0, got {t}")
    margin = float(ndtr(t)) - 0.5 - epsilon
    return min(1.0, 2 * math.exp(-2 * num_samples * margin**2)) if margin > 0 else 1.0


def _median(points: Tensor) -> float:
    ordered = points.double().sort().values
    n = len(ordered)
    lower, upper = float(ordered[(n - 1) // 2]), float(ordered[n // 2])
    return lower if lower == upper else lower / 2 + upper / 2  # the sum could overflow


def _mad_sigma(points: Tensor) -> float:
    values = points.double()
    return _median((values - _median(values)).abs()) / _QUARTILE
