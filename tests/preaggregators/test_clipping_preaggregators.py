import math

import numpy as np
import pytest
import torch
from torch import Tensor

from fedrobust._linalg.columns import Shards
from fedrobust.aggregators.base import UnsuitableSizeError
from fedrobust.aggregators.mean import Mean
from fedrobust.config.component import FieldError
from fedrobust.preaggregators.adaptive_clipping import AdaptiveClipping
from fedrobust.preaggregators.base import Preaggregator
from fedrobust.preaggregators.clipping import Clipping
from fedrobust.preaggregators.pipeline import Pipeline
from fedrobust.seeds import torch_generator

BOTH = pytest.mark.parametrize("one", [Clipping(max_norm=2.0), AdaptiveClipping(assumed_fraction=0.2)])


def sample(n: int, d: int) -> Tensor:
    """Rows of different lengths in a shuffled order."""
    points = torch.randn(n, d, generator=torch_generator(0, "clip", n, d), dtype=torch.float64)
    return (
        points
        * torch.linspace(0.1, 3, n, dtype=torch.float64)[torch.randperm(n, generator=torch_generator(1, n)), None]
    )


def as_tensor(points: Tensor | Shards) -> Tensor:
    return torch.cat(points.parts, dim=1) if isinstance(points, Shards) else points


def test_clipping_shortens_each_row_to_the_bound() -> None:
    points = sample(12, 30)
    answer = Clipping(max_norm=4.0)(points)
    for i, row in enumerate(points.numpy()):
        expected = row * min(1.0, 4.0 / math.sqrt(sum(value**2 for value in row)))
        np.testing.assert_allclose(as_tensor(answer.updates)[i].numpy(), expected, rtol=1e-12)
    norms = points.norm(dim=1)
    assert 0 < answer.diagnostics["num_clipped"] == int((norms > 4).sum()) < 12
    assert answer.mixing is None


@pytest.mark.parametrize(
    ("n", "f", "k"), [(3, 1, 1), (5, 1, 1), (5, 2, 2), (10, 0, 0), (10, 1, 1), (10, 3, 4), (10, 4, 4), (20, 4, 6)]
)
def test_adaptive_clipping_shortens_the_k_longest(n: int, f: int, k: int) -> None:
    """k = ⌊2(f/n)(n - f)⌋, for instance ⌊2 · 0.3 · 7⌋ = 4 at n = 10, f = 3, and ⌊2 · 0.2 · 16⌋ = 6 at n = 20, f = 4."""
    points = sample(n, 8)
    norms = np.linalg.norm(points.numpy(), axis=1)
    bound = np.sort(norms)[::-1][k]
    answer = AdaptiveClipping(assumed_fraction=f / n)(points)
    assert answer.diagnostics["num_clipped"] == k
    assert answer.diagnostics["bound"] == pytest.approx(bound, rel=1e-12)
    expected = points.numpy() * np.minimum(1, bound / norms)[:, None]
    np.testing.assert_allclose(as_tensor(answer.updates).numpy(), expected, rtol=1e-12)


def test_adaptive_clipping_by_hand() -> None:
    """n = 3, f = 1: k = ⌊2/3 · 2⌋ = 1, so (6, 8) of norm 10 becomes as long as (3, 4)."""
    points = torch.tensor([[3.0, 4.0], [6.0, 8.0], [0.0, 1.0]])
    answer = AdaptiveClipping(assumed_fraction=0.34)(points)
    assert answer.diagnostics == {"bound": 5.0, "num_clipped": 1.0}
    torch.testing.assert_close(answer.updates, torch.tensor([[3.0, 4.0], [3.0, 4.0], [0.0, 1.0]]))


def test_no_attacker_is_longer_than_an_honest_client() -> None:
    points = sample(10, 8)
    points[:3] *= 1e6
    clipped = as_tensor(AdaptiveClipping(assumed_fraction=0.3)(points).updates)
    assert clipped[:3].norm(dim=1).max() <= points[3:].norm(dim=1).max() * (1 + 1e-12)


@BOTH
def test_input_and_weights_are_left_alone(one: Preaggregator) -> None:
    points, weights = sample(10, 8), torch.arange(10) + 1.0
    copies = points.clone(), weights.clone()
    answer = one(points, weights)
    assert not torch.equal(as_tensor(answer.updates), points)
    assert torch.equal(points, copies[0])
    assert torch.equal(weights, copies[1])
    torch.testing.assert_close(answer.weights, weights.double() / 55)
    assert one.output_size(10) == 10


@BOTH
def test_updates_within_the_bound_are_not_copied(one: Preaggregator) -> None:
    points = torch.nn.functional.one_hot(torch.arange(10) % 5).double()
    assert one(points).updates is points


@BOTH
def test_zero_updates_stay_zero(one: Preaggregator) -> None:
    points = torch.zeros(10, 3)
    points[0] = 7.0
    assert torch.equal(as_tensor(one(points).updates)[1:], points[1:])


@BOTH
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_shards_and_dtypes(one: Preaggregator, dtype: torch.dtype) -> None:
    points = sample(10, 9).to(dtype)
    whole, sharded = one(points).updates, one(Shards.split(points, ["cpu", "cpu"])).updates
    assert isinstance(sharded, Shards)
    assert whole.dtype == sharded.dtype == dtype
    assert isinstance(whole, Tensor)
    torch.testing.assert_close(as_tensor(sharded), whole)  # norms are added up in another order


@BOTH
def test_float32_agrees_with_float64(one: Preaggregator) -> None:
    points = sample(10, 200_000).float()
    exact, found = as_tensor(one(points.double()).updates), as_tensor(one(points).updates)
    assert ((found.double() - exact).norm(dim=1) <= 1e-6 * exact.norm(dim=1)).all()


def test_a_clipped_mean_moves_by_no_more_than_the_attackers_weight_allows() -> None:
    """Two of ten attackers under the bound 1 move the mean by 0.2 · 2 at most."""
    points = sample(10, 8)
    points /= points.norm(dim=1, keepdim=True)
    attacked = points.clone()
    attacked[:2] = -1e9
    rule = Pipeline(preaggregators=(Clipping(max_norm=1.0),), aggregator=Mean())
    assert (rule(attacked).update - rule(points).update).norm() <= 0.4


def test_bad_input_is_refused() -> None:
    with pytest.raises(FieldError, match="max_norm"):
        Clipping(max_norm=0.0)
    with pytest.raises(UnsuitableSizeError, match="AdaptiveClipping needs n > 2f, got n=2, f=1"):
        AdaptiveClipping(assumed_fraction=0.4999999999).output_size(2)
    points = sample(10, 4)
    points[3, 1] = torch.inf
    for one in (Clipping(max_norm=1.0), AdaptiveClipping(assumed_fraction=0.2)):
        with pytest.raises(ValueError, match=r"rows \[3\]"):
            one(points)
