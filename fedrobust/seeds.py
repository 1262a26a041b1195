"""The only place that makes randomness.

Every random choice is a function of (seed, round, client, purpose). So a run can be resumed at any round without a
saved generator state, clients may be trained in any order or place, and adding a purpose disturbs no other.
"""

import hashlib
import random
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


@contextmanager
def seeded_draws(device: torch.device, seed: int, *key: int | str) -> Iterator[None]:
    """As `seed_generators`, for a while: the caller's generators are put back after."""
    with kept_generators(device):
        seed_generators(device, seed, *key)
        yield


@contextmanager
def kept_generators(device: torch.device) -> Iterator[None]:
    """Put the global generators (torch's, NumPy's, Python's) back at the end; of devices, that of `device`."""
    python, numpy_state = random.getstate(), np.random.get_state()  # noqa: NPY002 (what others draw from)
    try:
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy_state)  # noqa: NPY002


def seed_generators(device: torch.device, seed: int, *key: int | str) -> None:
    """Let whatever draws from a global generator draw what follows from the key; call it within `kept_generators`.

    Somebody else's module does so: dropout, stochastic depth.

    Args:
        device: whose generator is meant, beside the CPU's.
        seed: the scenario's.
        *key: what is drawn for.
    """
    own = derive_seed(seed, *key)
    torch.default_generator.manual_seed(own)
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(own)
    random.seed(own)
    np.random.seed(own % 2**32)  # noqa: NPY002
