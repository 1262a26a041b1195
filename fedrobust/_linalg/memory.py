"""Memory for answers."""

import numpy as np
import torch
from torch import Tensor

from fedrobust.types import Vector

_LARGE_BYTES = 1 << 22
"""From so many on NumPy asks the system for large pages."""


def new_vector(d: int) -> Vector:
    """A float32 vector `(d,)` on the CPU, not initialised.

    The first write to each page of fresh memory is an interrupt, and with pages of 4 KB there are very many; PyTorch
    leaves large pages to a setting of the process.
    """
    if 4 * d < _LARGE_BYTES:
        return torch.empty(d)
    numbers: Tensor = torch.from_numpy(np.empty(d, dtype=np.float32))
    return numbers
