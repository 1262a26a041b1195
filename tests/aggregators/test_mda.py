from itertools import combinations

import numpy as np
import pytest
import torch
from torch import Tensor

from fedrobust._linalg.columns import Shards
from fedrobust._linalg.minimum_diameter import max_covers, minimum_diameter_subset
from fedrobust.aggregators.base import UnsuitableSizeError
from fedrobust.aggregators.mda import MDA
from fedrobust.aggregators.mean import Mean
from fedrobust.config.component import FieldError
from fedrobust.seeds import torch_generator


def sample(n: int, d: int, num_shifted: int = 0, *, seed: int = 0) -> Tensor:
    points = torch.randn(n, d, generator=torch_generator(seed, "mda", n, d), dtype=torch.float64)
    points[n - num_shifted :] += 5.0
    return points


def all_subsets(distances: Tensor, f: int) -> list[int]:
    """Every subset of n - f: the smallest list of distances, longest first, pairs of indices deciding equal ones."""
    values = distances.tolist()

    def longest_first(subset: tuple[int, ...]) -> list[tuple[float, int, int]]:
        return sorted(((values[i][j], i, j) for i, j in combinations(subset, 2)), reverse=True)

    return list(min(combinations(range(len(distances)), len(distances) - f), key=longest_first))


@pytest.mark.parametrize(("n", "f"), [(1, 0), (3, 1), (4, 1), (5, 2), (7, 3), (9, 2), (10, 4), (11, 5)])
@pytest.mark.parametrize("seed", range(6))
def test_equals_the_search_through_all_subsets(n: int, f: int, seed: int) -> None:
    """Odd seeds give small integers, so that many distances are equal."""
    points = sample(n, 3, min(f, 1), seed=seed)
    points = points.round() if seed % 2 else points
    distances = (points[:, None] - points[None, :]).square().sum(dim=2)
    assert minimum_diameter_subset(distances, f) == all_subsets(distances, f)


@pytest.mark.parametrize(("n", "f", "d"), [(4, 1, 2), (10, 4, 7), (12, 3, 40)])
def test_the_answer_is_the_mean_of_the_subset_of_smallest_diameter(n: int, f: int, d: int) -> None:
    points = sample(n, d, f)
    answer = MDA(assumed_fraction=f / n)(points)
    x = points.numpy()
    diameters = {
        subset: max(np.linalg.norm(x[i] - x[j]) for i, j in combinations(subset, 2))
        for subset in combinations(range(n), n - f)
    }
    assert answer.shares is not None
    kept = tuple(answer.shares.nonzero().flatten().tolist())
    assert diameters[kept] == pytest.approx(min(diameters.values()), rel=1e-12)
    assert answer.diagnostics["diameter"] == pytest.approx(min(diameters.values()), rel=1e-9)
    np.testing.assert_allclose(answer.update.numpy(), x[list(kept)].mean(axis=0), atol=1e-12)


def test_by_hand() -> None:
    """Of 0, 1, 3, 7, 20 the three closest together are 0, 1, 3, and 17² is from 3 to 20, 20² from 0."""
    answer = MDA(assumed_fraction=0.4)(torch.tensor([[0.0], [1.0], [3.0], [7.0], [20.0]]))
    assert answer.update.item() == pytest.approx(4 / 3)
    assert answer.diagnostics["diameter"] == pytest.approx(3.0)
    assert answer.scores is not None
    assert answer.scores.tolist() == pytest.approx([9.0, 4.0, 9.0, 49.0, 400.0])


def test_ties_go_to_the_lower_index() -> None:
    assert minimum_diameter_subset(torch.zeros(6, 6, dtype=torch.float64), 2) == [0, 1, 2, 3]
    # Points 1 and 2 are both as far from 3 as 3 is from 0: the pairs with later points count as longer.
    points = torch.tensor([[0.0], [1.0], [2.0], [3.0]], dtype=torch.float64)
    assert minimum_diameter_subset((points - points.T).abs(), 1) == [0, 1, 2]


def test_a_hundred_clients_are_no_problem() -> None:
    """536 983 370 000 000 000 000 subsets of 80; the attackers are 20 copies, nearest to each other."""
    points = sample(100, 30, 0)
    points[80:] = points[80] + 5.0
    shares = MDA(assumed_fraction=0.2)(points).shares
    assert shares is not None
    assert shares[80:].sum() == 0


def test_the_worst_case_is_counted_and_refused() -> None:
    """T(0) = 1, T(f) = 1 + T(f - 1) + T(f - 2): 1, 2, 4, 7, 12, 20."""
    assert [max_covers(f) for f in range(6)] == [1, 2, 4, 7, 12, 20]
    assert MDA(assumed_fraction=0.2, max_subsets=20).check_size(25) == 5
    with pytest.raises(UnsuitableSizeError, match="look at 20 subsets for n=25, f=5, more than max_subsets=19"):
        MDA(assumed_fraction=0.2, max_subsets=19)(torch.zeros(25, 3))
    assert MDA(assumed_fraction=0.2).check_size(164) == 32
    with pytest.raises(UnsuitableSizeError, match="n=165, f=33"):
        MDA(assumed_fraction=0.2).check_size(165)


def test_the_server_weights_enter_the_average_and_not_the_choice() -> None:
    points, weights = sample(10, 4, 2), torch.arange(10) + 1.0
    answer = MDA(assumed_fraction=0.2)(points, weights)
    expected = np.average(points.numpy()[:8], axis=0, weights=weights.numpy()[:8])
    np.testing.assert_allclose(answer.update.numpy(), expected, atol=1e-12)
    with pytest.raises(ValueError, match="every client of positive weight was filtered"):
        MDA(assumed_fraction=0.2)(points, (torch.arange(10) == 9).float())


def test_without_assumed_attackers_it_is_the_mean() -> None:
    points, weights = sample(10, 4), torch.arange(10) + 1.0
    assert torch.equal(MDA(assumed_fraction=0.05)(points, weights).update, Mean()(points, weights).update)


@pytest.mark.parametrize("distance", [0.0, 1e4])
def test_float32_keeps_whom_float64_keeps_also_far_from_the_origin(distance: float) -> None:
    generator = torch_generator(1, "far")
    points = torch.randn(12, 200_000, generator=generator)
    points += distance * torch.randn(200_000, generator=generator)
    points[:4] += 0.1 * torch.randn(200_000, generator=generator)
    exact = points.double()
    distances = torch.stack([(exact - row).square().sum(dim=1) for row in exact])
    shares = MDA(assumed_fraction=0.25)(points).shares
    assert shares is not None
    assert shares.nonzero().flatten().tolist() == all_subsets(distances, 3)


def test_shards_give_the_same_answer() -> None:
    points = sample(15, 11, 3)
    whole, sharded = MDA(assumed_fraction=0.2)(points), MDA(assumed_fraction=0.2)(Shards.split(points, ["cpu", "cpu"]))
    torch.testing.assert_close(sharded.update, whole.update, rtol=0, atol=1e-14)


def test_bad_input_is_refused() -> None:
    with pytest.raises(FieldError, match="max_subsets"):
        MDA(assumed_fraction=0.2, max_subsets=0)
    with pytest.raises(UnsuitableSizeError, match="MDA needs n > 2f, got n=2, f=1"):
        MDA(assumed_fraction=0.4999999999)(torch.zeros(2, 3))
    points = sample(10, 4)
    points[3, 1] = torch.nan
    with pytest.raises(ValueError, match=r"rows \[3\]"):
        MDA(assumed_fraction=0.2)(points)
