from typing import Literal

import numpy as np
import pytest
import scipy.linalg
import torch
from numpy.typing import NDArray

from fedrobust._linalg.columns import Shards
from fedrobust.aggregators import Mean, SpectralFilter
from fedrobust.config.component import FieldError
from fedrobust.seeds import torch_generator

Array = NDArray[np.float64]


def direct_filter(points: Array, f: int, limit: float | None) -> Array:
    """The soft filter of the papers in d dimensions: `np.cov` and its eigen-decomposition, no Gram matrix.

    The first weighting beyond the budget of 2f is the last, and a candidate like the others.
    """
    weights, answer, smallest = np.ones(len(points)), np.ones(len(points)), np.inf
    is_last = False
    while True:
        covariance = np.atleast_2d(np.cov(points.T, aweights=weights, bias=True))
        values, vectors = np.linalg.eigh(covariance)
        if values[-1] < smallest:
            answer, smallest = weights, values[-1]
        if is_last or (limit is not None and values[-1] <= limit):
            return answer
        projections = ((points - np.average(points, axis=0, weights=weights)) @ vectors[:, -1]) ** 2
        weights = weights * np.clip(1 - projections / projections[weights > 0].max(), 0, None)
        is_last = weights.sum() < len(points) - 2 * f - 1e-6


