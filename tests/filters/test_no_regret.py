import numpy as np
import pytest
import torch
from scipy.optimize import brentq

from fedrobust.filters.no_regret import far_points, no_regret_filter, project_onto_capped_simplex
from fedrobust.seeds import torch_generator
from fedrobust.statistics import gram_matrix


@pytest.mark.parametrize(("n", "cap"), [(3, 0.34), (10, 0.125), (10, 0.5), (50, 1 / 30), (50, 1 / 50)])
def test_projection_equals_a_root_search_for_the_multiplier(n: int, cap: float) -> None:
    """The minimiser of KL(p‖w) is pᵢ = min(cap, m·wᵢ) (the conditions of Karush, Kuhn and Tucker)."""
    weights = torch.rand(n, generator=torch_generator(0, n), dtype=torch.float64).pow(4)
    values = weights.numpy()
    multiplier = brentq(lambda m: np.minimum(cap, m * values).sum() - 1, 0, 1e12, xtol=1e-15, maxiter=1000)
    found = project_onto_capped_simplex(weights, cap)
    np.testing.assert_allclose(found.numpy(), np.minimum(cap, multiplier * values), atol=1e-8)
    assert float(found.sum()) == pytest.approx(1, abs=1e-12)


def test_projection_by_hand() -> None:
    """0.6, 0.3, 0.1 capped at 1/2: half for the first, the other half shared 3 to 1."""
    found = project_onto_capped_simplex(torch.tensor([0.6, 0.3, 0.1], dtype=torch.float64), 0.5)
    assert found.tolist() == pytest.approx([0.5, 0.375, 0.125])


def test_projection_keeps_zeros_and_equals() -> None:
    found = project_onto_capped_simplex(torch.tensor([0.4, 0.0, 0.4, 0.2], dtype=torch.float64), 1 / 3)
    assert found.tolist() == pytest.approx([1 / 3, 0, 1 / 3, 1 / 3])


def test_projection_of_what_lies_inside_is_itself() -> None:
    weights = torch.tensor([0.3, 0.3, 0.4], dtype=torch.float64)
    torch.testing.assert_close(project_onto_capped_simplex(weights, 0.5), weights)


def test_far_points_lie_beyond_five_radii() -> None:
    """0, 1, 2, 3, x: the smallest ball with four points is about 1 or 2, radius 2; from 1, far is beyond 11."""
    for value, is_far in ((10.9, False), (11.1, True), (-1e12, True)):
        gram = gram_matrix(torch.tensor([[0.0], [1.0], [2.0], [3.0], [value]], dtype=torch.float64))
        assert far_points(gram, 1).tolist() == [False] * 4 + [is_far]
        assert not far_points(gram, 0).any()


@pytest.mark.parametrize("num_outliers", [1, 4, 9])
def test_at_least_n_minus_2f_keep_weight(num_outliers: int) -> None:
    points = torch.randn(20, 3, generator=torch_generator(1, "points"), dtype=torch.float64).exp()
    filtered = no_regret_filter(gram_matrix(points), num_outliers=num_outliers, num_iterations=60, step_size=0.5)
    assert int((filtered.weights > 0).sum()) >= 20 - 2 * num_outliers
    assert float(filtered.weights.max()) == 1.0
