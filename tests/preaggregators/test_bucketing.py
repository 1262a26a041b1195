import numpy as np
import pytest
import torch
from torch import Tensor

from fedrobust._linalg.columns import Shards
from fedrobust.aggregators.base import RoundContext
from fedrobust.aggregators.krum import Krum
from fedrobust.aggregators.mean import Mean
from fedrobust.config.component import FieldError
from fedrobust.preaggregators.bucketing import Bucketing
from fedrobust.preaggregators.pipeline import Pipeline
from fedrobust.seeds import torch_generator


def sample(n: int, d: int) -> Tensor:
    return torch.randn(n, d, generator=torch_generator(0, "bucketing", n, d), dtype=torch.float64)


def buckets(mixing: Tensor) -> list[list[int]]:
    return [row.nonzero().flatten().tolist() for row in mixing]


@pytest.mark.parametrize(("n", "size", "sizes"), [(1, 2, [1]), (6, 2, [2] * 3), (10, 3, [3, 3, 3, 1]), (4, 9, [4])])
def test_rows_are_the_means_of_disjoint_buckets(n: int, size: int, sizes: list[int]) -> None:
    points = sample(n, 5)
    answer = Bucketing(bucket_size=size)(points)
    assert answer.mixing is not None
    found = buckets(answer.mixing)
    assert sorted(map(len, found), reverse=True) == sizes
    assert sorted(client for bucket in found for client in bucket) == list(range(n))
    for row, bucket in zip(answer.updates, found, strict=True):
        np.testing.assert_allclose(row.numpy(), points.numpy()[bucket].mean(axis=0), atol=1e-12)
    assert answer.weights.tolist() == pytest.approx([len(bucket) / n for bucket in found])
    assert Bucketing(bucket_size=size).output_size(n) == len(found)


def test_weights_count_within_and_between_buckets() -> None:
    points, weights = sample(7, 5), torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0])
    answer = Bucketing(bucket_size=3)(points, weights)
    assert answer.mixing is not None
    for row, weight, bucket in zip(answer.updates, answer.weights, buckets(answer.mixing), strict=True):
        expected = np.average(points.numpy()[bucket], axis=0, weights=weights.numpy()[bucket])
        np.testing.assert_allclose(row.numpy(), expected, atol=1e-12)
        assert float(weight) == pytest.approx(float(weights[bucket].sum()) / 28)
    rule = Pipeline(preaggregators=(Bucketing(bucket_size=3),), aggregator=Mean())
    torch.testing.assert_close(rule(points, weights).update, Mean()(points, weights).update)


def test_a_bucket_without_weight_is_averaged_uniformly_and_weighs_nothing() -> None:
    points, weights = sample(4, 5), torch.zeros(4)
    found = Bucketing(bucket_size=2)(points).mixing
    assert found is not None
    heavy, light = buckets(found)
    weights[heavy] = 1.0
    answer = Bucketing(bucket_size=2)(points, weights)
    assert answer.weights.tolist() == [1.0, 0.0]
    torch.testing.assert_close(answer.updates[1], points[light].mean(dim=0))


def test_buckets_of_one_change_nothing() -> None:
    points, weights = sample(6, 5), torch.arange(6) + 1.0
    answer = Bucketing(bucket_size=1)(points, weights)
    assert torch.equal(answer.updates, points)
    torch.testing.assert_close(answer.weights, weights.double() / 21)


def test_the_permutation_depends_on_seed_and_round_alone() -> None:
    points = sample(20, 5)

    def drawn(seed: int, round_number: int) -> list[list[int]]:
        mixing = Bucketing(bucket_size=2)(points, None, RoundContext(seed=seed, round_number=round_number)).mixing
        assert mixing is not None
        return buckets(mixing)

    state = torch.get_rng_state()
    assert drawn(0, 1) == drawn(0, 1)
    assert len({str(drawn(seed, number)) for seed in range(3) for number in range(1, 4)}) == 9
    assert torch.equal(torch.get_rng_state(), state)
    default = Bucketing(bucket_size=2)(points).mixing
    assert default is not None
    assert buckets(default) == drawn(0, 1)


def test_every_pair_is_as_likely() -> None:
    """Buckets of 2 of 4 clients: client 0 is with each of the others in a third of the rounds, 300 of 900.

    The standard deviation of a count is √(900 · 1/3 · 2/3) = 14.
    """
    points, counts = sample(4, 1), np.zeros(4)
    for number in range(900):
        mixing = Bucketing(bucket_size=2)(points, None, RoundContext(round_number=number)).mixing
        assert mixing is not None
        counts[buckets(mixing)[0][1]] += 1
    assert np.all(np.abs(counts[1:] - 300) < 5 * 14)


def test_it_divides_the_variance_by_the_size_of_a_bucket() -> None:
    """The paper's lemma for independent clients: 3 of them have a third of the variance."""
    points = sample(3000, 10)
    rows = Bucketing(bucket_size=3)(points).updates
    assert isinstance(rows, Tensor)
    assert float(rows.var(dim=0).mean() / points.var(dim=0).mean()) == pytest.approx(1 / 3, rel=0.05)


def test_shares_of_a_pipeline_speak_of_clients() -> None:
    points = sample(10, 4)
    answer = Pipeline(preaggregators=(Bucketing(bucket_size=2),), aggregator=Krum(assumed_fraction=0.2))(points)
    assert answer.shares is not None
    assert sorted(answer.shares.tolist()) == [0.0] * 8 + [0.5] * 2
    torch.testing.assert_close(answer.update, answer.shares @ points)


def test_it_says_that_it_merges_clients() -> None:
    assert "merges_clients" in Bucketing.traits


def test_shards_stay_shards() -> None:
    points = sample(10, 9).float()
    sharded = Bucketing(bucket_size=3)(Shards.split(points, ["cpu", "cpu"])).updates
    assert isinstance(sharded, Shards)
    torch.testing.assert_close(torch.cat(sharded.parts, dim=1), Bucketing(bucket_size=3)(points).updates)


def test_bad_input_is_refused() -> None:
    with pytest.raises(FieldError, match="bucket_size"):
        Bucketing(bucket_size=0)
    points = sample(10, 4)
    points[3, 1] = torch.inf
    with pytest.raises(ValueError, match=r"rows \[3\]"):
        Bucketing(bucket_size=2)(points)
