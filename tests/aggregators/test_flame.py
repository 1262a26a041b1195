import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.cluster import HDBSCAN

from fedrobust._linalg.columns import Shards
from fedrobust.aggregators.base import RoundContext
from fedrobust.aggregators.flame import Flame
from fedrobust.config.component import FieldError
from fedrobust.seeds import torch_generator

Array = NDArray[np.float64]
QUIET = Flame(noise_factor=0.0)


def cosine_distances(points: Array) -> Array:
    directions = points / np.linalg.norm(points, axis=1, keepdims=True)
    distances = np.array([[((a - b) ** 2).sum() / 2 for b in directions] for a in directions])
    return (distances + distances.T) / 2


def clusters_by_hdbscan(distances: Array) -> NDArray[np.bool_]:
    """scikit-learn's HDBSCAN; its min_samples counts the point itself, that of the `hdbscan` package does not."""
    n = len(distances)
    clusterer = HDBSCAN(
        min_cluster_size=n // 2 + 1, min_samples=2, metric="precomputed", allow_single_cluster=True, copy=True
    )
    return np.asarray(clusterer.fit(distances).labels_ == 0)


def rule_of_the_paper(points: Array, weights: Array) -> tuple[Array, Array]:
    kept = clusters_by_hdbscan(cosine_distances(points))
    norms = [np.sqrt((row**2).sum()) for row in points]
    bound = np.median(norms)
    shares = kept * weights / (kept * weights).sum()
    clipped = [row * min(1, bound / norm) for row, norm in zip(points, norms, strict=True)]
    return sum(share * row for share, row in zip(shares, clipped, strict=True)), shares


def sample(n: int, d: int, num_turned: int = 0) -> torch.Tensor:
    """Clients in a cone about one direction, at many lengths; the last ones in another."""
    generator = torch_generator(0, "flame", n, d)
    aims = torch.randn(2, d, generator=generator, dtype=torch.float64)
    points = torch.randn(n, d, generator=generator, dtype=torch.float64) + aims[0]
    points[n - num_turned :] += 3 * (aims[1] - aims[0])
    return points * torch.logspace(-1, 1, n, dtype=torch.float64)[:, None]


@pytest.mark.parametrize(("n", "d"), [(3, 4), (4, 2), (5, 8), (10, 3), (11, 30), (40, 12), (41, 2)])
@pytest.mark.parametrize("turned", [0.0, 0.2, 0.45])
def test_equals_hdbscan_clipping_and_average(n: int, d: int, turned: float) -> None:
    points, weights = sample(n, d, int(turned * n)), torch.arange(1, n + 1, dtype=torch.float64)
    expected, shares = rule_of_the_paper(points.numpy(), weights.numpy())
    answer = QUIET(points, weights)
    assert answer.shares is not None
    np.testing.assert_allclose(answer.shares.numpy(), shares, rtol=0, atol=1e-12)
    np.testing.assert_allclose(answer.update.numpy(), expected, rtol=0, atol=1e-12)
    assert answer.diagnostics["num_filtered"] == (shares == 0).sum() < n / 2


@pytest.mark.parametrize("n", [4, 7, 12])
@pytest.mark.parametrize("seed", range(10))
def test_equals_hdbscan_with_many_equal_distances(n: int, seed: int) -> None:
    """Points of a small grid: cosine distances repeat, some updates are multiples of each other (distance 0)."""
    points = torch.randint(1, 4, (n, 2), generator=torch_generator(seed, "grid"), dtype=torch.float64)
    _, shares = rule_of_the_paper(points.numpy(), np.ones(n))
    answer = QUIET(points)
    assert answer.shares is not None
    assert ((answer.shares > 0).numpy() == (shares > 0)).all()


def test_one_step_by_hand() -> None:
    """Norms 1, 1, 2, 3, 8: S = 2. Directions 0°, 0°, 0°, 90°, 180°: three of five are joined at distance 0.

    Clipped to (1, 0), (1, 0), (2, 0): mean 4/3. The fourth joins at 1 - cos 90° = 1, the fifth by way of it at 1.
    """
    points = torch.tensor([[1.0, 0.0], [1.0, 0.0], [3.0, 0.0], [0.0, 2.0], [-8.0, 0.0]])
    answer = QUIET(points)
    torch.testing.assert_close(answer.update, torch.tensor([4 / 3, 0.0]))
    assert answer.shares is not None
    assert answer.scores is not None
    assert answer.shares.tolist() == pytest.approx([1 / 3, 1 / 3, 1 / 3, 0, 0])
    assert answer.scores.tolist() == pytest.approx([0, 0, 0, 1, 1])
    assert dict(answer.diagnostics) == {"median_norm": 2.0, "num_clipped": 1.0, "num_filtered": 2.0}


def test_the_median_of_an_even_number_of_norms_is_the_midpoint() -> None:
    points = torch.tensor([[1.0], [2.0], [4.0], [100.0]])
    assert QUIET(points).diagnostics["median_norm"] == 3.0
    assert QUIET(points).update.item() == pytest.approx((1 + 2 + 3 + 3) / 4)


