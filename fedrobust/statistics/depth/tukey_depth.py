"""Tukey's half-space depth: the smallest part of the data in a closed half-space that holds the point.

Tukey, "Mathematics and the Picturing of Data", Proceedings of the International Congress of Mathematicians 1975;
Rousseeuw and Ruts, "Algorithm AS 307: Bivariate Location Depth", Applied Statistics 1996,
https://doi.org/10.2307/2986073
"""

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from fedrobust._linalg.samples import Array, Samples, as_samples
from fedrobust.filters.results import Estimate
from fedrobust.seeds import numpy_generator

Floats: TypeAlias = NDArray[np.float64]
Counts: TypeAlias = NDArray[np.int64]

CHUNK_NUMBERS = 1 << 20
ROUNDING = 1e-14
"""Relative; two projections this close are equal."""


@dataclass(frozen=True, kw_only=True, eq=False)
class TukeyDepth(Estimate):
    """Depths.

    Attributes:
        depth: `(M,)` in [0, 1], in the kind and precision of the points: exact, or an upper bound.
        is_exact: whether `depth` is exact.
    """

    depth: Array
    is_exact: bool


def tukey_depth(points: Array, data: Array, *, num_directions: int = 1000, seed: int = 0) -> TukeyDepth:
    """The depth of each point: the minimum over directions u of the part of the data with ⟨u, x⟩ >= ⟨u, point⟩.

    In one dimension by counting, in two by sorting angles about the point, O(N log N) a point: exact, up to the
    rounding of the differences to float64. Above, the minimum over the normals of hyperplanes through d random data
    points, both sides of each: an upper bound on the depth, affine invariant like the depth itself. Few of the
    half-spaces that matter are among them when d is large, so the bound grows loose with d.

    Args:
        points: `(M, d)`, or `(M,)` in one dimension.
        data: `(N, d)`, or `(N,)`; N > d where d > 2.
        num_directions: how many hyperplanes; not used up to d = 2.
        seed: of the hyperplanes; not used up to d = 2.

    Raises:
        ValueError: another rank, no row, NaN or infinity, dimensions that differ, too few data or directions.

    Source: Tukey, 1975; for two dimensions Rousseeuw and Ruts, Applied Statistics 1996,
    https://doi.org/10.2307/2986073; the directions: Rousseeuw and Struyf, "Computing location depth and regression
    depth in higher dimensions", Statistics and Computing 1998, https://doi.org/10.1023/A:1008945009397
    Departs: divides by N; points that coincide with the query count in every half-space, as the definition says.
    """
    queries, sample = as_rows(points, "points"), as_rows(data, "data")
    where, among = float_rows(queries), float_rows(sample)
    n, d = among.shape
    if where.shape[1] != d:
        raise ValueError(f"points must have as many columns as data, got {where.shape[1]} and {d}")
    if d == 1:
        counts = counts_on_a_line(where[:, 0], among[:, 0])
    elif d == 2:
        counts = counts_in_the_plane(where, among)
    else:
        check_directions(n, d, num_directions)
        normals = hyperplane_normals(among, num_directions, numpy_generator(seed, "tukey_depth"))
        counts = counts_along(normals, where, among)
    depth = queries.restore(torch.from_numpy(counts / n).to(queries.points.dtype))
    method = "Tukey depth" if d <= 2 else f"Tukey depth, upper bound by {num_directions} directions"
    return TukeyDepth(method=method, depth=depth, is_exact=d <= 2)


def as_rows(x: Array, name: str) -> Samples:
    """A checked sample of shape `(N, d)`, or `(N,)` for one dimension."""
    rank = x.ndim if hasattr(x, "ndim") else np.ndim(x)
    return as_samples(x, name=name, num_dimensions=1 if rank == 1 else 2)


def float_rows(samples: Samples) -> Floats:
    """The points as `(N, d)` float64 on the CPU."""
    values: Floats = samples.points.double().cpu().numpy()
    return values.reshape(len(values), -1)


def check_directions(n: int, d: int, num_directions: int) -> None:
    """Raise `ValueError` where no hyperplane through d of n points can be drawn, or none is asked for."""
    if n <= d:
        raise ValueError(f"data in {d} dimensions must have more than {d} rows, got {n}")
    if num_directions < 1:
        raise ValueError(f"num_directions must be at least 1, got {num_directions}")


