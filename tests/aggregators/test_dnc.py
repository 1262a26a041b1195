import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from fedrobust._linalg.columns import Shards
from fedrobust.aggregators.base import RoundContext, UnsuitableSizeError
from fedrobust.aggregators.dnc import DnC, _draw_coordinates, _draw_seed
from fedrobust.aggregators.mean import Mean
from fedrobust.config.component import FieldError
from fedrobust.seeds import torch_generator

Array = NDArray[np.float64]


def kept_by_the_paper(points: Array, num_dropped: int, subsets: list[NDArray[np.int64]]) -> list[set[int]]:
    """Algorithm 2 for given coordinate subsets, with NumPy's SVD of the centred subsample."""
    kept = []
    for subset in subsets:
        centred = points[:, subset] - points[:, subset].mean(axis=0)
        direction = np.linalg.svd(centred, full_matrices=False)[2][0]
        scores = [float(row @ direction) ** 2 for row in centred]
        kept.append(set(np.argsort(scores, kind="stable")[: len(points) - num_dropped].tolist()))
    return kept


def subsets_of(rule: DnC, d: int, context: RoundContext) -> list[NDArray[np.int64]]:
    generator = context.generator("DnC")
    k = rule.num_coordinates
    return [_draw_coordinates(d, k, _draw_seed(generator)).numpy() for _ in range(rule.num_iterations)]


def sample(n: int, d: int, f: int) -> torch.Tensor:
    points = torch.randn(n, d, generator=torch_generator(0, "dnc", n, d), dtype=torch.float64)
    points[:f] += 1.0
    return points


@pytest.mark.parametrize(("n", "d", "f", "k"), [(3, 40, 1, 10), (10, 200, 2, 30), (25, 90, 12, 60), (160, 500, 30, 50)])
@pytest.mark.parametrize("filter_factor", [0.5, 1.0, 1.5])
@pytest.mark.parametrize("num_iterations", [1, 4])
def test_equals_the_algorithm_of_the_paper(
    n: int, d: int, f: int, k: int, filter_factor: float, num_iterations: int
) -> None:
    rule = DnC(assumed_fraction=f / n, num_iterations=num_iterations, num_coordinates=k, filter_factor=filter_factor)
    points, weights = sample(n, d, f), torch.arange(1, n + 1, dtype=torch.float64)
    context = RoundContext(round_number=3, seed=7)
    each = kept_by_the_paper(points.numpy(), int(filter_factor * f), subsets_of(rule, d, context))
    counts = np.array([sum(client in kept for kept in each) for client in range(n)])
    expected = (counts == counts.max()) * weights.numpy()
    if set.intersection(*each):
        assert set(expected.nonzero()[0].tolist()) == set.intersection(*each)
    answer = rule(points, weights, context)
    assert answer.shares is not None
    np.testing.assert_allclose(answer.shares.numpy(), expected / expected.sum(), rtol=0, atol=1e-12)
    np.testing.assert_allclose(answer.update.numpy(), expected @ points.numpy() / expected.sum(), rtol=0, atol=1e-12)
    assert answer.diagnostics["times_kept"] == counts.max()


@pytest.mark.parametrize("num_coordinates", [30, 10_000])
def test_all_coordinates_need_one_iteration(num_coordinates: int) -> None:
    points = sample(10, 30, 2)
    answer = DnC(assumed_fraction=0.2, num_coordinates=num_coordinates)(points)
    (kept,) = kept_by_the_paper(points.numpy(), 2, [np.arange(30)])
    assert answer.shares is not None
    assert set(answer.shares.nonzero().flatten().tolist()) == kept
    assert answer.diagnostics["num_iterations"] == 1


def test_one_step_by_hand() -> None:
    """Values 0, 0, 0, 4: mean 1, squared projections 1, 1, 1, 9."""
    answer = DnC(assumed_fraction=0.25)(torch.tensor([[0.0], [0.0], [0.0], [4.0]]))
    assert answer.update.item() == 0.0
    assert answer.shares is not None
    assert answer.scores is not None
    assert answer.shares.tolist() == pytest.approx([1 / 3, 1 / 3, 1 / 3, 0])
    assert answer.scores.tolist() == pytest.approx([1 / 9, 1 / 9, 1 / 9, 1])


def test_of_equal_clients_the_first_are_kept() -> None:
    """Squared projections of -1 and 1 are equal: of two, one and the same is dropped."""
    answer = DnC(assumed_fraction=0.25)(torch.tensor([[-1.0], [1.0], [-1.0], [1.0]]))
    assert answer.shares is not None
    assert answer.shares.tolist() == pytest.approx([1 / 3, 1 / 3, 1 / 3, 0])


def test_an_empty_intersection_leaves_those_kept_most_often() -> None:
    """Client i lies far out in coordinate i alone; one coordinate at a time, each draw of i drops client i."""
    points = torch.zeros(6, 6, dtype=torch.float64).fill_diagonal_(1.0)
    rule = DnC(assumed_fraction=1 / 6, num_iterations=30, num_coordinates=1)
    draws = np.array(subsets_of(rule, 6, RoundContext())).flatten()
    drawn = np.bincount(draws, minlength=6)
    assert drawn.min() > 0
    answer = rule(points)
    assert answer.shares is not None
    assert ((answer.shares > 0).numpy() == (drawn == drawn.min())).all()
    assert answer.diagnostics["times_kept"] == 30 - drawn.min()


