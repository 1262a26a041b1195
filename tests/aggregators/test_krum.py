import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedrobust._linalg.columns import Shards
from fedrobust.aggregators.base import UnsuitableSizeError
from fedrobust.aggregators.krum import Krum, MultiKrum
from fedrobust.aggregators.mean import Mean
from fedrobust.config.component import FieldError
from fedrobust.seeds import torch_generator

Array = NDArray[np.float64]


def sample(n: int, d: int, num_shifted: int = 0) -> Tensor:
    points = torch.randn(n, d, generator=torch_generator(0, "krum", n, d), dtype=torch.float64)
    points[n - num_shifted :] += 5.0
    return points


def direct_scores(points: Array, f: int) -> Array:
    """The paper's scores, by differences in d dimensions."""
    n = len(points)
    scores = []
    for i in range(n):
        others = sorted(float(((points[i] - points[j]) ** 2).sum()) for j in range(n) if j != i)
        scores.append(sum(others[: n - f - 2]))
    return np.array(scores)


@pytest.mark.parametrize(("n", "d", "f"), [(3, 4, 0), (5, 1, 1), (7, 3, 2), (10, 50, 3), (33, 20, 15), (60, 5, 12)])
def test_scores_and_choice_are_the_papers(n: int, d: int, f: int) -> None:
    points = sample(n, d, f)
    scores = direct_scores(points.numpy(), f)
    krum = Krum(assumed_fraction=f / n)(points)
    assert krum.scores is not None
    np.testing.assert_allclose(krum.scores.numpy(), scores, rtol=1e-11)
    assert krum.shares is not None
    assert krum.shares.tolist() == [float(i == scores.argmin()) for i in range(n)]
    assert torch.equal(krum.update, points[int(scores.argmin())])
    for num_kept in (None, 1, 2, n):
        multi = MultiKrum(assumed_fraction=f / n, num_kept=num_kept)(points)
        kept = np.argsort(scores, kind="stable")[: num_kept or n - f]
        np.testing.assert_allclose(multi.update.numpy(), points.numpy()[kept].mean(axis=0), atol=1e-12)
        assert multi.diagnostics["num_filtered"] == n - len(kept)


def test_by_hand() -> None:
    """n = 5, f = 1, so 2 neighbours: 0, 1, 3, 4, 100 have 1 + 9, 1 + 4, 4 + 1, 1 + 9, 96² + 97² as scores."""
    points = torch.tensor([[0.0], [1.0], [3.0], [4.0], [100.0]])
    krum = Krum(assumed_fraction=0.2)(points)
    assert krum.scores is not None
    assert krum.scores.tolist() == pytest.approx([10, 5, 5, 10, 18625], rel=1e-6)
    assert krum.update.item() == 1.0  # the lower index of two equal scores
    assert MultiKrum(assumed_fraction=0.2)(points).update.item() == 2.0
    assert MultiKrum(assumed_fraction=0.2, num_kept=2)(points).update.item() == 2.0


def test_ties_go_to_the_lower_index() -> None:
    points = torch.tensor([[0.0], [0.0], [0.0], [1.0], [1.0]])
    shares = MultiKrum(assumed_fraction=0.2, num_kept=2)(points).shares
    assert shares is not None
    assert shares.tolist() == [0.5, 0.5, 0.0, 0.0, 0.0]


def test_the_server_weights_enter_the_average_and_not_the_choice() -> None:
    points, weights = sample(10, 4, 2), torch.arange(10) + 1.0
    plain, weighted = MultiKrum(assumed_fraction=0.2)(points), MultiKrum(assumed_fraction=0.2)(points, weights)
    assert plain.shares is not None
    assert weighted.shares is not None
    assert torch.equal(plain.shares > 0, weighted.shares > 0)
    expected = np.average(points.numpy(), axis=0, weights=weights.numpy() * (plain.shares > 0).numpy())
    np.testing.assert_allclose(weighted.update.numpy(), expected, atol=1e-12)
    assert torch.equal(Krum(assumed_fraction=0.2)(points, weights).update, Krum(assumed_fraction=0.2)(points).update)


def test_weight_on_rejected_clients_only_is_refused() -> None:
    weights = torch.zeros(10)
    weights[9] = 1.0
    for rule in (Krum(assumed_fraction=0.2), MultiKrum(assumed_fraction=0.2)):
        with pytest.raises(ValueError, match="every client of positive weight was filtered"):
            rule(sample(10, 4, 2), weights)


def test_without_assumed_attackers_multi_krum_is_the_mean() -> None:
    points, weights = sample(10, 4), torch.arange(10) + 1.0
    assert torch.equal(MultiKrum(assumed_fraction=0.05)(points, weights).update, Mean()(points, weights).update)


@pytest.mark.parametrize("distance", [0.0, 1e4])
def test_float32_chooses_as_float64_does_also_far_from_the_origin(distance: float) -> None:
    """All updates `distance` times their spread from the origin; the oracle sees the same float32 numbers."""
    generator = torch_generator(1, "far")
    points = torch.randn(20, 200_000, generator=generator)
    points += distance * torch.randn(200_000, generator=generator)
    points[:4] += 0.05 * torch.randn(200_000, generator=generator)
    scores = direct_scores(points.double().numpy(), 4)
    answer = MultiKrum(assumed_fraction=0.2)(points)
    assert answer.scores is not None
    np.testing.assert_allclose(answer.scores.numpy(), scores, rtol=1e-5)
    kept = np.sort(np.argsort(scores)[:16])
    assert answer.shares is not None
    assert answer.shares.nonzero().flatten().tolist() == kept.tolist()
    exact = points.double()[torch.from_numpy(kept)].mean(dim=0)
    assert (answer.update.double() - exact).norm() <= 1e-6 * exact.norm()


@pytest.mark.parametrize("rule", [Krum(assumed_fraction=0.2), MultiKrum(assumed_fraction=0.2)])
def test_shards_give_the_same_answer(rule: Krum | MultiKrum) -> None:
    points = sample(15, 11, 3)
    whole, sharded = rule(points), rule(Shards.split(points, ["cpu", "cpu"]))
    torch.testing.assert_close(sharded.update, whole.update, rtol=0, atol=1e-14)
    torch.testing.assert_close(sharded.shares, whole.shares, rtol=0, atol=0)


def test_too_few_updates_are_refused() -> None:
    assert Krum(assumed_fraction=0.2).check_size(7) == 1
    with pytest.raises(UnsuitableSizeError, match=r"Krum needs n >= 2f \+ 3, got n=5, f=2"):
        Krum(assumed_fraction=0.4)(torch.zeros(5, 2))
    with pytest.raises(UnsuitableSizeError, match=r"MultiKrum needs n >= 2f \+ 3, got n=2, f=0"):
        MultiKrum(assumed_fraction=0.0)(torch.zeros(2, 2))
    with pytest.raises(UnsuitableSizeError, match="MultiKrum needs n >= num_kept, got n=5, num_kept=6"):
        MultiKrum(assumed_fraction=0.2, num_kept=6)(torch.zeros(5, 2))


def test_bad_parameters_and_non_finite_updates_are_refused() -> None:
    with pytest.raises(FieldError, match="num_kept"):
        MultiKrum(assumed_fraction=0.2, num_kept=0)
    with pytest.raises(FieldError, match="assumed_fraction"):
        Krum(assumed_fraction=0.5)
    points = sample(10, 4)
    points[3, 1] = torch.nan
    with pytest.raises(ValueError, match=r"rows \[3\]"):
        Krum(assumed_fraction=0.2)(points)
