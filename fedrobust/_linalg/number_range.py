"""Samples whose squares overflow or vanish in floating point, brought to where they do not.

A norm of 1e200 is a number, its square is not. One such point must not stop an estimator that a point at 1e6 does not
stop, and neither must a unit in which all points are so large, or so small.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from fedrobust._linalg.rows import weighted_row_mean
from fedrobust.types import Vector, Weights

_RANGES = {torch.float32: (1e-12, 1e12), torch.float64: (1e-60, 1e60)}
"""By the dtype of products: between which sizes a sample is left alone.

Fourth powers of float64 numbers are still numbers then, as what looks at a Gram matrix needs, and squares of float32.
"""

_REACH = 1e60
"""How many times the typical size a point may have beyond that range."""


@dataclass(frozen=True, eq=False)
class RangedSample:
    """A sample in a unit in which squares are numbers.

    Attributes:
        points: `(n, d)`; the points given where nothing had to be done, else float64.
        exponent: e, an `int`, or one for each column, `(d,)` int64 on the CPU: the points given are 2ᵉ times these, but
            for the shortened ones.
        shortened: `(n,)` bool on the CPU: points so much larger than most that nothing else could be seen beside them.
            They were brought nearer along their own direction, and still lie far beyond the others. `None`: none was.
    """

    points: Tensor
    exponent: int | Tensor = 0
    shortened: Tensor | None = None

    def to_unit(self, value: float, power: int = 1) -> float:
        """A figure in the given points' unit to this power, in that of these; 0 or infinite where it is out of range.

        Only with one exponent for all columns.
        """
        return _shifted(value, -power * int(self.exponent))

    def from_unit(self, value: float, power: int = 1) -> float:
        """The reverse of `to_unit`."""
        return _shifted(value, power * int(self.exponent))

    def vector_from_unit(self, vector: Vector) -> Vector:
        """The same for a vector `(d,)` in the points' unit."""
        return times_power_of_two(vector, self.exponent)

    def matrix_from_unit(self, matrix: Tensor, dtype: torch.dtype) -> Tensor:
        """The same for a `(d, d)` float64 matrix in the square of the points' unit, in the precision that is asked for.

        Raises:
            ValueError: it overflows there, or vanishes on the diagonal.
        """
        found = times_power_of_two(times_power_of_two(matrix, self.exponent), self.exponent, by_row=True).to(dtype)
        has_vanished = (found.diagonal() < torch.finfo(dtype).tiny) & (matrix.diagonal() > 0)
        if not bool(found.isfinite().all()) or bool(has_vanished.any()):
            raise ValueError(f"x must have columns whose squares are numbers in {dtype}: change their units")
        return found

    def mean(self, given: Tensor, weights: Weights) -> Vector:
        """Σ wᵢxᵢ / Σ wᵢ of the points given, `(d,)` in their precision; only where something had to be done."""
        used = weights > 0
        rows = given[used.to(given.device)].double()
        exponent = _exponent(float(rows.abs().max()))
        mean = weighted_row_mean(times_power_of_two(rows, -exponent), weights[used])
        return times_power_of_two(mean, exponent).to(given.dtype)

    @property
    def is_as_given(self) -> bool:
        """Whether nothing had to be done."""
        return isinstance(self.exponent, int) and self.exponent == 0 and self.shortened is None

    def require_without(self, used: Tensor, contamination: float) -> None:
        """Refuse an answer that rests on shortened points.

        Args:
            used: `(n,)` bool on the CPU.
            contamination: ε, for the message.

        Raises:
            ValueError: naming the points.
        """
        if self.shortened is not None and bool((self.shortened & used).any()):
            rows = (self.shortened & used).nonzero().flatten().tolist()
            raise ValueError(
                f"x must have squared norms below 1e308 in all but a part {contamination:g} of its rows, rows "
                f"{rows[:10]} are too far out"
            )


def in_range(points: Tensor, *, in_float64: bool = False) -> RangedSample:
    """The sample with a typical size of 1, if its squares might overflow or vanish as it is.

    The typical size of a point (its largest coordinate) is the median of those that are not zero, so that fewer than
    half of the points cannot choose the unit. Powers of two are exact.

    Args:
        points: `(n, d)`, float32 or float64, finite; not changed.
        in_float64: products of float32 points are formed in float64 also where n < d.
    """
    is_wide = in_float64 or len(points) >= points.shape[1]
    least, most = _RANGES[torch.float64 if is_wide else points.dtype]
    sizes = _sizes(points, 1)
    if float(sizes.max()) == 0:
        return RangedSample(points)
    typical = float(sizes[sizes > 0].median())
    if typical >= least and float(sizes.max()) <= most:
        return RangedSample(points)
    exponent = _exponent(typical)
    scaled = times_power_of_two(points.double(), -exponent)
    far = sizes.double() > typical * _REACH
    if not bool(far.any()):
        return RangedSample(scaled, exponent)
    scaled[far] = points[far].double() / sizes[far, None] * _REACH
    return RangedSample(scaled, exponent, far.cpu())


def in_range_by_column(points: Tensor) -> RangedSample:
    """The sample with a typical size of 1 in each column: for what is affine equivariant. As `in_range`."""
    least, most = _RANGES[points.dtype]
    by_row, by_column = _sizes(points, 1), _sizes(points, 0)
    if float(by_row.max()) == 0:
        return RangedSample(points)
    seen = by_column[by_column > 0]
    is_usual = float(by_row[by_row > 0].median()) >= least and float(seen.min()) >= least
    if is_usual and float(by_row.max()) <= most:
        return RangedSample(points)
    columns = (points[:, column].abs() for column in range(points.shape[1]))
    exponent = torch.tensor([_exponent(float(one[one > 0].median())) if bool(one.any()) else 0 for one in columns])
    scaled = times_power_of_two(points.double(), -exponent)
    far = _sizes(scaled, 1) > _REACH
    if not bool(far.any()):
        return RangedSample(scaled, exponent)
    # What overflowed on the way: about its own largest coordinate, and the column of the smallest unit.
    rows = points[far].double() / by_row[far, None]
    rows = times_power_of_two(rows, exponent.min() - exponent)
    scaled[far] = rows / _sizes(rows, 1)[:, None] * _REACH
    return RangedSample(scaled, exponent, far.cpu())


def times_power_of_two(values: Tensor, exponent: int | Tensor, *, by_row: bool = False) -> Tensor:
    """2ᵉ times `values`, in two steps, as 2ᵉ itself may overflow; a new tensor.

    Args:
        values: float, any shape.
        exponent: e, or one for each of the last dimension.
        by_row: an e for each of the first dimension instead.
    """
    if isinstance(exponent, int):
        half = exponent // 2
        return values * 2.0**half * 2.0 ** (exponent - half)
    first = exponent.div(2, rounding_mode="floor")
    factors = [torch.exp2(one.double()).to(values) for one in (first, exponent - first)]
    if by_row:
        factors = [one[:, None] for one in factors]
    return values * factors[0] * factors[1]


def _sizes(points: Tensor, dim: int) -> Tensor:
    """The largest magnitude along a dimension, without a copy of the points."""
    low, high = torch.aminmax(points, dim=dim)
    return torch.maximum(high, -low)


def _exponent(size: float) -> int:
    return math.frexp(size)[1]


def _shifted(value: float, exponent: int) -> float:
    try:
        return math.ldexp(value, exponent)
    except OverflowError:
        return math.copysign(math.inf, value)
