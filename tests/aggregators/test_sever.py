import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from fedrobust._linalg.columns import Shards
from fedrobust.aggregators import Sever
from fedrobust.seeds import torch_generator


def direct_sever(points: NDArray[np.float64], drops: list[int]) -> NDArray[np.int64]:
    """The paper's filter in d dimensions: top right singular vector of the centred rows that are left."""
    kept = np.arange(len(points))
    for drop in drops:
        centred = points[kept] - points[kept].mean(axis=0)
        direction = np.linalg.svd(centred, full_matrices=False)[2][0]
        kept = np.sort(kept[np.argsort((centred @ direction) ** 2)[: len(kept) - drop]])
    return kept


@pytest.mark.parametrize(("n", "d"), [(10, 40), (20, 6), (20, 1), (160, 30)])
@pytest.mark.parametrize("num_rounds", [None, 3])
def test_equals_the_filter_in_d_dimensions(n: int, d: int, num_rounds: int | None) -> None:
    """f = n/5: three rounds drop f/2 each, or ⌈3f/2⌉ one at a time."""
    f = n // 5
    drops = [f // 2] * 3 if num_rounds == 3 else [1] * (3 * f // 2)
    points = torch.randn(n, d, generator=torch_generator(0, n, d), dtype=torch.float64)
    points[:f] += 2.0
    weights = torch.rand(n, generator=torch_generator(1, n), dtype=torch.float64)
    kept = direct_sever(points.numpy(), drops)
    answer = Sever(assumed_fraction=0.2, num_rounds=num_rounds)(points, weights)
    assert answer.shares is not None
    assert answer.shares.nonzero().squeeze(1).tolist() == kept.tolist()
    expected = np.average(points.numpy()[kept], axis=0, weights=weights.numpy()[kept])
    np.testing.assert_allclose(answer.update.numpy(), expected, atol=1e-10)


@pytest.mark.parametrize(
    ("n", "num_rounds", "num_dropped"),
    [(10, None, 3), (10, 1, 1), (10, 2, 2), (10, 3, 3), (10, 9, 4), (15, 1, 2), (15, 2, 3), (15, 3, 5), (15, None, 5)],
)
def test_small_federations_drop_the_intended_count(n: int, num_rounds: int | None, num_dropped: int) -> None:
    """⌈rf/2⌉ after r rounds and at most 2f: f = 2 of 10, f = 3 of 15; a quantile would drop none or too many."""
    points = torch.randn(n, 4, generator=torch_generator(2, n), dtype=torch.float64)
    answer = Sever(assumed_fraction=0.2, num_rounds=num_rounds)(points)
    assert answer.diagnostics["num_filtered"] == num_dropped


@pytest.mark.parametrize(("n", "f"), [(10, 2), (15, 3), (20, 4)])
def test_attackers_in_different_directions_are_all_dropped(n: int, f: int) -> None:
    """Each attacker has a direction of its own, so each needs a round of its own."""
    points = torch.randn(n, 30, generator=torch_generator(3, n), dtype=torch.float64)
    for attacker in range(f):
        points[attacker, attacker] += 40.0 + 10.0 * attacker
    answer = Sever(assumed_fraction=0.2)(points)
    assert answer.shares is not None
    assert answer.scores is not None
    assert answer.shares[:f].sum() == 0
    assert answer.scores[:f].min() > answer.scores[f:].max()


def test_equal_scores_drop_the_first_client() -> None:
    """-1, 0, 0, 0, 1 are symmetric: clients 0 and 4 tie; then 1 stands out among 0, 0, 0, 1; ⌈3/2⌉ are dropped."""
    answer = Sever(assumed_fraction=0.2)(torch.tensor([[-1.0], [0.0], [0.0], [0.0], [1.0]]))
    assert answer.shares is not None
    assert answer.shares.tolist() == pytest.approx([0, 1 / 3, 1 / 3, 1 / 3, 0])
    # 1 and 1, 1 and 1, 0 and 0 in the three weightings; client 4 leaves after the second.
    assert answer.scores is not None
    assert answer.scores.tolist() == pytest.approx([3, 1 / 9, 1 / 9, 1 / 9, 3])


def test_shards_give_the_same_answer() -> None:
    points = torch.randn(20, 101, generator=torch_generator(4, "shards"), dtype=torch.float64)
    rule = Sever(assumed_fraction=0.2)
    torch.testing.assert_close(rule(Shards.split(points, ["cpu", "cpu"])).update, rule(points).update)


def test_float32_far_from_the_origin_keeps_the_same_clients() -> None:
    """Rows 1e4 times as far from the origin as from one another, d = 2e5."""
    points = torch.randn(12, 200_000, generator=torch_generator(5, "far"))
    points[:2] += 0.5
    points += 1e4 * torch.randn(200_000, generator=torch_generator(6, "origin"))
    exact, found = Sever(assumed_fraction=0.2)(points.double()), Sever(assumed_fraction=0.2)(points)
    assert exact.shares is not None
    assert found.shares is not None
    assert torch.equal(found.shares, exact.shares)
    assert exact.shares[:2].sum() == 0
