import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.cluster import MeanShift, estimate_bandwidth

from fedrobust._linalg.columns import Shards
from fedrobust.aggregators.base import RoundContext
from fedrobust.aggregators.sign_guard import SignGuard, draw_coordinates, sign_fractions
from fedrobust.config.component import FieldError
from fedrobust.seeds import torch_generator

Array = NDArray[np.float64]


def crowd(n: int, d: int, *, num_attackers: int, seed: int = 0) -> torch.Tensor:
    """Honest clients with 60 % of their coordinates above zero; the first ones have 40 %, at the same norm."""
    points = 0.2533 + torch.randn(n, d, generator=torch_generator(seed, "crowd", n, d), dtype=torch.float64)
    points[:num_attackers] *= -1  # Φ(0.2533) = 0.6
    return points


def guard_by_hand(points: Array, weights: Array, lower: float, upper: float, last: Array | None) -> tuple[Array, Array]:
    """The three steps on all coordinates, with loops and scikit-learn: shares and answer."""
    n = len(points)
    norms = [math.sqrt(sum(value**2 for value in row)) for row in points]
    median = float(np.median(norms))
    by_norm = {i for i in range(n) if lower <= norms[i] / median <= upper}
    features = [[float((row > 0).mean()), float((row == 0).mean()), float((row < 0).mean())] for row in points]
    if last is not None:
        for feature, row in zip(features, points, strict=True):
            feature.append(float(row @ last / np.linalg.norm(row) / np.linalg.norm(last)))
    bandwidth = estimate_bandwidth(np.array(features), quantile=0.5)
    labels = MeanShift(bandwidth=bandwidth, cluster_all=False).fit(np.array(features)).labels_.tolist()
    largest = max(set(labels) - {-1}, key=labels.count)
    kept = [i for i in by_norm if labels[i] == largest]
    shares = np.zeros(n)
    shares[kept] = weights[kept] / weights[kept].sum()
    clipped = [row * min(1.0, median / norm) for row, norm in zip(points, norms, strict=True)]
    return shares, sum(share * row for share, row in zip(shares, clipped, strict=True))


