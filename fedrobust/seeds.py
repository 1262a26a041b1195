"""The only place that makes randomness.

Every random choice is a function of (seed, round, client, purpose). So a run can be resumed at any round without a
saved generator state, clients may be trained in any order or place, and adding a purpose disturbs no other.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def derive_seed(seed: int, *key: int | str) -> int:
    """A 63-bit seed from a scenario's seed and a key such as `("batches", round, client)`."""
    text = "/".join(str(part) for part in (seed, *key))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def torch_generator(seed: int, *key: int | str) -> torch.Generator:
    """A CPU generator for `(seed, *key)`; draws are moved to the device, so every device sees the same numbers."""
    return torch.Generator().manual_seed(derive_seed(seed, *key))


def numpy_generator(seed: int, *key: int | str) -> np.random.Generator:
    """A NumPy generator for `(seed, *key)`."""
    return np.random.default_rng(derive_seed(seed, *key))


@contextmanager
def seeded_initialisation(seed: int, *key: int | str) -> Iterator[None]:
    """Give torch's layers, which initialise from the global generator, a fixed one; the caller's is put back after."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, *key))
        yield