@pytest.mark.parametrize("n", [1, 2, 3, 8])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_identical_and_few_clients_are_all_kept(n: int, dtype: torch.dtype) -> None:
    row = torch.randn(1000, generator=torch_generator(1, "row")).to(dtype)
    answer = QUIET(row.repeat(n, 1))
    assert answer.shares is not None
    assert answer.shares.tolist() == pytest.approx([1 / n] * n)
    torch.testing.assert_close(answer.update, row)


def test_two_opposite_clients_are_both_kept() -> None:
    """More than half of two is two."""
    assert QUIET(torch.tensor([[1.0, 0.0], [-1.0, 0.0]])).update.tolist() == [0.0, 0.0]


def test_updates_of_zeros_give_zero() -> None:
    answer = Flame(noise_factor=1.0)(torch.zeros(4, 3))
    assert answer.update.tolist() == [0.0, 0.0, 0.0]
    assert answer.diagnostics["num_filtered"] == 0


@pytest.mark.parametrize("scale", [10.0, 1e12, 1e30])
def test_a_minority_of_boosted_attackers_is_left_out(scale: float) -> None:
    """9 of 20: the median norm is an honest one, and so is the direction of the kept."""
    points = torch.randn(20, 50, generator=torch_generator(2, "boosted")) / 10 + 1
    honest = points[:11].clone()
    points[11:] = -scale * points[11:]
    answer = QUIET(points)
    assert answer.shares is not None
    assert answer.shares[11:].tolist() == [0.0] * 9
    assert answer.update.norm() <= honest.norm(dim=1).max() * (1 + 1e-6)
    assert (answer.update - honest.mean(dim=0)).norm() < 0.1 * honest.mean(dim=0).norm()


def test_a_boosted_attacker_inside_the_cluster_is_clipped() -> None:
    points = torch.randn(5, 50, generator=torch_generator(3, "inside")) / 10 + 1
    points[4] = 1e6 * points[:4].mean(dim=0)
    answer = QUIET(points)
    assert answer.shares is not None
    assert answer.shares[4] > 0
    assert answer.update.norm() <= points[:4].norm(dim=1).max()


def test_noise_has_the_stated_size_and_depends_on_seed_and_round_alone() -> None:
    """σ = λS = 0.5 · 2; the sample deviation of 10⁵ draws is within 1 % of σ (its own is 0.2 %)."""
    points = 2 * torch.nn.functional.normalize(torch.ones(3, 100_000), dim=1)
    rule = Flame(noise_factor=0.5)
    noise = rule(points).update - QUIET(points).update
    assert float(noise.std()) == pytest.approx(1.0, rel=0.01)
    assert abs(float(noise.mean())) < 0.02
    assert torch.equal(rule(points, None, RoundContext(round_number=1)).update, rule(points).update)
    for context in (RoundContext(round_number=2), RoundContext(seed=1)):
        assert not torch.equal(rule(points, None, context).update, rule(points).update)
    torch.testing.assert_close(rule(points.double()).update.float(), rule(points).update, rtol=0, atol=1e-5)


@pytest.mark.parametrize("distance", [0.0, 1e4])
def test_float32_agrees_with_float64(distance: float) -> None:
    """At 10⁴ times their spread from the origin all cosines are 1 - 1e-8, below the resolution of float32 products."""
    generator = torch_generator(4, "precision")
    points = torch.randn(12, 200_000, generator=generator)
    points[:8] += 2 * torch.randn(200_000, generator=generator)
    points += distance * torch.randn(200_000, generator=generator)
    rule = Flame()
    found, exact = rule(points), rule(points.double())
    assert found.update.dtype == torch.float32
    assert found.shares is not None
    assert exact.shares is not None
    assert float((exact.shares > 0).sum()) == 7
    assert torch.equal(found.shares, exact.shares)
    assert (found.update.double() - exact.update).norm() <= 1e-5 * exact.update.norm()


def test_shards_give_the_same_answer() -> None:
    points = sample(9, 101, 3)
    whole, sharded = Flame()(points), Flame()(Shards.split(points, ["cpu", "cpu"]))
    torch.testing.assert_close(sharded.update, whole.update, rtol=0, atol=1e-12)


def test_weight_on_filtered_clients_only_is_refused() -> None:
    points = torch.tensor([[1.0, 0.0], [1.0, 0.1], [-1.0, 0.0]])
    with pytest.raises(ValueError, match="every client of positive weight was filtered"):
        QUIET(points, torch.tensor([0.0, 0.0, 1.0]))


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_updates_that_are_not_finite_are_refused(value: float) -> None:
    updates = torch.ones(3, 2)
    updates[1, 0] = value
    with pytest.raises(ValueError, match=r"rows \[1\] hold NaN or infinity"):
        QUIET(updates)


def test_negative_noise_is_refused() -> None:
    with pytest.raises(FieldError, match=r"noise_factor: must be greater than or equal to 0, got -0\.1"):
        Flame(noise_factor=-0.1)
