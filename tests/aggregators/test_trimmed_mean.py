import numpy as np
import pytest
import torch
from scipy.stats import trim_mean

from fedrobust.aggregators import TrimmedMean
from fedrobust.aggregators.base import UnsuitableSizeError
from fedrobust.config.component import FieldError
from fedrobust.seeds import torch_generator


@pytest.mark.parametrize("n", [1, 3, 10, 15, 100])
@pytest.mark.parametrize("assumed_fraction", [0.0, 0.1, 0.2, 0.45])
def test_equals_scipy(n: int, assumed_fraction: float) -> None:
    """`scipy.stats.trim_mean` cuts ⌊εn⌋ on each side too."""
    points = torch.randn(n, 29, generator=torch_generator(0, "points", n), dtype=torch.float64)
    answer = TrimmedMean(assumed_fraction=assumed_fraction)(points)
    np.testing.assert_allclose(answer.update.numpy(), trim_mean(points.numpy(), assumed_fraction, axis=0), atol=1e-13)


def test_large_extremes_cost_no_digits() -> None:
    """Of -1e30, 1, 2, 3, 1e10 with f = 1 the rest averages to 2; the total minus the extremes would be 0."""
    points = torch.tensor([[1e10], [1.0], [3.0], [2.0], [-1e30]])
    assert TrimmedMean(assumed_fraction=0.2)(points).update.tolist() == [2.0]


def test_the_count_is_not_lost_to_rounding() -> None:
    """0.07 · 100 = 7.000000000000001 and 0.29 · 100 = 28.999999999999996 in floating point; f is 7 and 29."""
    points = torch.zeros(100, 1)
    for fraction, f in ((0.07, 7), (0.29, 29)):
        diagnostics = TrimmedMean(assumed_fraction=fraction)(points).diagnostics
        assert diagnostics["num_trimmed_per_side"] == f


@pytest.mark.parametrize("assumed_fraction", [-0.1, 0.5, 1.0])
def test_a_fraction_out_of_range_is_refused(assumed_fraction: float) -> None:
    with pytest.raises(FieldError, match="assumed_fraction"):
        TrimmedMean(assumed_fraction=assumed_fraction)


def test_a_count_takes_the_fractions_place() -> None:
    """Of 7 values with 2 dropped on each side three are left: SciPy's `trim_mean` with the fraction 2 / 7."""
    points = torch.randn(7, 29, generator=torch_generator(1, "points"), dtype=torch.float64)
    answer = TrimmedMean(assumed_fraction=0.4, num_trimmed=2)(points)
    np.testing.assert_allclose(answer.update.numpy(), trim_mean(points.numpy(), 2 / 7 + 1e-9, axis=0), atol=1e-13)
    assert answer.diagnostics["num_trimmed_per_side"] == 2


def test_a_count_too_large_or_none_at_all_is_refused() -> None:
    with pytest.raises(UnsuitableSizeError, match="n=6, num_trimmed=3"):
        TrimmedMean(num_trimmed=3)(torch.zeros(6, 2))
    with pytest.raises(FieldError, match="assumed_fraction: must be given, or num_trimmed"):
        TrimmedMean()


@pytest.mark.parametrize("n", [5, 9])
def test_where_flpoison_answers_zero_it_is_the_mean(n: int) -> None:
    """FLPoison (commit eb74fb2) takes the k smallest and k largest rows off the total, the largest as `rows[-k:]`.

    With its β = 0.1 and n < 10 none are to go, k = 0, and `rows[-0:]` is all of them: it answers 0.
    """
    points = torch.randn(n, 29, generator=torch_generator(2, "points", n), dtype=torch.float64).numpy()
    k, ordered = int(0.1 * n), np.sort(points, axis=0)
    theirs = (points.sum(axis=0) - ordered[:k].sum(axis=0) - ordered[-k:].sum(axis=0)) / (n - 2 * k)
    np.testing.assert_allclose(theirs, 0, atol=1e-12)
    answer = TrimmedMean(assumed_fraction=0.1)(torch.from_numpy(points))
    np.testing.assert_allclose(answer.update.numpy(), points.mean(axis=0), atol=1e-13)
