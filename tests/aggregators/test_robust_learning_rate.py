import numpy as np
import pytest
import torch

from fedrobust._linalg.columns import Shards
from fedrobust.aggregators import Mean
from fedrobust.aggregators.base import UnsuitableSizeError
from fedrobust.aggregators.robust_learning_rate import RobustLearningRate
from fedrobust.config.component import FieldError
from fedrobust.seeds import torch_generator


@pytest.mark.parametrize(("n", "d"), [(1, 5), (2, 9), (10, 200), (25, 64)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equals_the_loop_over_coordinates(n: int, d: int, dtype: torch.dtype) -> None:
    points = torch.randn(n, d, generator=torch_generator(0, n, d), dtype=dtype)
    points[:, ::4] = points[:, ::4].round()
    weights = torch.rand(n, generator=torch_generator(1, n))
    threshold = n // 2 + 1
    expected, flipped = [], 0
    shares = weights.double().numpy() / weights.double().numpy().sum()
    for column in points.double().numpy().T:
        votes = abs(sum((value > 0) - (value < 0) for value in column.tolist()))
        flipped += votes < threshold
        expected.append((1 if votes >= threshold else -1) * sum(shares * column))
    answer = RobustLearningRate(threshold=threshold)(points, weights)
    np.testing.assert_allclose(answer.update.numpy(), expected, rtol=0, atol=1e-6 if dtype == torch.float32 else 1e-12)
    assert dict(answer.diagnostics) == pytest.approx({"threshold": threshold, "flipped_fraction": flipped / d})
    assert answer.shares is None


def test_by_hand() -> None:
    """θ = 3: all three agree in the first coordinate only; the second has votes 1, the third 2 and a zero."""
    points = torch.tensor([[1.0, 1.0, 3.0], [2.0, 2.0, 3.0], [3.0, -6.0, 0.0]])
    answer = RobustLearningRate(threshold=3)(points)
    assert answer.update.tolist() == pytest.approx([2.0, 1.0, -2.0])
    assert answer.diagnostics["flipped_fraction"] == pytest.approx(2 / 3)


@pytest.mark.parametrize(("n", "f"), [(3, 1), (10, 2), (21, 10)])
def test_the_default_threshold_is_the_least_at_which_no_f_votes_decide(n: int, f: int) -> None:
    """A kept coordinate has |Σ sign| ≥ 2f + 1, so turning f votes round leaves its sign; at 2f it could be a tie."""
    rule = RobustLearningRate(assumed_fraction=f / n)
    assert rule.check_size(n) == f
    points = torch.ones(n, 1)
    points[: (n - 2 * f) // 2] = -1
    votes = abs(float(points.sum()))
    answer = rule(points)
    assert answer.diagnostics["threshold"] == 2 * f + 1
    assert (answer.update.item() * float(points.sum()) > 0) == (votes >= 2 * f + 1)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_votes_are_counted_exactly_in_half_precision(dtype: torch.dtype) -> None:
    """2049 is neither a float16 nor a bfloat16: rounded to 2048 it would miss the threshold."""
    assert RobustLearningRate(threshold=2049)(torch.ones(2049, 1, dtype=dtype)).diagnostics["flipped_fraction"] == 0


def test_a_backdoor_that_only_attackers_want_is_undone() -> None:
    """8 honest clients split evenly there, 2 attackers push: votes 2 < 5, the model moves away from the backdoor."""
    points = torch.ones(10, 2)
    points[:4, 1], points[4:8, 1], points[8:, 1] = 0.1, -0.1, 5.0
    update = RobustLearningRate(assumed_fraction=0.2)(points).update
    assert update.tolist() == pytest.approx([1.0, -1.0])


@pytest.mark.parametrize("assumed_fraction", [0.0, 0.049])
def test_without_assumed_attackers_it_is_exactly_the_mean(assumed_fraction: float) -> None:
    """f = ⌊0.049 · 20⌋ = 0; ties too keep their mean."""
    points = torch.randn(20, 30, generator=torch_generator(2, "mean"))
    points[:10, 0], points[10:, 0] = 3.0, -1.0
    answer = RobustLearningRate(assumed_fraction=assumed_fraction)(points)
    assert torch.equal(answer.update, Mean()(points).update)


@pytest.mark.parametrize("distance", [0.0, 1e4])
def test_float32_agrees_with_float64(distance: float) -> None:
    points = torch.randn(9, 200_000, generator=torch_generator(3, "single"))
    points += distance * torch.randn(200_000, generator=torch_generator(4, "offset"))
    rule = RobustLearningRate(assumed_fraction=0.2)
    exact = rule(points.double()).update
    assert (rule(points).update.double() - exact).norm() <= 1e-5 * exact.norm()


def test_shards_give_the_same_answer() -> None:
    points = torch.randn(10, 70_001, generator=torch_generator(5, "shards"), dtype=torch.float64)
    rule = RobustLearningRate(threshold=4)
    expected = rule(points).update
    torch.testing.assert_close(rule(Shards.split(points, ["cpu", "cpu"])).update, expected, rtol=0, atol=1e-12)


def test_rows_that_are_not_finite_are_named() -> None:
    points = torch.ones(4, 3)
    points[3, 0] = float("nan")
    with pytest.raises(ValueError, match=r"rows \[3\] hold NaN or infinity"):
        RobustLearningRate(threshold=1)(points)


def test_too_few_updates_are_refused() -> None:
    with pytest.raises(UnsuitableSizeError, match="n > 2f, got n=2, f=1"):
        RobustLearningRate(assumed_fraction=0.4999999999)(torch.zeros(2, 3))
    with pytest.raises(UnsuitableSizeError, match="n >= threshold, got n=3, threshold=4"):
        RobustLearningRate(threshold=4)(torch.zeros(3, 3))


@pytest.mark.parametrize(("threshold", "f"), [(1, 0), (2, 0), (3, 1), (4, 1), (5, 2)])
def test_a_threshold_says_what_it_withstands(threshold: int, f: int) -> None:
    assert RobustLearningRate(threshold=threshold).check_size(5) == f


@pytest.mark.parametrize("fields", [{}, {"threshold": 3, "assumed_fraction": 0.1}])
def test_both_or_neither_are_refused(fields: dict[str, float]) -> None:
    with pytest.raises(FieldError, match="give either threshold or assumed_fraction"):
        RobustLearningRate(**fields)


@pytest.mark.parametrize(("field", "value"), [("threshold", 0), ("assumed_fraction", 0.5)])
def test_fields_out_of_range_are_refused(field: str, value: float) -> None:
    with pytest.raises(FieldError, match=f"{field}: must be .*got {value}"):
        RobustLearningRate(**{field: value})
