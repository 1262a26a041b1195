"""Clipping: by how much vectors are shortened so that none is longer than a bound."""

import numpy as np
import torch
from torch import Tensor


def clip_factors(norms: Tensor, bound: float | Tensor) -> Tensor:
    """min(1, bound / norm) for each of `norms` `(n,)`; 1 for a norm of zero, 0 for an infinite one."""
    is_long = norms > bound
    # A norm of zero has no reciprocal, nor would its gradient be finite; a float over a tensor is the same product.
    return torch.where(is_long, norms.where(is_long, 1.0).reciprocal() * bound, 1.0)


def midpoint_median(values: Tensor) -> float:
    """The median of `values` `(n,)`, for an even n the midpoint of the two middle ones."""
    return float(np.median(values.cpu().numpy()))
