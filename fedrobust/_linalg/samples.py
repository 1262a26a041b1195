"""What an estimator of `fedrobust.statistics` accepts, and how it answers: NumPy in, NumPy out; torch in, torch out."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

Array: TypeAlias = Any
"""A NumPy array or a torch tensor; an estimator answers in the kind that it was given."""


@dataclass(frozen=True, eq=False)
class Samples:
    """A checked sample.

    Attributes:
        points: `(N, d)`, or `(N,)` in one dimension; float32 or float64, on the device it came from; never written to.
        restore: turns a tensor into the kind that came in: a NumPy array, or a tensor on the points' device.
    """

    points: Tensor
    restore: Callable[[Tensor], Array]


def as_samples(x: Array, *, name: str = "x", num_dimensions: int = 2, min_samples: int = 1) -> Samples:
    """Check a sample and see it as a tensor, without a copy where its numbers are float32 or float64 already.

    Integers and booleans become float64, half precision becomes float32.

    Args:
        x: `(N, d)`, or `(N,)` with `num_dimensions=1`: NumPy array, torch tensor or nested sequence.
        name: of the argument, for the messages.
        num_dimensions: 1 or 2.
        min_samples: the smallest N that makes sense.

    Raises:
        ValueError: another rank, fewer than `min_samples` rows, no column, NaN or infinity, complex or no numbers.
    """
    is_tensor = isinstance(x, Tensor)
    if is_tensor:
        points = x.detach()
    else:
        array = np.asarray(x)
        if array.dtype.kind not in "fiub":
            raise ValueError(f"{name} must hold real numbers, got dtype {array.dtype}")
        if array.dtype.kind != "f" or array.dtype.itemsize > 8 or not array.dtype.isnative:
            array = array.astype(np.float64)
        if any(stride < 0 for stride in array.strides) or not array.flags.writeable:
            array = array.copy()  # torch can see neither negative strides nor read-only memory
        points = torch.from_numpy(array)
    if points.is_complex():
        raise ValueError(f"{name} must hold real numbers, got dtype {points.dtype}")
    if not points.is_floating_point():
        points = points.double()
    elif points.dtype not in (torch.float32, torch.float64):
        points = points.float()
    shape = tuple(points.shape)
    if points.ndim != num_dimensions:
        wanted = "(N, d)" if num_dimensions == 2 else "(N,)"
        raise ValueError(f"{name} must have shape {wanted}, got {shape}")
    if len(points) < min_samples or 0 in shape:
        columns = " and at least one column" if num_dimensions == 2 else ""
        raise ValueError(f"{name} must have at least {max(1, min_samples)} rows{columns}, got shape {shape}")
    is_finite = torch.isfinite(points.sum(dim=-1) if num_dimensions == 2 else points)
    if not bool(is_finite.all()):  # a sum of finite numbers may overflow: look at each
        is_finite = points.isfinite().all(dim=1) if num_dimensions == 2 else points.isfinite()
        if not bool(is_finite.all()):
            rows = (~is_finite).nonzero().flatten()
            more = "" if len(rows) <= 10 else f" and {len(rows) - 10} more"
            raise ValueError(f"{name} must be finite, rows {rows[:10].tolist()}{more} hold NaN or infinity")

    def restore(tensor: Tensor) -> Array:
        return tensor.to(points.device) if is_tensor else tensor.cpu().numpy()

    return Samples(points, restore)


def check_contamination(contamination: float) -> float:
    """ε, the assumed part of the sample that is corrupted, as a float.

    Raises:
        ValueError: outside [0, ½).
    """
    value = float(contamination)
    if not 0 <= value < 0.5:
        raise ValueError(f"contamination must lie in [0, 0.5), got {contamination}")
    return value
