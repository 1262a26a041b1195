"""Seeds: what must be equal is equal, what must differ differs, and the global generators stay out of it."""

import numpy as np
import torch

from fedrobust.seeds import derive_seed, numpy_generator, seeded_initialisation, torch_generator


def test_keys_and_seeds_do_not_collide():
    """Distinct keys, also where joining them without a separator would not tell them apart."""
    keys = [
        (0, "batches", 1, 11),
        (0, "batches", 11, 1),
        (1, "batches", 1, 11),
        (0, "poison", 1, 11),
        (0, "batches", 111),
    ]
    assert len({derive_seed(*key) for key in keys}) == len(keys)
    assert all(0 <= derive_seed(*key) < 2**63 for key in keys)


def test_the_same_key_gives_the_same_numbers():
    first, again = torch_generator(3, "a", 1), torch_generator(3, "a", 1)
    assert torch.equal(torch.rand(5, generator=first), torch.rand(5, generator=again))
    assert np.array_equal(numpy_generator(3, "a").random(5), numpy_generator(3, "a").random(5))


def test_a_derived_seed_is_the_same_on_every_machine():
    """A golden value: SHA-like derivation must not depend on Python's hash seed, or resumed runs would differ."""
    import hashlib

    expected = int.from_bytes(hashlib.blake2b(b"7/batches/3/12", digest_size=8).digest(), "big") // 2
    assert derive_seed(7, "batches", 3, 12) == expected


def test_initialisation_is_seeded_and_leaves_the_global_generator_alone():
    state = torch.random.get_rng_state()
    with seeded_initialisation(0, "model"):
        first = torch.nn.Linear(3, 3).weight.detach().clone()
    with seeded_initialisation(0, "model"):
        again = torch.nn.Linear(3, 3).weight.detach().clone()
    assert torch.equal(first, again)
    assert torch.equal(torch.random.get_rng_state(), state)
