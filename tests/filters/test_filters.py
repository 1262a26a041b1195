import pytest
import torch

from fedrobust.seeds import torch_generator
from fedrobust.statistics import gram_matrix, hard_filter, soft_filter


def test_soft_filter_tells_how_far_it_exceeds_the_budget() -> None:
    points = torch.randn(30, 8, generator=torch_generator(0, "points"), dtype=torch.float64).exp()
    for max_removed in (0, 1, 2, 6, 14):
        for max_eigenvalue in (None, 1e-9):
            filtered = soft_filter(gram_matrix(points), max_removed=max_removed, max_eigenvalue=max_eigenvalue)
            gone = float((1 - filtered.weights).sum())
            assert gone == 0 or max_removed > 0
            assert filtered.removed_beyond_budget == pytest.approx(max(gone - max_removed, 0), abs=1e-6)
            assert bool(((filtered.weights >= 0) & (filtered.weights <= 1)).all())


def test_soft_filter_stops_at_the_bound() -> None:
    """Variance 3 of 0, 0, 0, 4 (see the rule's test): a bound of 3.1 is met at once, 2.9 after one step."""
    gram = gram_matrix(torch.tensor([[0.0], [0.0], [0.0], [4.0]]))
    assert soft_filter(gram, max_removed=2, max_eigenvalue=3.1).num_steps == 0
    after = soft_filter(gram, max_removed=2, max_eigenvalue=2.9)
    assert after.num_steps == 1
    assert after.weights.tolist() == pytest.approx([8 / 9, 8 / 9, 8 / 9, 0])


def test_soft_filter_keeps_the_smallest_eigenvalue() -> None:
    """Two equal clusters cannot be told apart: any step adds spread or removes all, so the start is the best."""
    gram = gram_matrix(torch.tensor([[0.0], [0.0], [1.0], [1.0]]))
    filtered = soft_filter(gram, max_removed=3)
    assert filtered.weights.tolist() == [1.0] * 4
    assert filtered.eigenvalue == filtered.first_eigenvalue == pytest.approx(0.25)


def test_hard_filter_drops_what_it_is_told() -> None:
    gram = gram_matrix(torch.tensor([[0.0], [1.0], [2.0], [9.0], [-20.0]]))
    assert hard_filter(gram, [1, 1]).weights.tolist() == [1, 1, 1, 0, 0]
    assert hard_filter(gram, []).weights.tolist() == [1] * 5


def test_hard_filter_leaves_equal_points() -> None:
    filtered = hard_filter(torch.zeros(3, 3, dtype=torch.float64), [1, 1])
    assert filtered.weights.tolist() == [1, 1, 1]
    assert filtered.num_steps == 0


def test_hard_filter_refuses_to_drop_everyone() -> None:
    with pytest.raises(ValueError, match="cannot drop 3 of 3"):
        hard_filter(torch.zeros(3, 3, dtype=torch.float64), [1, 2])
