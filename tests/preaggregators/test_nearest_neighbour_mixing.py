import numpy as np
import pytest
import torch
from torch import Tensor

from fedrobust._linalg.columns import Shards
from fedrobust._linalg.neighbours import nearest, sums_of_nearest
from fedrobust.aggregators.base import UnsuitableSizeError
from fedrobust.aggregators.mean import Mean
from fedrobust.aggregators.trimmed_mean import TrimmedMean
from fedrobust.preaggregators.nearest_neighbour_mixing import NearestNeighbourMixing
from fedrobust.preaggregators.pipeline import Pipeline
from fedrobust.seeds import torch_generator


def sample(n: int, d: int, num_shifted: int = 0) -> Tensor:
    points = torch.randn(n, d, generator=torch_generator(0, "mixing", n, d), dtype=torch.float64)
    points[n - num_shifted :] += 5.0
    return points


@pytest.mark.parametrize(("n", "d", "f"), [(1, 3, 0), (3, 2, 1), (5, 4, 2), (10, 1, 0), (10, 30, 3), (33, 7, 16)])
def test_each_row_is_the_mean_of_its_nearest_neighbours(n: int, d: int, f: int) -> None:
    points = sample(n, d, f)
    answer = NearestNeighbourMixing(assumed_fraction=f / n)(points)
    assert answer.mixing is not None
    x = points.numpy()
    for i in range(n):
        order = sorted(range(n), key=lambda j: float(((x[i] - x[j]) ** 2).sum()))[: n - f]
        np.testing.assert_allclose(answer.updates[i].numpy(), x[order].mean(axis=0), atol=1e-12)
        assert answer.mixing[i].nonzero().flatten().tolist() == sorted(order)
        assert answer.mixing[i, order].tolist() == pytest.approx([1 / (n - f)] * (n - f))


def test_by_hand() -> None:
    """n = 4, f = 1 of 0, 1, 3, 9: means of three."""
    answer = NearestNeighbourMixing(assumed_fraction=0.25)(torch.tensor([[0.0], [1.0], [3.0], [9.0]]))
    torch.testing.assert_close(answer.updates, torch.tensor([[4.0], [4.0], [4.0], [13.0]]) / 3)


def test_of_equal_distances_the_lower_index_is_nearer_and_itself_nearest() -> None:
    """Around 1 the points 0 and 2 are equally near; of three copies each is its own nearest."""
    line = torch.tensor([[0.0], [1.0], [2.0]], dtype=torch.float64)
    assert nearest((line - line.T).square(), 2).tolist() == [[0, 1], [1, 0], [2, 1]]
    assert nearest(torch.zeros(3, 3, dtype=torch.float64), 2).tolist() == [[0, 1], [1, 0], [2, 0]]
    assert sums_of_nearest((line - line.T).square(), 1).tolist() == [1, 1, 1]
    assert sums_of_nearest((line - line.T).square(), 2).tolist() == [5, 2, 5]


def test_neighbours_do_not_change_the_distances() -> None:
    distances = torch.zeros(3, 3, dtype=torch.float64)
    nearest(distances, 2)
    sums_of_nearest(distances, 1)
    assert torch.equal(distances, torch.zeros(3, 3, dtype=torch.float64))


def test_weights_pass_through_and_neighbours_are_averaged_uniformly() -> None:
    points, weights = sample(10, 4), torch.arange(10) + 1.0
    answer, plain = (
        NearestNeighbourMixing(assumed_fraction=0.2)(points, weights),
        NearestNeighbourMixing(assumed_fraction=0.2)(points),
    )
    torch.testing.assert_close(answer.weights, weights.double() / 55)
    assert torch.equal(answer.updates, plain.updates)


def test_without_assumed_attackers_every_row_is_the_mean() -> None:
    points = sample(10, 4)
    rows = NearestNeighbourMixing(assumed_fraction=0.05)(points).updates
    torch.testing.assert_close(rows, points.mean(dim=0).expand(10, 4))


def test_it_lowers_the_honest_spread_by_the_papers_factor() -> None:
    """The paper's lemma: honest variance plus bias after mixing are at most 8f/(n - f) times the variance before."""
    n, f = 50, 4
    points = sample(n, 20, f)
    points[n - f :] += 1e3
    honest = points[: n - f]
    variance = (honest - honest.mean(dim=0)).square().sum(dim=1).mean()
    mixed = NearestNeighbourMixing(assumed_fraction=f / n)(points).updates[: n - f]
    after = (mixed - mixed.mean(dim=0)).square().sum(dim=1).mean()
    bias = (mixed.mean(dim=0) - honest.mean(dim=0)).square().sum()
    assert after + bias <= 8 * f / (n - f) * variance


def test_shares_of_a_pipeline_speak_of_clients() -> None:
    """Behind the mean a client's share is how often it is a neighbour."""
    points = sample(10, 4, 2)
    rule = Pipeline(preaggregators=(NearestNeighbourMixing(assumed_fraction=0.2),), aggregator=Mean())
    answer = rule(points)
    assert answer.shares is not None
    torch.testing.assert_close(answer.update, answer.shares @ points)
    assert answer.shares[8:].max() < answer.shares[:8].min()
    trimmed = Pipeline(preaggregators=rule.preaggregators, aggregator=TrimmedMean(assumed_fraction=0.2))
    assert (trimmed(points).update - points[:8].mean(dim=0)).norm() < 1.0


@pytest.mark.parametrize("distance", [0.0, 1e4])
def test_float32_finds_the_neighbours_of_float64_also_far_from_the_origin(distance: float) -> None:
    generator = torch_generator(1, "far")
    points = torch.randn(10, 200_000, generator=generator)
    points *= torch.linspace(0.9, 1.1, 10)[:, None]
    points += distance * torch.randn(200_000, generator=generator)
    exact = points.double()
    order = torch.stack([(exact - row).square().sum(dim=1).argsort()[:8].sort().values for row in exact])
    answer = NearestNeighbourMixing(assumed_fraction=0.2)(points)
    assert answer.mixing is not None
    assert torch.equal(answer.mixing.nonzero()[:, 1].reshape(10, 8), order)
    expected = exact[order].mean(dim=1)
    assert ((answer.updates - expected).norm(dim=1) <= 1e-6 * expected.norm(dim=1)).all()


def test_shards_stay_shards() -> None:
    points = sample(10, 9)
    one = NearestNeighbourMixing(assumed_fraction=0.2)
    sharded = one(Shards.split(points, ["cpu", "cpu"])).updates
    assert isinstance(sharded, Shards)
    torch.testing.assert_close(torch.cat(sharded.parts, dim=1), one(points).updates, rtol=0, atol=1e-14)


def test_bad_input_is_refused() -> None:
    with pytest.raises(UnsuitableSizeError, match="NearestNeighbourMixing needs n > 2f, got n=2, f=1"):
        NearestNeighbourMixing(assumed_fraction=0.4999999999).output_size(2)
    points = sample(10, 4)
    points[3, 1] = torch.inf
    with pytest.raises(ValueError, match=r"rows \[3\]"):
        NearestNeighbourMixing(assumed_fraction=0.2)(points)
