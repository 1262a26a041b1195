"""What the fourth-moment statistics of a whitened *clean* Gaussian sample look like at a given n and d.

Whitening by the sample's own second moment makes these statistics pivotal: whatever the true covariance, they have one
law for each (n, d), which is simulated here once.
"""

import math
from dataclasses import dataclass

import numpy as np
import scipy.stats
import torch
from torch import Tensor

from fedrobust._linalg.symmetric_operator import squared_norms, top_polynomials
from fedrobust._linalg.whitening import second_moment, whiten
from fedrobust.seeds import torch_generator
from fedrobust.statistics.progress import Report, no_report

NULL_TOLERANCE = 1e-2
"""Of the residual, relative: how far Lanczos goes, in the simulation and where the filter decides whether to stop."""

FALSE_ALARM = 1e-3
"""The chance that a clean sample's statistic exceeds its limit."""

_MAX_REPLICATES = 200
_MIN_REPLICATES = 10
_WORK = 2e7
"""In n·d²: as many replicates as this allows, within those limits."""

_ENOUGH_FOR_SKEWNESS = 100
_EDGE_SKEWNESS = 0.29
"""That of the Tracy-Widom law, which the top eigenvalue of a large sample has."""

_LARGE = 10_000
_ROWS_DRAWN = 4096


@dataclass(frozen=True)
class NullSpectrum:
    """The law, under the null, of the two statistics that the covariance filter looks at.

    Attributes:
        num_samples: the n that was simulated.
        top_mean, top_limit: of ½ the largest second moment over all quadratic polynomials: its mean, and what it
            exceeds with probability 0.001.
        radial_limit: the same for the polynomial ‖y‖² - d alone, Mardia's kurtosis over its expectation.
    """

    num_samples: int
    top_mean: float
    top_limit: float
    radial_limit: float

    def top_mean_at(self, n: int) -> float:
        """`top_mean` for n points."""
        return self._edge_at(self.top_mean, n)

    def top_limit_at(self, n: int) -> float:
        """`top_limit` for n points."""
        return self._edge_at(self.top_limit, n)

    def radial_limit_at(self, n: int) -> float:
        """`radial_limit` for n points: its distance from 1 is a number of standard deviations."""
        return 1 + (self.radial_limit - 1) * math.sqrt(self.num_samples / n)

    def _edge_at(self, edge: float, n: int) -> float:
        # An edge of a sample covariance is (1 + √γ)² with γ in proportion to 1/n (Marchenko and Pastur, 1967). For
        # n larger than simulated this errs upwards, by some 3 % of the excess over 1 for tenfold n at d = 10.
        gamma = (max(edge, 1.0) ** 0.5 - 1) ** 2 * self.num_samples / n
        return float((1 + gamma**0.5) ** 2)


def top_limit_bound(n: int, d: int) -> float:
    """An upper bound on `top_limit`, without simulating: Marchenko and Pastur's edge with room for small samples.

    An envelope of the limits simulated for d from 1 to 40 and n from 10 (d + 1) to 20 d (d + 1).
    """
    ratio = d * (d + 1) / 2 / n
    return float(1 + 1.25 * (2 * ratio**0.5 + ratio) + (200 + 20 * d) / n + 8 / n**0.5)


def radial_statistic(squared_radii: Tensor, d: int) -> float:
    """½ the second moment of (‖y‖² - d)/√d: 1 for a large Gaussian sample of identity covariance."""
    return float((squared_radii - d).square().mean()) / (2 * d)


_remembered: dict[tuple[int, int, int, str], NullSpectrum] = {}
"""By (n, d, seed, device), for the life of the process; a few hundred bytes each."""


def simulated_null(n: int, d: int, *, seed: int = 0, device: str = "cpu", report: Report = no_report) -> NullSpectrum:
    """Simulate the null at (n, d), once in this process for each (n, d, seed).

    The limits are one-sided prediction limits from 10 to 200 simulated samples. Above the larger of 10,000 points and
    four to every unknown of the operator, d(d+1)/2, that many are simulated in place of n, and the result is carried
    over. Memory: one sample in float32. Time: as many top eigenpairs.

    Args:
        n: number of points, more than d.
        d: dimensions.
        seed: of the simulation.
        device: where it runs; the draws are the same on each.
        report: told how far it is.
    """
    simulated = min(n, max(_LARGE, 2 * d * (d + 1)))
    key = (simulated, d, seed, device)
    if key not in _remembered:
        _remembered[key] = _simulate(simulated, d, seed, device, report)
    return _remembered[key]


def _simulate(n: int, d: int, seed: int, device: str, report: Report) -> NullSpectrum:
    replicates = int(min(_MAX_REPLICATES, max(_MIN_REPLICATES, _WORK / (n * d * d))))
    sample = torch.empty(n, d, dtype=torch.float32, device=device)
    centre = torch.zeros(d, dtype=torch.float64, device=device)
    top, radial = [], []
    for replicate in range(replicates):
        report(f"null at n={n}, d={d}: sample {replicate + 1} of {replicates}", replicate / replicates)
        generator = torch_generator(seed, "null spectrum", n, d, replicate)
        for rows in sample.split(_ROWS_DRAWN):
            rows.copy_(torch.randn(rows.shape, generator=generator))
        factor = torch.linalg.cholesky(second_moment(sample, centre, None))
        whiten(sample, centre, None, factor, out=sample)
        top.append(top_polynomials(sample, tolerance=NULL_TOLERANCE)[0].second_moment)
        radial.append(radial_statistic(squared_norms(sample), d))
    return NullSpectrum(n, float(np.mean(top)), _prediction_limit(top), _prediction_limit(radial))


def _prediction_limit(values: list[float]) -> float:
    """What the next value exceeds with probability `FALSE_ALARM`: Student's limit, bent by the skewness."""
    count, spread = len(values), float(np.std(values, ddof=1))
    skewness = float(scipy.stats.skew(values)) if count >= _ENOUGH_FOR_SKEWNESS else _EDGE_SKEWNESS
    quantile = float(scipy.stats.t.isf(FALSE_ALARM, count - 1))
    quantile += skewness * (quantile**2 - 1) / 6  # Cornish and Fisher
    return float(np.mean(values)) + quantile * spread * math.sqrt(1 + 1 / count)