def counts_on_a_line(points: Floats, data: Floats) -> Counts:
    """Depth times N in one dimension, `(M,)`."""
    ordered = np.sort(data)
    at_most = np.searchsorted(ordered, points, side="right")
    less = np.searchsorted(ordered, points, side="left")
    return np.minimum(at_most, len(ordered) - less)


def counts_in_the_plane(points: Floats, data: Floats) -> Counts:
    """Depth times N in two dimensions, `(M,)`."""
    counts = np.empty(len(points), dtype=np.int64)
    chunk = max(1, CHUNK_NUMBERS // len(data))
    for start in range(0, len(points), chunk):
        differences = data[None] - points[start : start + chunk, None]
        counts[start : start + chunk] = smallest_half_planes(differences[..., 0], differences[..., 1])
    return counts


def smallest_half_planes(dx: NDArray[Any], dy: NDArray[Any]) -> Counts:
    """For each row of vectors the smallest number in a closed half-plane with the origin on its boundary, `(M,)`.

    A line through the origin turns half round. As it passes a vector, one of its sides gains it or loses it: a vector
    above the axis leaves the left side and one below enters it. The smaller side between two vectors counts; a line
    through a vector can be turned a little so that the half-plane is rid of it.

    Args:
        dx: `(M, N)`: float64, or object (`Fraction`), for which the answer is exact.
        dy: `(M, N)`.
    """
    above = (dy > 0) | ((dy == 0) & (dx > 0))
    below = (dy < 0) | ((dy == 0) & (dx < 0))
    signs = above.astype(np.int64) - below
    slopes = line_slopes(dx, dy)
    order = np.argsort(slopes, axis=1)
    slopes = np.take_along_axis(slopes, order, axis=1)
    passed = np.take_along_axis(signs, order, axis=1).cumsum(axis=1)
    # Vectors on one line are passed together: only what stands after the last of them exists.
    passed[:, :-1][slopes[:, :-1] == slopes[:, 1:]] = 0
    left, right = above.sum(axis=1), below.sum(axis=1)
    smallest = np.minimum(left - passed.max(axis=1).clip(0), right + passed.min(axis=1).clip(max=0))
    counts: Counts = smallest + dx.shape[1] - left - right
    return counts


def line_slopes(dx: NDArray[Any], dy: NDArray[Any]) -> NDArray[Any]:
    """-cot of each vector's angle, in which the lines through the origin are ordered as they turn from the x-axis on.

    A vector and its multiples, negative ones too, give the same number: the quotient is rounded once.
    """
    horizontal = dy == 0
    with np.errstate(over="ignore"):
        slopes = -dx / np.where(horizontal, dy + 1, dy)
    slopes[horizontal] = -np.inf
    return slopes


def hyperplane_normals(data: Floats, num_directions: int, generator: np.random.Generator) -> Floats:
    """Unit normals of hyperplanes through d random data points each, `(num_directions, d)`."""
    n, d = data.shape
    chosen = np.empty((num_directions, d), dtype=np.int64)
    for column, last in enumerate(range(n - d, n)):  # Floyd's algorithm: d different rows, each set equally likely
        drawn = generator.integers(0, last + 1, size=num_directions)
        seen = (chosen[:, :column] == drawn[:, None]).any(axis=1)
        chosen[:, column] = np.where(seen, last, drawn)
    edges = data[chosen[:, 1:]] - data[chosen[:, :1]]
    normals: Floats = np.linalg.svd(edges)[2][:, -1]
    return normals


def counts_along(normals: Floats, points: Floats, data: Floats) -> Counts:
    """The smallest number of data on either side of each point along the normals, level ones included, `(M,)`."""
    n = len(data)
    centre = np.median(data, axis=0)
    counts = np.full(len(points), n)
    chunk = max(1, CHUNK_NUMBERS // max(n, len(points)))
    for start in range(0, len(normals), chunk):
        some = normals[start : start + chunk]
        projected = np.sort(some @ (data - centre).T, axis=1)
        queries = some @ (points - centre).T
        # A datum is level with itself, however the two products were rounded. Too large a count is still a bound.
        slack = ROUNDING * data.shape[1] * np.maximum(np.abs(projected[:, 0]), np.abs(projected[:, -1]))
        for row, query, margin in zip(projected, queries, slack, strict=True):
            at_least = n - np.searchsorted(row, query - margin, side="left")
            at_most = np.searchsorted(row, query + margin, side="right")
            np.minimum(counts, np.minimum(at_least, at_most), out=counts)
    return counts