@pytest.mark.parametrize(("n", "d"), [(4, 50), (10, 400), (21, 90), (40, 600)])
@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("similarity", [False, True])
def test_equals_the_three_steps_with_scikit_learn(n: int, d: int, seed: int, similarity: bool) -> None:
    points = crowd(n, d, num_attackers=n // 5, seed=seed)
    points[-1] *= 50.0
    points[n // 2] *= 0.01
    points[:, ::7] = points[:, ::7].round()  # some exact zeros
    weights = torch.rand(n, generator=torch_generator(1, n), dtype=torch.float64) + 0.1
    last = points[1:].mean(dim=0) if similarity else None
    context = RoundContext(state={} if last is None else {"last_answer": last})
    rule = SignGuard(coordinate_fraction=1.0, similarity=similarity)
    shares, update = guard_by_hand(points.numpy(), weights.numpy(), 0.1, 3.0, None if last is None else last.numpy())
    answer = rule(points, weights, context)
    assert answer.shares is not None
    np.testing.assert_allclose(answer.shares.numpy(), shares, atol=1e-12)
    np.testing.assert_allclose(answer.update.numpy(), update, atol=1e-10)
    assert answer.diagnostics["num_filtered"] == (shares == 0).sum()
    assert answer.shares[-1] == answer.shares[n // 2] == 0


def test_attackers_of_an_ordinary_norm_are_known_by_their_signs() -> None:
    """60 % against 40 % positive on 2000 drawn coordinates: 18 standard deviations (0.011) apart."""
    points = crowd(20, 20_000, num_attackers=6).float()
    answer = SignGuard()(points)
    assert answer.shares is not None
    assert answer.shares[:6].sum() == 0
    assert int((answer.shares[6:] > 0).sum()) >= 11  # more than half of all
    assert answer.scores is not None
    assert answer.scores[:6].tolist() == [1.0] * 6
    assert answer.diagnostics["num_filtered_by_norm"] == 0


def test_signs_are_counted_by_hand() -> None:
    points = torch.tensor([[1.0, 0.0, -1.0, 2.0, 9.0], [0.0, 0.0, 0.0, -3.0, 9.0]])
    fractions = sign_fractions(points, torch.arange(4))
    assert fractions.tolist() == [[0.5, 0.25, 0.25], [0.0, 0.75, 0.25]]


@pytest.mark.parametrize(("d", "count"), [(1, 1), (5, 1), (10, 3), (1000, 100), (7, 7)])
def test_a_draw_takes_one_coordinate_of_each_stretch(d: int, count: int) -> None:
    indices = draw_coordinates(d, count, torch_generator(2, d))
    bounds = [stretch * d // count for stretch in range(count + 1)]
    assert all(low <= index < high for low, index, high in zip(bounds, indices.tolist(), bounds[1:], strict=False))
    assert len(indices) == count


def test_every_coordinate_is_drawn_equally_often() -> None:
    """10 of 40 coordinates in 4000 draws: each comes 1000 ± 4 · √(4000 · 0.25 · 0.75) = 1000 ± 110 times."""
    generator = torch_generator(3, "draws")
    counts = torch.zeros(40)
    for _ in range(4000):
        counts[draw_coordinates(40, 10, generator)] += 1
    assert float((counts - 1000).abs().max()) <= 110


def test_the_draw_depends_on_seed_and_round_alone() -> None:
    points = torch.randn(12, 200, generator=torch_generator(4, "seeds"), dtype=torch.float64)
    rule = SignGuard()
    answers = [
        tuple(rule(points, None, RoundContext(seed=seed, round_number=number)).update.tolist())
        for seed in range(3)
        for number in (1, 2)
    ]
    assert len(set(answers)) > 1
    again = rule(points, None, RoundContext(seed=0, round_number=1)).update
    assert tuple(again.tolist()) == answers[0]


def test_without_the_similarity_nothing_is_remembered_and_with_it_the_answer_is() -> None:
    points = torch.randn(6, 30, generator=torch_generator(5, "memory"))
    assert SignGuard()(points).state == {}
    answer = SignGuard(similarity=True)(points)
    assert torch.equal(answer.state["last_answer"], answer.update)


def test_the_similarity_finds_attackers_whose_signs_are_balanced_as_the_honest_are() -> None:
    """Zero-mean updates: turned round, their sign statistics are the same; their cosine with the last answer is not."""
    direction = torch.randn(5000, generator=torch_generator(6, "direction"))
    points = direction + torch.randn(20, 5000, generator=torch_generator(7, "noise"))
    points[:6] *= -1
    context = RoundContext(state={"last_answer": direction})
    known = SignGuard(similarity=True)(points, None, context).shares
    assert known is not None
    assert known[:6].sum() == 0
    unknown = SignGuard()(points).shares
    assert unknown is not None
    assert unknown[:6].sum() > 0


def test_with_an_empty_intersection_the_norm_filter_alone_decides() -> None:
    """Four alike in sign but of norms 100 and 0.001, three of ordinary norms whose signs all differ."""
    points = torch.zeros(7, 8)
    points[:4] = 1.0
    points[:2] *= 100.0
    points[2:4] *= 0.001
    points[4, :2], points[5, :4], points[6, :6] = -2.0, -1.0, -1.2
    answer = SignGuard(coordinate_fraction=1.0)(points)
    assert answer.scores is not None
    assert answer.scores.tolist() == [1.0] * 7  # nobody passes both
    assert answer.shares is not None
    assert answer.shares.tolist() == pytest.approx([0, 0, 0, 0, 1 / 3, 1 / 3, 1 / 3])


def test_with_an_empty_norm_filter_the_cluster_alone_decides() -> None:
    """Norms 1 and 3: the median is the midpoint 2, beyond 1.2 times which or below 0.9 times which both lie."""
    answer = SignGuard(lower_bound=0.9, upper_bound=1.2)(torch.tensor([[1.0], [3.0]]))
    assert answer.update.item() == pytest.approx(1.5)  # (1 + 2)/2
    assert answer.diagnostics["num_filtered_by_norm"] == 2


@pytest.mark.parametrize("n", [1, 2, 3, 4, 20])
def test_zero_updates_are_one_cluster_of_ordinary_norm(n: int) -> None:
    answer = SignGuard()(torch.zeros(n, 5))
    assert answer.diagnostics["num_filtered"] == 0
    assert answer.update.tolist() == [0.0] * 5


@pytest.mark.parametrize("magnitude", [1e3, 1e12, 1e30])
def test_the_answer_is_never_longer_than_the_median_norm(magnitude: float) -> None:
    points = crowd(20, 300, num_attackers=0).float()
    points[:8] = magnitude
    answer = SignGuard()(points)
    assert answer.shares is not None
    assert answer.shares[:8].sum() == 0
    assert float(answer.update.norm()) <= answer.diagnostics["bound"] <= float(points[8:].norm(dim=1).max())


@pytest.mark.parametrize("distance", [0.0, 1e4])
def test_float32_agrees_with_float64(distance: float) -> None:
    points = crowd(12, 200_000, num_attackers=3).float()
    points += distance * torch.randn(200_000, generator=torch_generator(8, "offset"))
    exact = SignGuard()(points.double()).update
    assert (SignGuard()(points).update.double() - exact).norm() <= 1e-5 * exact.norm()


@pytest.mark.parametrize("similarity", [False, True])
def test_shards_give_the_same_answer(similarity: bool) -> None:
    points = crowd(10, 150_001, num_attackers=2)
    context = RoundContext(state={"last_answer": points[5]} if similarity else {})
    rule = SignGuard(similarity=similarity)
    whole, parts = rule(points, None, context), rule(Shards.split(points, ["cpu", "cpu"]), None, context)
    torch.testing.assert_close(parts.update, whole.update, rtol=0, atol=1e-12)
    torch.testing.assert_close(parts.shares, whole.shares)


def test_weight_on_filtered_clients_only_is_refused() -> None:
    points = torch.ones(5, 4)
    points[0] *= 100
    with pytest.raises(ValueError, match="every client of positive weight was filtered"):
        SignGuard()(points, torch.tensor([1.0, 0, 0, 0, 0]))


def test_rows_that_are_not_finite_are_named() -> None:
    points = torch.ones(4, 3)
    points[0, 1] = float("inf")
    with pytest.raises(ValueError, match=r"rows \[0\] hold NaN or infinity"):
        SignGuard()(points)


@pytest.mark.parametrize(
    ("field", "value"),
    [("lower_bound", 1.1), ("upper_bound", 0.9), ("coordinate_fraction", 0.0), ("coordinate_fraction", 1.1)],
)
def test_fields_out_of_range_are_refused(field: str, value: float) -> None:
    with pytest.raises(FieldError, match=f"{field}: must be .*got {value}"):
        SignGuard(**{field: value})
