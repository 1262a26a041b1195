"""Fresh vectors: the size that was asked for, small or on large pages, and memory of their own."""

import pytest
import torch

from fedrobust._linalg.memory import new_vector


@pytest.mark.parametrize("d", [0, 1, 1000, (1 << 20) - 1, 1 << 20, 3_000_001])
def test_vectors_are_float32_contiguous_and_independent(d: int) -> None:
    """Around 4 MB, from where on they come from NumPy."""
    first, second = new_vector(d), new_vector(d)
    assert (first.shape, first.dtype, first.device.type) == ((d,), torch.float32, "cpu")
    assert first.is_contiguous()
    first.fill_(1.0)
    second.fill_(2.0)
    assert bool((first == 1.0).all())