@pytest.mark.parametrize(("n", "d", "f"), [(10, 40, 2), (30, 12, 6), (40, 1, 4), (160, 5, 32)])
@pytest.mark.parametrize("sigma", [None, 1.0])
def test_equals_the_filter_in_d_dimensions(n: int, d: int, f: int, sigma: float | None) -> None:
    points = torch.randn(n, d, generator=torch_generator(0, n, d), dtype=torch.float64)
    points[:f] += 3.0
    points[: f // 2] *= 20.0
    weights = torch.rand(n, generator=torch_generator(1, n), dtype=torch.float64)
    rule = SpectralFilter(assumed_fraction=f / n, sigma=sigma, stopping_factor=2.0)
    left = direct_filter(points.numpy(), f, None if sigma is None else 2.0)
    assert (left < 1).any()
    answer = rule(points, weights)
    assert answer.shares is not None
    shares = left * weights.numpy()
    shares /= shares.sum()
    np.testing.assert_allclose(answer.shares.numpy(), shares, atol=1e-10)
    np.testing.assert_allclose(answer.update.numpy(), shares @ points.numpy(), atol=1e-10)
    assert answer.diagnostics["removed_mass"] == pytest.approx(float((1 - left).sum()), abs=1e-9)


def test_one_step_by_hand() -> None:
    """Values 0, 0, 0, 4: mean 1, variance 3, τ = 1, 1, 1, 9, so w = 8/9, 8/9, 8/9, 0 and the variance is 0."""
    answer = SpectralFilter(assumed_fraction=0.25)(torch.tensor([[0.0], [0.0], [0.0], [4.0]]))
    assert answer.update.item() == 0.0
    assert answer.shares is not None
    assert answer.shares.tolist() == pytest.approx([1 / 3, 1 / 3, 1 / 3, 0.0])
    assert dict(answer.diagnostics) == pytest.approx(
        {
            "first_top_eigenvalue": 3,
            "top_eigenvalue": 0,
            "num_steps": 1,
            "num_filtered": 1,
            "removed_mass": 4 / 3,
            "removed_beyond_budget": 0,
            "num_refused": 0,
        }
    )
    # 1/9 and 1 in the first weighting, 0 and 1 in the second
    assert answer.scores is not None
    assert answer.scores.tolist() == pytest.approx([1 / 9, 1 / 9, 1 / 9, 2.0])


def test_clean_data_within_sigma_are_left_alone() -> None:
    """For n = 40d the top sample eigenvalue is near (1 + √(1/40))² = 1.34, far below 6."""
    points = torch.randn(800, 20, generator=torch_generator(2, "clean"), dtype=torch.float64)
    answer = SpectralFilter(assumed_fraction=0.2, sigma=1.0)(points)
    assert answer.diagnostics["removed_mass"] == 0.0
    assert torch.equal(answer.update, Mean()(points).update)


@pytest.mark.parametrize("attack", ["inner_product_manipulation", "little_is_enough"])
def test_colluding_attackers_among_similar_clients_are_filtered_and_ranked_first(attack: str) -> None:
    """n = 100, f = 20, d = 5000, honest mean of norm 1 and noise of norm 1.

    Inner-product manipulation (-mean/2) moves the plain mean by 0.2 · 1.5 = 0.3, a shift of 0.5 standard deviations by
    0.2 · 0.5 = 0.1.
    """
    generator = torch_generator(3, attack)
    mean = torch.nn.functional.normalize(torch.randn(5000, generator=generator), dim=0)
    points = mean + torch.randn(100, 5000, generator=generator) / 5000**0.5
    honest = points[:80]
    shifted = honest.mean(dim=0) - 0.5 * honest.std(dim=0)
    points[80:] = -0.5 * honest.mean(dim=0) if attack == "inner_product_manipulation" else shifted
    answer = SpectralFilter(assumed_fraction=0.2)(points)
    assert (answer.update - honest.mean(dim=0)).norm() < 0.02
    assert answer.shares is not None
    assert answer.scores is not None
    assert answer.shares[80:].sum() == 0
    assert answer.scores[80:].min() > answer.scores[:80].max()


def test_subtle_attackers_outrank_the_honest_behind_gross_ones() -> None:
    points = torch.randn(40, 100, generator=torch_generator(4, "mixture"), dtype=torch.float64) / 10
    points[:2] += 1e4
    points[2:8] += 1.0
    scores = SpectralFilter(assumed_fraction=0.2)(points).scores
    assert scores is not None
    assert scores[:2].min() > scores[2:8].max()
    assert scores[2:8].min() > scores[8:].max()


def test_weight_on_filtered_clients_only_is_refused() -> None:
    points = torch.tensor([[0.0], [0.0], [0.0], [4.0]])
    with pytest.raises(ValueError, match="every client of positive weight was filtered"):
        SpectralFilter(assumed_fraction=0.25)(points, torch.tensor([0.0, 0.0, 0.0, 1.0]))


def direct_entropy_filter(points: Array, f: int, alpha: float) -> Array:
    """The soft filter in d dimensions with τᵢ = (xᵢ - μ)ᵀ exp(αΣ/‖Σ‖)(xᵢ - μ), the exponential by SciPy."""
    weights, answer, smallest = np.ones(len(points)), np.ones(len(points)), np.inf
    is_last = False
    while True:
        covariance = np.atleast_2d(np.cov(points.T, aweights=weights, bias=True))
        norm = np.linalg.eigvalsh(covariance)[-1]
        if norm < smallest:
            answer, smallest = weights, norm
        if is_last:
            return answer
        centred = points - np.average(points, axis=0, weights=weights)
        scores = ((centred @ scipy.linalg.expm(alpha * covariance / norm)) * centred).sum(axis=1)
        weights = weights * np.clip(1 - scores / scores[weights > 0].max(), 0, None)
        is_last = weights.sum() < len(points) - 2 * f - 1e-6


@pytest.mark.parametrize(("n", "d", "f"), [(10, 40, 2), (30, 12, 6), (40, 1, 4), (160, 5, 32)])
@pytest.mark.parametrize("alpha", [0.0, 4.0, 20.0])
def test_quantum_entropy_equals_the_filter_in_d_dimensions(n: int, d: int, f: int, alpha: float) -> None:
    points = torch.randn(n, d, generator=torch_generator(0, n, d), dtype=torch.float64)
    points[:f] += 3.0
    points[: f // 2] *= 20.0
    rule = SpectralFilter(assumed_fraction=f / n, direction="quantum_entropy", entropy_alpha=alpha)
    left = direct_entropy_filter(points.numpy(), f, alpha)
    assert (left < 1).any()
    shares = rule(points).shares
    assert shares is not None
    np.testing.assert_allclose(shares.numpy(), left / left.sum(), atol=1e-9)


def test_quantum_entropy_removes_many_directions_in_fewer_steps() -> None:
    """Eight attackers 20 out on eight orthogonal axes: all eight variances are near 400/80, the honest ones 0.01.

    All eight have nearly the same τ and leave together, where the top direction, some mixture of the axes, takes one
    attacker a step at worst: half the steps at most bring the variance below 6·0.2² = 0.24.
    """
    points = torch.randn(80, 40, generator=torch_generator(5, "axes"), dtype=torch.float64) / 10
    points[:8] += 20.0 * torch.eye(8, 40, dtype=torch.float64)
    steps = {}
    for direction in ("top", "quantum_entropy"):
        answer = SpectralFilter(assumed_fraction=0.1, sigma=0.2, direction=direction)(points)
        assert answer.shares is not None
        assert answer.shares[:8].max() < 1e-3
        steps[direction] = answer.diagnostics["num_steps"]
    assert steps["quantum_entropy"] <= steps["top"] / 2


@pytest.mark.parametrize("direction", ["top", "quantum_entropy"])
def test_float32_far_from_the_origin_agrees_with_float64(direction: Literal["top", "quantum_entropy"]) -> None:
    """Rows 1e4 times as far from the origin as from one another, d = 2e5."""
    points = torch.randn(12, 200_000, generator=torch_generator(6, "far"))
    points[:2] += 5.0
    points += 1e4 * torch.randn(200_000, generator=torch_generator(7, "origin"))
    rule = SpectralFilter(assumed_fraction=0.2, direction=direction)
    exact, found = rule(points.double()), rule(points)
    assert exact.shares is not None
    assert found.shares is not None
    assert exact.shares[:2].max() < 1e-2
    torch.testing.assert_close(found.shares, exact.shares, rtol=0, atol=1e-5)


@pytest.mark.parametrize("direction", ["top", "quantum_entropy"])
def test_shards_give_the_same_answer(direction: Literal["top", "quantum_entropy"]) -> None:
    points = torch.randn(20, 101, generator=torch_generator(8, "shards"), dtype=torch.float64)
    points[:3] += 2.0
    rule = SpectralFilter(assumed_fraction=0.2, direction=direction)
    torch.testing.assert_close(rule(Shards.split(points, ["cpu", "cpu"])).update, rule(points).update)


def test_an_unknown_direction_is_refused() -> None:
    with pytest.raises(FieldError, match="direction: must be 'top' or 'quantum_entropy'"):
        SpectralFilter(assumed_fraction=0.2, direction="bottom")
