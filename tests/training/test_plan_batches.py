"""Batches against a slow oracle: plain Python lists, checked epoch by epoch."""

import pytest
import torch

from fedrobust.training.loop import plan_batches


def epochs_of(batches: torch.Tensor, num_epochs: int) -> list[list[list[int]]]:
    """The plan as lists: epoch, batch, index, padding included."""
    rows = batches.tolist()
    steps = len(rows) // num_epochs
    return [rows[epoch * steps : (epoch + 1) * steps] for epoch in range(num_epochs)]


@pytest.mark.parametrize(("n", "batch_size"), [(1, 1), (1, 4), (3, 4), (4, 4), (5, 4), (12, 4), (13, 4), (7, 100)])
def test_every_epoch_is_a_permutation_cut_into_batches(n: int, batch_size: int) -> None:
    """Cutting n items into batches of b by hand: full ones of b, then n mod b, padded with -1 at the end only."""
    indices = torch.arange(100, 100 + n)
    epochs = epochs_of(plan_batches(indices, batch_size, 3, torch.Generator().manual_seed(0)), 3)
    full, rest = divmod(n, batch_size)
    expected_sizes = [batch_size] * full + [rest] * (rest > 0)
    for epoch in epochs:
        assert [sum(index >= 0 for index in batch) for batch in epoch] == expected_sizes
        assert all(batch[: sum(index >= 0 for index in batch)] == [i for i in batch if i >= 0] for batch in epoch)
        assert all(index == -1 or index >= 100 for batch in epoch for index in batch)
        assert sorted(index for batch in epoch for index in batch if index >= 0) == indices.tolist()


def test_epochs_are_shuffled_apart_and_by_the_generator_alone() -> None:
    """20! orders: two equal ones by chance cannot happen."""
    indices = torch.arange(20)
    batches = plan_batches(indices, 4, 2, torch.Generator().manual_seed(0))
    first, second = batches[:5].flatten().tolist(), batches[5:].flatten().tolist()
    assert first != second
    assert first != indices.tolist()
    assert torch.equal(batches, plan_batches(indices, 4, 2, torch.Generator().manual_seed(0)))
    assert not torch.equal(batches, plan_batches(indices, 4, 2, torch.Generator().manual_seed(1)))


def test_no_examples_make_no_steps() -> None:
    """⌈0 / 4⌉ = 0 batches in each of 3 epochs."""
    assert plan_batches(torch.arange(0), 4, 3, torch.Generator()).shape == (0, 4)
