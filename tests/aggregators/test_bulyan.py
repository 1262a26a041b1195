import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedrobust._linalg.columns import Shards
from fedrobust.aggregators.base import UnsuitableSizeError
from fedrobust.aggregators.bulyan import Bulyan, select_by_krum
from fedrobust.seeds import torch_generator

Array = NDArray[np.float64]


def sample(n: int, d: int, num_shifted: int = 0) -> Tensor:
    points = torch.randn(n, d, generator=torch_generator(0, "bulyan", n, d), dtype=torch.float64)
    points[n - num_shifted :] += 5.0
    return points


def direct_selection(points: Array, f: int) -> list[int]:
    """Krum on what remains, all distances and scores anew each time."""
    remaining, chosen = list(range(len(points))), []
    while len(chosen) < len(points) - 2 * f:
        scores = []
        for i in remaining:
            others = sorted(float(((points[i] - points[j]) ** 2).sum()) for j in remaining if j != i)
            scores.append(sum(others[: max(1, len(remaining) - f - 2)]))
        chosen.append(remaining.pop(int(np.argmin(scores))))
    return sorted(chosen)


def direct_bulyan(points: Array, f: int) -> Array:
    selected = points[direct_selection(points, f)]
    answer = []
    for values in selected.T:
        median = np.median(values)
        nearest = sorted(values, key=lambda value: (abs(value - median), value))
        answer.append(np.mean(nearest[: len(selected) - 2 * f]))
    return np.array(answer)


@pytest.mark.parametrize(
    ("n", "d", "f"), [(3, 2, 0), (7, 1, 1), (7, 9, 1), (8, 30, 1), (11, 4, 2), (12, 4, 2), (23, 6, 5), (50, 10, 11)]
)
def test_equals_the_papers_two_stages(n: int, d: int, f: int) -> None:
    points = sample(n, d, f)
    answer = Bulyan(assumed_fraction=f / n)(points)
    np.testing.assert_allclose(answer.update.numpy(), direct_bulyan(points.numpy(), f), atol=1e-12)
    assert answer.shares is None
    assert answer.diagnostics["num_selected"] == n - 2 * f


def test_flpoison_selects_some_clients_several_times() -> None:
    """FLPoison (commit eb74fb2) runs Krum on the rows that are left and notes its choice's place among those.

    It takes that for a place among all rows, so that the same row is noted again and others are never struck out. Here
    every client is selected once, as by the paper's algorithm. (Its Krum, besides, counts n - f - 1 neighbours and adds
    up distances that are not squared.)
    """
    n, f = 15, 3
    points = sample(n, 5, f).numpy()
    places: list[int] = []
    while len(places) < n - 2 * f:
        left = np.delete(points, places, axis=0)
        distances = np.linalg.norm(left[:, None] - left, axis=2)
        places.append(int(np.sort(distances, axis=1)[:, 1 : max(2, n - f)].sum(axis=1).argmin()))
    assert len(set(places)) < n - 2 * f
    squared = torch.from_numpy(((points[:, None] - points) ** 2).sum(axis=2))
    assert select_by_krum(squared, f, n - 2 * f).tolist() == direct_selection(points, f)


def test_by_hand() -> None:
    """n = 7, f = 1 on a line: 0, 1, 2, 3, 4, 50, 60.

    Krum counts 4, 3, 2, 1 and 1 neighbours. Of 7 it takes 2 (score 1 + 1 + 4 + 4 = 10). Of 0, 1, 3, 4, 50, 60 with 3
    neighbours 1 (1 + 4 + 9 = 14) is first of equals. Of 0, 3, 4, 50, 60 with 2 it takes 3 (1 + 9 = 10). Of 0, 4, 50, 60
    with 1 it takes 0 (16, as 4). Of 4, 50, 60 with 1 it takes 50 (100, as 60). The median of 0, 1, 2, 3, 50 is 2, and
    with 1 and 3, the nearest, its mean is 2.
    """
    points = torch.tensor([[0.0], [1.0], [2.0], [3.0], [4.0], [50.0], [60.0]])
    distances = (points - points.T).square().double()
    assert select_by_krum(distances, 1, 5).tolist() == [0, 1, 2, 3, 5]
    assert Bulyan(assumed_fraction=0.15)(points).update.item() == pytest.approx(2.0)


def test_a_single_poisoned_coordinate_of_a_selected_client_does_not_show() -> None:
    """What the paper shows Krum not to withstand: an error of order sqrt(d) in one coordinate, next to nothing else."""
    points = sample(20, 1000).float()
    points[16:] = points[:16].mean(dim=0)
    points[16:, 7] += 20.0
    assert abs(float(Bulyan(assumed_fraction=0.2)(points).update[7])) < 1.0


def test_ties_go_to_the_lower_index() -> None:
    equal = torch.zeros(7, 7, dtype=torch.float64)
    assert select_by_krum(equal, 1, 5).tolist() == [0, 1, 2, 3, 4]


def test_without_assumed_attackers_it_is_the_plain_mean() -> None:
    points = sample(10, 4)
    torch.testing.assert_close(Bulyan(assumed_fraction=0.05)(points, torch.arange(10) + 1.0).update, points.mean(dim=0))


@pytest.mark.parametrize("distance", [0.0, 1e4])
def test_float32_agrees_with_float64_also_far_from_the_origin(distance: float) -> None:
    generator = torch_generator(1, "far")
    points = torch.randn(12, 200_000, generator=generator)
    points += distance * torch.randn(200_000, generator=generator)
    points[:3] += 0.1 * torch.randn(200_000, generator=generator)
    exact = points.double().numpy()
    selected = exact[direct_selection(exact, 2)]
    ordered = np.sort(selected, axis=0)
    median = np.median(selected, axis=0)
    windows = [np.maximum(median - ordered[s], ordered[s + 3] - median) for s in range(5)]
    best = np.argmin(windows, axis=0)
    expected = np.mean([np.take_along_axis(ordered, (best + k)[None], axis=0)[0] for k in range(4)], axis=0)
    update = Bulyan(assumed_fraction=0.17)(points).update.double().numpy()
    assert np.linalg.norm(update - expected) <= 1e-5 * np.linalg.norm(expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_shards_give_the_same_answer(dtype: torch.dtype) -> None:
    points = sample(15, 11, 3).to(dtype)
    rule = Bulyan(assumed_fraction=0.2)
    assert torch.equal(rule(Shards.split(points, ["cpu", "cpu"])).update, rule(points).update)


def test_too_few_and_non_finite_updates_are_refused() -> None:
    with pytest.raises(UnsuitableSizeError, match=r"Bulyan needs n >= 4f \+ 3, got n=10, f=2"):
        Bulyan(assumed_fraction=0.2)(torch.zeros(10, 2))
    points = sample(20, 4)
    points[3, 1] = torch.inf
    with pytest.raises(ValueError, match=r"rows \[3\]"):
        Bulyan(assumed_fraction=0.2)(points)
