"""The point that is deepest along finitely many directions, in any dimension, by linear programs.

Every point of Tukey depth k/N lies, along each direction u, between the k-th smallest and the k-th largest projection
of the data. So where no point does along some directions, none has that depth: an upper bound on the largest depth.
"""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import linprog

from fedrobust.seeds import numpy_generator
from fedrobust.statistics.depth.tukey_depth import (
    CHUNK_NUMBERS,
    ROUNDING,
    Counts,
    Floats,
    counts_on_a_line,
    hyperplane_normals,
)

_MAX_ROUNDS = 20
_NUM_ADDED = 50
_SHRINKING = (1.0, 0.5, 0.25, 0.12, 0.06, 0.03)
_NARROW = 1e-6
_INFEASIBLE = 2
_CLEARLY_EMPTY = -1e-6
"""A slack, in quartile ranges, below which a program is infeasible beyond the solver's tolerance."""


@dataclass(frozen=True)
class DeepestAlong:
    """What the search found.

    Attributes:
        point: `(d,)`.
        count: an upper bound on N times its depth, by directions that the search has not seen.
        max_count: an upper bound on N times the depth of any point.
        rounds: for each round the smallest count found at its point, and the count it was deepest for.
    """

    point: Floats
    count: int
    max_count: int
    rounds: tuple[tuple[int, int], ...]


def deepest_along_directions(data: Floats, num_directions: int, seed: int) -> DeepestAlong:
    """Cutting planes: the deepest point along some directions, then directions along which it is shallow, and again.

    Args:
        data: `(N, d)`, N > d.
        num_directions: random directions to begin with.
        seed: of the directions.
    """
    n, d = data.shape
    generator = numpy_generator(seed, "tukey_median")
    centre = np.median(data, axis=0)
    quartiles = np.quantile(data, [0.25, 0.75], axis=0)
    scale = np.where(quartiles[1] > quartiles[0], quartiles[1] - quartiles[0], 1.0)
    rows = (data - centre) / scale  # for the solver's tolerances; depth does not change
    slabs = _Slabs.along(hyperplane_normals(rows, num_directions, generator), rows)
    # The centre-point theorem: some point has depth 1/(d + 1).
    count, point = slabs.deepest(-(-n // (d + 1)), slabs.largest_count())
    rounds: list[tuple[int, int]] = []
    while True:
        directions, counts = _shallow_directions(point, rows, num_directions, generator)
        rounds.append((int(counts.min()), count))
        worse = counts < count
        if not worse.any() or len(rounds) == _MAX_ROUNDS:
            break
        chosen = np.argsort(counts, kind="stable")[: min(_NUM_ADDED, int(worse.sum()))]
        slabs = slabs.joined(_Slabs.along(directions[chosen], rows))
        count, point = slabs.deepest(-(-n // (d + 1)), count)
    fresh = numpy_generator(seed, "tukey_median", "certificate")
    _, counts = _shallow_directions(point, rows, num_directions, fresh)
    return DeepestAlong(centre + scale * point, int(min(counts.min(), count)), count, tuple(rounds))


@dataclass(frozen=True)
class _Slabs:
    """The data's projections on some directions.

    Attributes:
        normals: `(m, d)`.
        projected: `(m, N)`, ascending.
        widths: `(m,)`, the quartile range of each; the whole range where that is nothing beside it, 1 where there is
            none.
    """

    normals: Floats
    projected: Floats
    widths: Floats

    @classmethod
    def along(cls, normals: Floats, rows: Floats) -> "_Slabs":
        """The slabs of `rows` `(N, d)` along `normals` `(m, d)`."""
        projected = np.sort(normals @ rows.T, axis=1)
        n = len(rows)
        middle, whole = projected[:, (3 * n) // 4] - projected[:, n // 4], projected[:, -1] - projected[:, 0]
        return cls(normals, projected, np.where(middle > _NARROW * whole, middle, np.where(whole > 0, whole, 1.0)))

    def joined(self, other: "_Slabs") -> "_Slabs":
        """Both."""
        return _Slabs(
            np.vstack([self.normals, other.normals]),
            np.vstack([self.projected, other.projected]),
            np.append(self.widths, other.widths),
        )

    def largest_count(self) -> int:
        """What the best point could have if each direction were alone."""
        middle = (self.projected.shape[1] - 1) // 2
        return min(int(counts_on_a_line(row[[middle]], row)[0]) for row in self.projected)

    def deepest(self, lowest: int, highest: int) -> tuple[int, Floats]:
        """The largest count for which the slabs have a point in common, and a point well inside them.

        Args:
            lowest: a count for which they do.
            highest: none larger needs to be tried.
        """
        best: Floats | None = None
        while lowest < highest:
            middle = (lowest + highest + 1) // 2
            slack, point = self._inmost(middle)
            if slack < _CLEARLY_EMPTY:
                highest = middle - 1
            else:
                lowest, best = middle, point
        return lowest, self._inmost(lowest)[1] if best is None else best

    def _inmost(self, count: int) -> tuple[float, Floats]:
        """The point whose distance to the nearest face, in the quartile range across it, is largest; that distance."""
        d = self.normals.shape[1]
        largest, smallest = self.projected[:, -count], self.projected[:, count - 1]
        sides = np.vstack([self.normals, -self.normals])
        program = linprog(
            np.append(np.zeros(d), -1.0),
            A_ub=np.column_stack([sides, np.append(self.widths, self.widths)]),
            b_ub=np.append(largest, -smallest),
            bounds=[(None, None)] * (d + 1),
            method="highs",
        )
        if program.status == _INFEASIBLE:  # no slack helps where a slab's faces are in the wrong order by rounding
            return -np.inf, np.zeros(d)
        if program.x is None:
            raise RuntimeError(f"the linear program for depth count {count} failed: {program.message}")
        return float(program.x[-1]), program.x[:-1]


def _shallow_directions(
    point: Floats, rows: Floats, num_directions: int, generator: np.random.Generator
) -> tuple[Floats, Counts]:
    """Directions along which few data lie beyond the point, and how many, `(m, d)` and `(m,)`.

    Random ones, then random changes to the best of them, smaller and smaller. Changes are drawn among the normals too:
    they lie as the data do.
    """
    directions = hyperplane_normals(rows, num_directions, generator)
    counts = _counts_beyond(directions, point, rows)
    for size in _SHRINKING:
        best = np.argsort(counts, kind="stable")[:_NUM_ADDED]
        changes = hyperplane_normals(rows, num_directions, generator)
        changed = directions[np.resize(best, num_directions)] + size * changes * generator.choice(
            [-1.0, 1.0], size=(num_directions, 1)
        )
        directions = np.vstack([directions, changed])
        counts = np.append(counts, _counts_beyond(changed, point, rows))
    return directions, counts


def _counts_beyond(directions: Floats, point: Floats, rows: Floats) -> Counts:
    """The smaller number of rows on either side of the point along each direction, `(m,)`; level ones are on both."""
    differences = rows - point
    counts = np.empty(len(directions), dtype=np.int64)
    chunk = max(1, CHUNK_NUMBERS // len(rows))
    for start in range(0, len(directions), chunk):
        beyond = differences @ directions[start : start + chunk].T
        slack = ROUNDING * rows.shape[1] * np.abs(beyond).max(axis=0)
        at_least, at_most = (beyond >= -slack).sum(axis=0), (beyond <= slack).sum(axis=0)
        counts[start : start + chunk] = np.minimum(at_least, at_most)
    return counts
