"""Least-norm weights against a grid (two gradients) and against SciPy's SLSQP (three); normalisations by hand."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch import Tensor

from fedrobust.attacks.loss.mgda import inner_products, least_norm_weights, normalised, weighted_sum


def random_gradients(k: int, seed: int, dimension: int = 4) -> Tensor:
    """Gradients of different lengths, some of them near one another, some opposite."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(k, dimension, generator=generator, dtype=torch.float64)
    common = torch.randn(dimension, generator=generator, dtype=torch.float64) * torch.rand(1, generator=generator) * 3
    return (rows + common) * torch.exp(torch.randn(k, 1, generator=generator, dtype=torch.float64))


def test_two_gradients_against_a_grid():
    """No point of a grid of 10^4 + 1 on [0, 1] is better, and the nearest one is hardly worse."""
    grid = torch.linspace(0, 1, 10_001, dtype=torch.float64)
    points = torch.stack([grid, 1 - grid], dim=1)
    clipped = 0
    for seed in range(200):
        gradients = random_gradients(2, seed)
        alpha = least_norm_weights(gradients @ gradients.T)
        norms = (points @ gradients).square().sum(dim=1)
        own = (alpha @ gradients).square().sum()
        assert float(alpha.sum()) == pytest.approx(1)
        assert float(own) <= float(norms.min()) * (1 + 1e-12)
        assert abs(float(alpha[0] - grid[norms.argmin()])) <= 0.5001e-4
        clipped += bool((alpha == 0).any())
    assert 20 < clipped < 180  # both cases occur


def slsqp(products: np.ndarray) -> float:
    """The least ‖Σ αᵢ gᵢ‖² that SciPy finds from the best of several starts."""
    found = []
    for start in (*np.eye(3), np.full(3, 1 / 3)):
        result = minimize(
            lambda a: a @ products @ a,
            start,
            jac=lambda a: 2 * products @ a,
            bounds=[(0, 1)] * 3,
            constraints={"type": "eq", "fun": lambda a: a.sum() - 1, "jac": lambda a: np.ones(3)},
            method="SLSQP",
            options={"ftol": 1e-14, "maxiter": 500},
        )
        alpha = np.clip(result.x, 0, 1)
        alpha /= alpha.sum()
        found.append(float(alpha @ products @ alpha))
    return min(found)


def test_three_gradients_against_slsqp():
    """The value is SciPy's to 1e-6 of the gradients' scale; vertex, edge and interior all occur."""
    supports: list[int] = []
    for seed in range(60):
        gradients = random_gradients(3, seed)
        products = gradients @ gradients.T
        alpha = least_norm_weights(products)
        assert float(alpha.sum()) == pytest.approx(1)
        assert float(alpha.min()) >= 0
        own, scale = float(alpha @ products @ alpha), float(products.diagonal().mean())
        assert own == pytest.approx(slsqp(products.numpy()), rel=1e-6, abs=1e-7 * scale)
        supports.append(int((alpha > 1e-12).sum()))
    assert set(supports) == {1, 2, 3}


@pytest.mark.parametrize(
    ("gradients", "expected"),
    [
        ([[3.0, 0.0], [0.0, 1.0]], [0.1, 0.9]),  # (1 - 0) / (9 + 1 - 0)
        ([[1.0, 0.0], [5.0, 0.0]], [1.0, 0.0]),  # along one line: the shorter
        ([[1.0, 0.0], [-3.0, 0.0]], [0.75, 0.25]),  # opposite: they cancel
        ([[2.0, 1.0], [2.0, 1.0]], [0.5, 0.5]),  # equal: any will do
        ([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 2.0]], [4 / 9, 4 / 9, 1 / 9]),  # orthogonal: 1 / ‖gᵢ‖²
    ],
)
def test_by_hand(gradients, expected):
    rows = torch.tensor(gradients)
    torch.testing.assert_close(least_norm_weights(rows @ rows.T), torch.tensor(expected))


def test_degenerate_triangles():
    """Three gradients on a line, and three equal ones: the least norm is that of the line's point nearest to zero."""
    line = torch.tensor([[1.0, 1.0], [2.0, 1.0], [-1.0, 1.0]])
    alpha = least_norm_weights(line @ line.T)
    torch.testing.assert_close(alpha @ line, torch.tensor([0.0, 1.0]))
    equal = torch.tensor([[1.0, 2.0]]).expand(3, 2)
    torch.testing.assert_close(least_norm_weights(equal @ equal.T) @ equal, torch.tensor([1.0, 2.0]))


def test_within_vmap_as_one_by_one():
    products = torch.stack([gradients @ gradients.T for gradients in (random_gradients(3, seed) for seed in range(20))])
    together = torch.vmap(least_norm_weights)(products)
    torch.testing.assert_close(together, torch.stack([least_norm_weights(one) for one in products]))


def test_other_numbers_of_gradients_are_refused():
    with pytest.raises(ValueError, match="computed for 2 or 3 gradients, got 4"):
        least_norm_weights(torch.eye(4))


def test_normalisations_by_hand():
    """g₀ = (3, 4), g₁ = (0, 2), losses 0.5 and 2: norms 5 and 2, products [[25, 8], [8, 4]]."""
    gradients = (
        {"a": torch.tensor([3.0]), "b": torch.tensor([[4.0]])},
        {"a": torch.zeros(1), "b": torch.full((1, 1), 2.0)},
    )
    products, losses = inner_products(gradients), torch.tensor([0.5, 2.0])
    torch.testing.assert_close(products, torch.tensor([[25.0, 8.0], [8.0, 4.0]]))
    expected = {
        "none": [[25.0, 8.0], [8.0, 4.0]],
        "l2": [[1.0, 0.8], [0.8, 1.0]],
        "loss": [[100.0, 8.0], [8.0, 1.0]],  # by 0.5 and 2
        "loss+": [[4.0, 0.8], [0.8, 0.25]],  # by 2.5 and 4
    }
    for normalisation, values in expected.items():
        torch.testing.assert_close(normalised(products, losses, normalisation), torch.tensor(values), rtol=1e-4, atol=0)


def test_a_task_without_gradient_takes_all_the_weight_and_gives_no_nan():
    """Least norm means zero norm: nothing moves, whatever the normalisation."""
    products, losses = torch.tensor([[4.0, 0.0], [0.0, 0.0]]), torch.tensor([1.0, 0.0])
    for normalisation in ("none", "l2", "loss", "loss+"):
        alpha = least_norm_weights(normalised(products, losses, normalisation))
        torch.testing.assert_close(alpha, torch.tensor([0.0, 1.0]))


def test_weighted_sum_of_named_gradients():
    one, other = (
        {"a": torch.tensor([1.0, 2.0]), "b": torch.ones(1, 1)},
        {"a": torch.tensor([3.0, 0.0]), "b": torch.zeros(1, 1)},
    )
    total = weighted_sum(torch.tensor([0.5, 2.0]), (one, other))
    assert torch.equal(total["a"], torch.tensor([6.5, 1.0]))
    assert torch.equal(total["b"], torch.full((1, 1), 0.5))
