import numpy as np
import pytest
import torch

from fedrobust._linalg.columns import Shards
from fedrobust.aggregators import Mean
from fedrobust.aggregators.base import RoundContext
from fedrobust.aggregators.norm_clipping import NormClipping
from fedrobust.config.component import FieldError
from fedrobust.seeds import torch_generator


@pytest.mark.parametrize(("n", "d"), [(1, 4), (2, 3), (7, 1), (20, 60)])
@pytest.mark.parametrize("bound", [None, 0.7, 1e9])
def test_equals_the_loop_over_clients(n: int, d: int, bound: float | None) -> None:
    """The paper's Δ / max(1, ‖Δ‖/M), averaged."""
    generator = torch_generator(0, n, d)
    points = torch.randn(n, d, generator=generator, dtype=torch.float64)
    points[0] *= 100.0
    weights = torch.rand(n, generator=generator, dtype=torch.float64)
    norms = [float(np.sqrt((row**2).sum())) for row in points.numpy()]
    limit = float(np.median(norms)) if bound is None else bound
    expected = np.zeros(d)
    for row, norm, weight in zip(points.numpy(), norms, weights.numpy() / weights.numpy().sum(), strict=True):
        expected += weight * row / max(1.0, norm / limit)
    answer = NormClipping(max_norm=bound)(points, weights)
    np.testing.assert_allclose(answer.update.numpy(), expected, rtol=0, atol=1e-12)
    assert answer.diagnostics["bound"] == pytest.approx(limit)
    assert answer.diagnostics["num_clipped"] == sum(norm > limit * (1 + 1e-12) for norm in norms)
    assert answer.shares is not None
    np.testing.assert_allclose(answer.shares.numpy(), weights.numpy() / weights.numpy().sum())
    assert answer.scores is not None
    np.testing.assert_allclose(answer.scores.numpy(), norms)


def test_by_hand() -> None:
    """Norms 5, 1, 3: the median is 3, so (3, 4) becomes (1.8, 2.4), and the mean is (1.8, 2.4 + 1 + 3)/3."""
    answer = NormClipping()(torch.tensor([[3.0, 4.0], [0.0, 1.0], [0.0, 3.0]]))
    assert answer.update.tolist() == pytest.approx([0.6, 6.4 / 3])
    assert dict(answer.diagnostics) == pytest.approx({"bound": 3.0, "num_clipped": 1.0})


def test_of_an_even_number_the_midpoint_bounds() -> None:
    assert NormClipping()(torch.tensor([[1.0], [2.0], [4.0], [100.0]])).diagnostics["bound"] == 3.0


def test_zero_updates_stay_zero() -> None:
    """More than half are zero, so the median is: everything is cut to nothing, and nothing is divided by zero."""
    assert NormClipping()(torch.tensor([[0.0], [0.0], [0.0], [9.0]])).update.item() == 0.0


def test_a_bound_that_nobody_exceeds_gives_exactly_the_mean() -> None:
    points = torch.randn(6, 100, generator=torch_generator(1, "mean"))
    assert torch.equal(NormClipping(max_norm=1e6)(points).update, Mean()(points).update)


@pytest.mark.parametrize("magnitude", [1e4, 1e12, 1e30])
def test_the_answer_is_never_longer_than_the_bound(magnitude: float) -> None:
    points = torch.randn(10, 100, generator=torch_generator(2, "far"))
    points[:4] = magnitude
    answer = NormClipping()(points)
    assert answer.diagnostics["bound"] <= float(points[4:].norm(dim=1).max())
    assert float(answer.update.norm()) <= answer.diagnostics["bound"] * (1 + 1e-6)
    exact = NormClipping()(points.double()).update
    assert (answer.update.double() - exact).norm() <= 1e-5 * exact.norm()


@pytest.mark.parametrize("distance", [0.0, 1e4])
def test_float32_agrees_with_float64(distance: float) -> None:
    points = distance / 200_000**0.5 + torch.randn(9, 200_000, generator=torch_generator(3, "single")) / 200_000**0.5
    exact = NormClipping()(points.double()).update
    assert (NormClipping()(points).update.double() - exact).norm() <= 1e-5 * exact.norm()


def test_noise_has_the_stated_deviation_and_depends_on_seed_and_round_alone() -> None:
    """d = 400 000 draws: the sample deviation is within 4/√(2d) = 0.45 % of σ, the mean within 4σ/√d."""
    points = torch.zeros(3, 400_000)
    rule = NormClipping(max_norm=1.0, noise_std=0.25)
    update = rule(points, None, RoundContext(seed=1, round_number=2)).update
    assert float(update.std()) == pytest.approx(0.25, rel=4.5e-3)
    assert abs(float(update.mean())) <= 4 * 0.25 / 400_000**0.5
    half = update[: len(update) // 2].double(), update[len(update) // 2 :].double()
    assert abs(float(torch.corrcoef(torch.stack(half))[0, 1])) < 0.01  # chunks do not repeat one draw
    assert torch.equal(rule(points, None, RoundContext(seed=1, round_number=2)).update, update)
    for other in (RoundContext(seed=2, round_number=2), RoundContext(seed=1, round_number=3)):
        assert not torch.equal(rule(points, None, other).update, update)


def test_noise_is_the_same_for_shards_and_in_float64() -> None:
    points = torch.randn(4, 150_001, generator=torch_generator(4, "shards"))
    rule = NormClipping(noise_std=0.1)
    update = rule(points).update
    torch.testing.assert_close(rule(Shards.split(points, ["cpu", "cpu"])).update, update, rtol=0, atol=1e-6)
    torch.testing.assert_close(rule(points.double()).update.float(), update, rtol=0, atol=1e-6)


@pytest.mark.parametrize("bad", [float("nan"), float("-inf")])
def test_rows_that_are_not_finite_are_named(bad: float) -> None:
    points = torch.ones(3, 4)
    points[2, 0] = bad
    with pytest.raises(ValueError, match=r"rows \[2\] hold NaN or infinity"):
        NormClipping()(points)


@pytest.mark.parametrize(("field", "value"), [("max_norm", 0.0), ("noise_std", -0.1)])
def test_fields_out_of_range_are_refused(field: str, value: float) -> None:
    with pytest.raises(FieldError, match=f"{field}: must be .*got {value}"):
        NormClipping(**{field: value})
