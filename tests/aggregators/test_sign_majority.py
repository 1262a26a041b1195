import numpy as np
import pytest
import torch

from fedrobust._linalg.columns import Shards
from fedrobust.aggregators.sign_majority import SignMajority
from fedrobust.config.component import FieldError
from fedrobust.seeds import torch_generator

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


def count_votes(points: torch.Tensor) -> np.ndarray:
    """Per coordinate, positives minus negatives, one number at a time."""
    rows = points.double().tolist()
    return np.array([sum((row[j] > 0) - (row[j] < 0) for row in rows) for j in range(points.shape[1])])


@pytest.mark.parametrize(("n", "d"), [(1, 5), (2, 40), (7, 40), (20, 333)])
@pytest.mark.parametrize("dtype", DTYPES)
def test_equals_the_count_of_votes(n: int, d: int, dtype: torch.dtype) -> None:
    points = torch.randn(n, d, generator=torch_generator(0, n, d)).to(dtype)
    points[:, ::3] = points[:, ::3].round()  # exact zeros, and ties
    votes = count_votes(points)
    answer = SignMajority(step_size=0.5)(points, torch.rand(n))
    assert answer.update.double().tolist() == (0.5 * np.sign(votes)).tolist()
    assert answer.diagnostics["tied_fraction"] == pytest.approx((votes == 0).mean())
    assert answer.shares is None
    assert answer.scores is None


def test_by_hand() -> None:
    """Two against one; a zero and one against one are a tie; sizes do not count."""
    points = torch.tensor([[1e-30, 0.0, -1.0, 0.0], [1e-30, 1.0, -1.0, 0.0], [-1e30, -5.0, 100.0, 0.0]])
    assert SignMajority(step_size=2.0)(points).update.tolist() == [2.0, 0.0, -2.0, 0.0]


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_majority_of_one_among_thousands_is_seen(dtype: torch.dtype) -> None:
    """2049 against 2048: neither number exists in bfloat16, the former not in float16."""
    points = torch.ones(4097, 2, dtype=dtype)
    points[2049:, 0] = -1
    points[2048:, 1] = -1
    assert SignMajority(step_size=1.0)(points).update.tolist() == [1.0, -1.0]


def test_noise_that_is_symmetric_with_one_peak_is_outvoted() -> None:
    """The paper's setting: g = 0.3, unit Gaussian noise, 81 honest and 20 that say the opposite.

    An honest vote is right with probability Φ(0.3) = 0.618: the sum has mean 81 · 0.236 - 20 · 0.236 = 14.4 and a
    deviation below √101 = 10.05, so a coordinate is wrong with probability about Φ(-1.44) = 0.075.
    """
    points = 0.3 + torch.randn(101, 2000, generator=torch_generator(1, "noise"))
    points[81:] *= -1
    wrong = float((SignMajority(step_size=1.0)(points).update <= 0).float().mean())
    assert wrong == pytest.approx(0.075, abs=0.025)


def test_no_minority_turns_what_the_honest_agree_on() -> None:
    points = torch.rand(21, 500, generator=torch_generator(2, "agree")) + 0.1
    points[11:] = -1e30
    assert SignMajority(step_size=0.01)(points).update.tolist() == pytest.approx([0.01] * 500)


def test_shards_and_strides_give_the_same_answer() -> None:
    points = torch.randn(30, 70_001, generator=torch_generator(3, "shards"))
    expected = SignMajority()(points).update
    assert torch.equal(SignMajority()(Shards.split(points, ["cpu", "cpu"])).update, expected)
    assert torch.equal(SignMajority()(points.T.contiguous().T).update, expected)


def test_finite_numbers_whose_sum_overflows_still_vote() -> None:
    points = torch.full((5, 3), 3e38)
    points[0] = -3e38
    assert SignMajority(step_size=1.0)(points).update.tolist() == [1.0, 1.0, 1.0]


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_rows_that_are_not_finite_are_named(bad: float) -> None:
    points = torch.ones(3, 300_000)
    points[1, 299_999] = bad
    with pytest.raises(ValueError, match=r"rows \[1\] hold NaN or infinity"):
        SignMajority()(points)


@pytest.mark.parametrize("value", [0.0, -1.0])
def test_a_step_size_out_of_range_is_refused(value: float) -> None:
    with pytest.raises(FieldError, match=f"step_size: must be greater than 0, got {value}"):
        SignMajority(step_size=value)
