"""The region of largest Tukey depth in the plane, by exact arithmetic.

The points of depth k/N and more are the intersection of the closed half-planes that leave fewer than k data outside.
Those bounded by a line through two data suffice (Ruts and Rousseeuw, "Computing depth contours of bivariate point
clouds", Computational Statistics & Data Analysis 1996, https://doi.org/10.1016/S0167-9473(96)00027-8).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fedrobust.statistics.depth.tukey_depth import (
    Counts,
    Floats,
    counts_in_the_plane,
    counts_on_a_line,
    line_slopes,
    smallest_half_planes,
)

Exact: TypeAlias = tuple[Fraction, Fraction]

_CLEARLY = 1e-9
"""Part of the data's spread by which floating point must place a region inside a half-plane to be believed."""

_NUM_CANDIDATES = 200


@dataclass(frozen=True)
class DeepestRegion:
    """A convex polygon, a segment or a point.

    Attributes:
        vertices: in order, exact.
        count: N times the depth of its points: nothing is deeper.
    """

    vertices: tuple[Exact, ...]
    count: int


def deepest_region(data: Floats) -> DeepestRegion:
    """All points of largest depth among `data` `(N, 2)`, in O(N² log N) time.

    The lines through two data are counted by sorting angles about each datum; the largest k whose half-planes have a
    point in common is found by bisection. Floating point only discards half-planes that cannot matter; what cuts the
    region is computed in rational numbers, for a deepest region is often a single point, which rounding would lose.
    """
    rows, multiplicity = np.unique(data, axis=0, return_counts=True)
    differences = rows - rows[0]
    if len(np.unique(line_slopes(differences[1:, 0], differences[1:, 1]))) <= 1:  # all on one line, in order along it
        places = np.repeat(np.arange(len(rows)), multiplicity)
        lower, upper = places[(len(places) - 1) // 2], places[len(places) // 2]
        ends = tuple(_exact(row) for row in rows[sorted({int(lower), int(upper)})])
        middle = np.array([(lower + upper) / 2])
        return DeepestRegion(ends, int(counts_on_a_line(middle, places.astype(np.float64))[0]))
    lowest, highest = _range_of_depth(rows, data)
    lines = _Lines.between(rows, multiplicity, lowest, highest)
    found = lines.region(lowest)
    while lowest < highest:
        middle_count = (lowest + highest + 1) // 2
        vertices = lines.region(middle_count)
        if vertices:
            lowest, found = middle_count, vertices
        else:
            highest = middle_count - 1
    return DeepestRegion(tuple(found), lowest)


def exact_count(point: Exact, data: Floats) -> int:
    """N times the depth of a point among `data` `(N, 2)`, in rational numbers."""
    differences = [(x - point[0], y - point[1]) for x, y in map(_exact, data)]
    dx, dy = (np.array([[pair[axis] for pair in differences]], dtype=object) for axis in (0, 1))
    return int(smallest_half_planes(dx, dy)[0])


def _exact(row: NDArray[Any]) -> Exact:
    return Fraction(float(row[0])), Fraction(float(row[1]))


def _range_of_depth(rows: Floats, data: Floats) -> tuple[int, int]:
    """A count that some point reaches (N/3 at least: the centre-point theorem), and one that none exceeds."""
    middle = np.median(data, axis=0)
    scale = np.median(np.abs(data - middle), axis=0)
    scale[scale == 0] = 1.0
    order = np.argsort(np.abs((rows - middle) / scale).sum(axis=1), kind="stable")[:_NUM_CANDIDATES]
    reached = int(counts_in_the_plane(np.vstack([middle[None], rows[order]]), data).max())
    ordered = np.sort(data, axis=0)
    bound = min(int(counts_on_a_line(axis[[(len(axis) - 1) // 2]], axis)[0]) for axis in ordered.T)
    return max(reached, -(-len(data) // 3)), bound


@dataclass(frozen=True)
class _Lines:
    """Directed lines through two data, with as many data strictly left of them as could matter.

    Attributes:
        rows: `(U, 2)`, the distinct data.
        start: `(L,)`, index of the datum through which a line goes first.
        stop: `(L,)`, of the other.
        left: `(L,)`, how many data lie strictly left.
        on: `(L,)`, how many lie on the line.
    """

    rows: Floats
    start: Counts
    stop: Counts
    left: Counts
    on: Counts

    @classmethod
    def between(cls, rows: Floats, multiplicity: Counts, lowest: int, highest: int) -> "_Lines":
        """The lines that bound a region of depth `lowest` to `highest`."""
        columns: list[list[NDArray[np.int64]]] = [[], [], [], []]
        for pivot in range(len(rows)):
            dx, dy = (rows - rows[pivot]).T
            above = (dy > 0) | ((dy == 0) & (dx > 0))
            here = int(multiplicity[pivot])
            slopes = line_slopes(dx, dy)
            slopes[pivot] = np.inf  # the pivot is on every line: it sorts last and is cut off
            order = np.argsort(slopes, kind="stable")[:-1]
            ordered = slopes[order]
            last = np.append(ordered[1:] != ordered[:-1], True)
            upper = np.where(above[order], multiplicity[order], 0).cumsum()
            lower = np.where(above[order], 0, multiplicity[order]).cumsum()
            up, down = upper[last], lower[last]
            up_before, down_before = np.append(0, up[:-1]), np.append(0, down[:-1])
            # Along the direction in the upper half-plane, then along the opposite one.
            left, right = upper[-1] - up + down_before, up_before + lower[-1] - down
            on = up - up_before + down - down_before + here
            other = order[last]
            forth = above[other]
            for count, same in ((left, forth), (right, ~forth)):
                # A line is met from both of its data; from the one of the lower index is enough.
                useful = (count < highest) & (count + on >= lowest) & (other > pivot)
                columns[0].append(np.where(same, pivot, other)[useful])
                columns[1].append(np.where(same, other, pivot)[useful])
                columns[2].append(count[useful])
                columns[3].append(on[useful])
        return cls(rows, *(np.concatenate(column) for column in columns))

    def region(self, count: int) -> list[Exact]:
        """The vertices of the region of depth at least `count`/N; none if it is empty."""
        chosen = (self.left < count) & (count <= self.left + self.on)
        start, stop = self.start[chosen], self.stop[chosen]
        low, high = self.rows.min(axis=0), self.rows.max(axis=0)
        centre, spread = (low / 2 + high / 2), float((high - low).max())
        along = self.rows[stop] - self.rows[start]
        normals = np.column_stack([-along[:, 1], along[:, 0]]) / np.hypot(along[:, 0], along[:, 1])[:, None]
        offsets = (normals * (self.rows[start] - centre)).sum(axis=1)
        exact_centre = _exact(centre)
        corners = [(low[0], low[1]), (high[0], low[1]), (high[0], high[1]), (low[0], high[1])]
        polygon = [_exact(np.array(corner)) for corner in corners]
        while True:
            seen = np.array([[float(x - exact_centre[0]), float(y - exact_centre[1])] for x, y in polygon])
            outside = (normals @ seen.T).max(axis=1) - offsets
            left_over = outside > -_CLEARLY * spread
            if not left_over.any():
                return polygon
            outside = outside[left_over]
            start, stop, normals, offsets = (part[left_over] for part in (start, stop, normals, offsets))
            worst = int(outside.argmax())
            polygon = _clip(polygon, _exact(self.rows[start[worst]]), _exact(self.rows[stop[worst]]))
            if not polygon:
                return []
            start, stop, normals, offsets = (np.delete(part, worst, axis=0) for part in (start, stop, normals, offsets))


def _clip(polygon: Sequence[Exact], start: Exact, stop: Exact) -> list[Exact]:
    """What of a convex polygon (a segment, a point) is not strictly left of the line from `start` to `stop`."""
    dx, dy = stop[0] - start[0], stop[1] - start[1]
    sides = [dx * (y - start[1]) - dy * (x - start[0]) for x, y in polygon]
    kept: list[Exact] = []
    for index, (point, side) in enumerate(zip(polygon, sides, strict=True)):
        following = (index + 1) % len(polygon)
        if side <= 0:
            kept.append(point)
        if side * sides[following] < 0:
            part = side / (side - sides[following])
            goal = polygon[following]
            kept.append((point[0] + part * (goal[0] - point[0]), point[1] + part * (goal[1] - point[1])))
    return list(dict.fromkeys(kept))