@pytest.mark.parametrize(("d", "k"), [(7, 3), (40, 10), (41, 10), (1000, 10)])
def test_coordinates_are_drawn_evenly_without_replacement(d: int, k: int) -> None:
    """4000 draws: each coordinate's count is binomial about 4000k/d, here within 5 standard deviations."""
    generator = torch_generator(1, d)
    counts = torch.zeros(d)
    for _ in range(4000):
        drawn = _draw_coordinates(d, k, _draw_seed(generator))
        assert len(drawn) == k
        assert (drawn[1:] > drawn[:-1]).all()
        counts[drawn] += 1
    deviation = (4000 * k / d * (1 - k / d)) ** 0.5
    assert ((counts - 4000 * k / d).abs() < 5 * deviation).all()


def test_the_draw_depends_on_seed_and_round_alone() -> None:
    points, rule = sample(30, 400, 0), DnC(assumed_fraction=0.2, num_iterations=1, num_coordinates=20)
    first = rule(points)
    assert torch.equal(rule(points, None, RoundContext(round_number=1)).update, first.update)
    for context in (RoundContext(round_number=2), RoundContext(seed=1)):
        assert not torch.equal(rule(points, None, context).update, first.update)


@pytest.mark.parametrize("magnitude", [1.0, 1e3, 1e12])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_colluders_are_removed(magnitude: float, dtype: torch.dtype) -> None:
    points = torch.randn(50, 30_000, generator=torch_generator(2, "colluders"), dtype=torch.float64)
    points[40:] += magnitude
    answer = DnC(assumed_fraction=0.2)(points.to(dtype))
    assert answer.shares is not None
    assert answer.scores is not None
    assert answer.shares[40:].tolist() == [0.0] * 10
    assert answer.scores[40:].min() > answer.scores[:40].max()
    assert answer.diagnostics["num_iterations"] == 5


@pytest.mark.parametrize("n", [1, 4, 9])
def test_identical_clients_are_all_kept(n: int) -> None:
    row = torch.randn(500, generator=torch_generator(3, "row"))
    answer = DnC(assumed_fraction=0.3, num_coordinates=20)(row.repeat(n, 1))
    assert answer.diagnostics["num_filtered"] == 0
    torch.testing.assert_close(answer.update, row)


@pytest.mark.parametrize("num_coordinates", [20, 1000])
def test_no_assumed_attacker_gives_exactly_the_mean(num_coordinates: int) -> None:
    points = sample(20, 300, 4)
    answer = DnC(assumed_fraction=0.049, num_coordinates=num_coordinates)(points)
    assert torch.equal(answer.update, Mean()(points).update)


@pytest.mark.parametrize("distance", [0.0, 1e4])
def test_float32_agrees_with_float64(distance: float) -> None:
    """Also with all updates 10⁴ times their spread from the origin."""
    generator = torch_generator(4, "precision")
    points = torch.randn(12, 200_000, generator=generator)
    points[10:] += 0.3
    points += distance * torch.randn(200_000, generator=generator)
    rule = DnC(assumed_fraction=0.25)
    found, exact = rule(points), rule(points.double())
    assert found.update.dtype == torch.float32
    assert found.shares is not None
    assert exact.shares is not None
    assert torch.equal(found.shares, exact.shares)
    assert (found.update.double() - exact.update).norm() <= 1e-5 * exact.update.norm()


@pytest.mark.parametrize("num_coordinates", [20, 1000])
def test_shards_give_the_same_answer(num_coordinates: int) -> None:
    points, rule = sample(9, 101, 2), DnC(assumed_fraction=0.3, num_coordinates=num_coordinates)
    whole, sharded = rule(points), rule(Shards.split(points, ["cpu", "cpu"]))
    torch.testing.assert_close(sharded.update, whole.update, rtol=0, atol=1e-12)


def test_too_many_attackers_are_refused() -> None:
    with pytest.raises(UnsuitableSizeError, match="DnC needs n > 2f, got n=2, f=1"):
        DnC(assumed_fraction=0.4999999999)(torch.zeros(2, 3))
    with pytest.raises(UnsuitableSizeError, match=r"DnC needs n > ⌊cf⌋, got n=10, c=2.5, f=4"):
        DnC(assumed_fraction=0.4, filter_factor=2.5).check_size(10)
    assert DnC(assumed_fraction=0.4, filter_factor=2.4).check_size(10) == 4


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_sampled_coordinates_that_are_not_finite_are_refused(value: float) -> None:
    updates = torch.ones(3, 2)
    updates[1, 0] = value
    with pytest.raises(ValueError, match=r"rows \[1\] hold NaN or infinity"):
        DnC(assumed_fraction=0.2)(updates)


@pytest.mark.parametrize(
    ("field", "value"),
    [("num_iterations", 0), ("num_coordinates", 0), ("filter_factor", 0.0), ("assumed_fraction", 0.5)],
)
def test_values_out_of_range_are_refused(field: str, value: float) -> None:
    with pytest.raises(FieldError, match=f"{field}: must be"):
        DnC(**{"assumed_fraction": 0.2, field: value})
