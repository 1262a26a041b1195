"""Tukey's median: a point of largest half-space depth.

Tukey, "Mathematics and the Picturing of Data", Proceedings of the International Congress of Mathematicians 1975;
Rousseeuw and Ruts, "Constructing the bivariate Tukey median", Statistica Sinica 1998,
https://www3.stat.sinica.edu.tw/statistica/j8n3/j8n39/j8n39.htm
"""

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import torch

from fedrobust._linalg.samples import Array
from fedrobust.filters.results import Estimate, Iteration
from fedrobust.statistics.depth.deepest_directions import deepest_along_directions
from fedrobust.statistics.depth.deepest_region import deepest_region, exact_count
from fedrobust.statistics.depth.tukey_depth import Floats, as_rows, check_directions, counts_on_a_line, float_rows

MAX_DIMENSION = 10


@dataclass(frozen=True, kw_only=True, eq=False)
class TukeyMedian(Estimate):
    """A Tukey median with its certificate.

    Attributes:
        median: `(d,)`, in the kind and precision of the input.
        depth: of the median, in [0, 1]; an upper bound on it where `is_exact` is false.
        max_depth: no point is deeper. The two are equal where `is_exact`.
        is_exact: whether the median is known to be a deepest point.
    """

    median: Array
    depth: float
    max_depth: float
    is_exact: bool


def tukey_median(
    x: Array, *, num_directions: int = 1000, seed: int = 0, allow_high_dimension: bool = False
) -> TukeyMedian:
    """A point whose smallest closed half-space holds the most data; the centroid of all of them up to d = 2.

    In one dimension the median; in two the centroid of the deepest region, exactly, in O(N² log N). Above, the point
    that is deepest along finitely many directions: normals of hyperplanes through d data, to which those are added
    along which the point found turns out shallow. No point is deeper than it is along them, which gives `max_depth`;
    along fresh directions it may be shallower, which gives `depth`.

    With a part ε corrupted the bias for a Gaussian of covariance Σ is at most Φ⁻¹(½ + ε/(1 - ε)) in Σ^{-½}, whatever d,
    for the exact median. Affine equivariant; above d = 2 up to what the search misses. Breakdown point: at least
    1/(d + 1), and near 1/3 for a symmetric law.

    Args:
        x: `(N, d)`, or `(N,)` in one dimension; N > d where d > 2.
        num_directions: how many random directions to begin with, and for the certificate; not used up to d = 2.
        seed: of the directions; not used up to d = 2.
        allow_high_dimension: whether d > 10 is taken.

    Returns:
        With d = 2 and a region that is a single point or a segment, `depth` is that of the point before it was rounded
        to the input's precision; `details["depth_as_rounded"]` is what is left of it after.

    Raises:
        ValueError: another rank, no row, NaN or infinity, too few data or directions, d > 10 without leave.

    Source: Tukey, 1975; the region: Ruts and Rousseeuw, Computational Statistics & Data Analysis 1996,
    https://doi.org/10.1016/S0167-9473(96)00027-8; the bias: Chen, Gao and Ren, "Robust covariance and scatter matrix
    estimation under Huber's contamination model", Annals of Statistics 2018, https://doi.org/10.1214/17-AOS1607
    Departs: every half-plane is counted at once instead of walking along one depth contour; above two dimensions a
    linear program over directions takes the place of an exact search, which costs O(N^{d-1}).
    """
    sample = as_rows(x, "x")
    data = float_rows(sample)
    n, d = data.shape
    if d > MAX_DIMENSION and not allow_high_dimension:
        raise ValueError(
            f"x has d={d} dimensions, more than {MAX_DIMENSION}: random directions then hardly ever come near the "
            "half-space that cuts off least, so a shallow point can look deep, and neither the median nor its "
            "certificate can be relied on; allow_high_dimension=True computes them all the same"
        )
    iterations: tuple[Iteration, ...] = ()
    details: dict[str, float] = {}
    if d == 1:
        ordered = np.sort(data[:, 0])
        median = np.array([ordered[(n - 1) // 2] / 2 + ordered[n // 2] / 2])
        depth = max_depth = int(counts_on_a_line(median, ordered)[0])
    elif d == 2:
        region = deepest_region(data)
        median = np.array(_centroid(region.vertices))
        as_rounded = torch.from_numpy(median).to(sample.points.dtype).double().tolist()
        rounded = exact_count((Fraction(as_rounded[0]), Fraction(as_rounded[1])), data)
        details["depth_as_rounded"] = rounded / n
        depth, max_depth = max(rounded, exact_count(_middle(region.vertices), data)), region.count
    else:
        check_directions(n, d, num_directions)
        found = deepest_along_directions(data, num_directions, seed)
        median, depth, max_depth = found.point, found.count, found.max_count
        iterations = tuple(
            Iteration(statistic=shallowest / n, threshold=aim / n, removed=0.0) for shallowest, aim in found.rounds
        )
    restored = sample.restore(torch.from_numpy(median).to(sample.points.dtype))
    exact = d <= 2 and depth == max_depth
    return TukeyMedian(
        method="Tukey median" if exact else f"Tukey median, approximate ({num_directions} directions)",
        iterations=iterations,
        details={"depth": depth / n, "max_depth": max_depth / n, **details},
        median=restored,
        depth=depth / n,
        max_depth=max_depth / n,
        is_exact=exact,
    )


def _middle(vertices: tuple[tuple[Fraction, Fraction], ...]) -> tuple[Fraction, Fraction]:
    """A point of the region, exactly: between its first vertex and the one half-way round."""
    one, other = vertices[0], vertices[len(vertices) // 2]
    return (one[0] + other[0]) / 2, (one[1] + other[1]) / 2


def _centroid(vertices: tuple[tuple[Fraction, Fraction], ...]) -> tuple[float, float]:
    """The centroid of a convex polygon, a segment or a point, rounded."""
    if len(vertices) <= 2:
        x, y = _middle(vertices)
        return float(x), float(y)
    origin = vertices[0]
    corners: Floats = np.array([[float(x - origin[0]), float(y - origin[1])] for x, y in vertices])
    corners /= (scale := float(np.abs(corners).max()))
    following = np.roll(corners, -1, axis=0)
    areas = corners[:, 0] * following[:, 1] - following[:, 0] * corners[:, 1]
    if not areas.sum() > 0:  # thinner than floating point can see
        x, y = _middle(vertices)
        return float(x), float(y)
    x, y = scale * (areas[:, None] * (corners + following)).sum(axis=0) / (3 * areas.sum())
    return float(origin[0] + Fraction(float(x))), float(origin[1] + Fraction(float(y)))
