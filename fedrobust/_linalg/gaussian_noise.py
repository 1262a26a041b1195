"""Gaussian noise on a vector of parameters, the same on every device and in every precision."""

import torch

from fedrobust._linalg.columns import CHUNK_SIZE
from fedrobust.types import Vector


def add_gaussian_noise(
    vector: Vector, std: float, generator: torch.Generator, precision: torch.dtype = torch.float64
) -> None:
    """Add N(0, std²) to every coordinate of `vector` `(d,)` in place, a chunk at a time.

    Args:
        vector: `(d,)`, float, on any device; changed.
        std: the standard deviation per coordinate; 0 draws nothing.
        generator: on the CPU.
        precision: of the draws; of float32 they take a tenth of the time.
    """
    if std == 0:
        return
    for chunk in vector.split(CHUNK_SIZE):
        noise = torch.randn(len(chunk), generator=generator, dtype=precision)
        chunk += noise.mul_(std).to(chunk)
