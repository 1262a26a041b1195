"""What every aggregation rule promises, over a table of all rules."""

import dataclasses
import random
import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rule_cases import (
    ABOUT_ORIGIN,
    ASSUMING,
    BY_POSITION,
    CASES,
    COORDINATE_WISE,
    FEW_OF_EQUALS,
    KEEPS_FEW,
    NO_AVERAGE,
    NO_BREAKDOWN,
    NO_ROTATION,
    NOT_THE_MEAN,
    ONE_DIRECTION,
    OWN_SCALE,
    Case,
    sample,
    without,
)
from torch import Tensor

from fedrobust.aggregators import SpectralFilter, UnsuitableSizeError, assumed_count
from fedrobust.aggregators.base import SizedAggregator
from fedrobust.seeds import torch_generator

ALL = pytest.mark.parametrize("name", CASES)


def all_but(*reasons: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("name", without(*reasons))


shapes = st.tuples(st.integers(5, 25), st.integers(2, 12), st.integers(0, 10**6))
"""n, d and a seed; on a line the geometric median of an even number of points is not one point."""
few_examples = settings(max_examples=15, deadline=None, derandomize=True, database=None)


def accepts(name: str, n: int) -> bool:
    """Whether the rule works with n updates; where it does not, it says so with the numbers."""
    rule = CASES[name].rule
    if not isinstance(rule, SizedAggregator):
        return True
    try:
        rule.check_size(n)
    except UnsuitableSizeError as error:
        refusal = str(error)
    else:
        return True
    with pytest.raises(UnsuitableSizeError, match=re.escape(refusal)):
        CASES[name](sample(n, num_shifted=0))
    return False


@all_but(BY_POSITION)
@few_examples
@given(shape=shapes)
def test_permuting_clients_permutes_shares_and_scores_and_keeps_the_update(name: str, shape) -> None:
    n, d, seed = shape
    if not accepts(name, n):
        return
    points = sample(n, d, num_shifted=n // 5, seed=seed)
    order = torch.randperm(n, generator=torch_generator(seed, "order"))
    before, after = CASES[name](points), CASES[name](points[order])
    torch.testing.assert_close(after.update, before.update, rtol=1e-9, atol=1e-9)
    for was, now in ((before.shares, after.shares), (before.scores, after.scores)):
        assert (was is None) == (now is None)
        if was is not None and now is not None:
            torch.testing.assert_close(now, was[order], rtol=1e-7, atol=1e-7)


@all_but(ABOUT_ORIGIN)
@few_examples
@given(shape=shapes, distance=st.sampled_from([1.0, 1e3]))
def test_translation_equivariance(name: str, shape, distance: float) -> None:
    n, d, seed = shape
    if not accepts(name, n):
        return
    points = sample(n, d, num_shifted=n // 5, seed=seed)
    shift = distance * torch.randn(d, generator=torch_generator(seed, "shift"), dtype=torch.float64)
    expected = CASES[name](points).update + shift
    torch.testing.assert_close(CASES[name](points + shift).update, expected, rtol=0, atol=1e-8)


@ALL
def test_rotation_equivariance_holds_for_all_but_the_coordinate_wise(name: str) -> None:
    """A root update and a subset of coordinates do not rotate along: there, nothing is claimed."""
    points = sample()
    gaussian = torch.randn(7, 7, generator=torch_generator(3, "rotation"), dtype=torch.float64)
    rotation = torch.linalg.qr(gaussian).Q
    gap = float((CASES[name](points @ rotation).update - CASES[name](points).update @ rotation).norm())
    if COORDINATE_WISE in CASES[name].exempt:
        assert gap > 1e-4
    elif NO_ROTATION not in CASES[name].exempt:
        assert gap < 1e-9


@all_but(OWN_SCALE)
@few_examples
@given(shape=shapes, factor=st.sampled_from([1e-4, 3.0, 1e5]))
def test_scale_equivariance(name: str, shape, factor: float) -> None:
    """Equivariant if a setting that has the unit of an update (sigma) is scaled, too."""
    n, d, seed = shape
    if not accepts(name, n):
        return
    points = sample(n, d, num_shifted=n // 5, seed=seed)
    scaled = CASES[name]
    if name == "spectral_filter_sigma":
        scaled = Case(SpectralFilter(assumed_fraction=0.2, sigma=factor))
    expected = factor * CASES[name](points).update
    torch.testing.assert_close(scaled(factor * points).update, expected, rtol=1e-8, atol=1e-7 * factor)


@all_but(OWN_SCALE)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("n", [1, 2, 3, 10])
@pytest.mark.parametrize("d", [1, 5])
def test_identical_clients_are_returned_unchanged(name: str, dtype: torch.dtype, n: int, d: int) -> None:
    if not accepts(name, n):
        return
    row = 3 * torch.randn(d, generator=torch_generator(4, "row"), dtype=dtype)
    answer = CASES[name](row.repeat(n, 1))
    torch.testing.assert_close(answer.update, row)
    if answer.shares is not None and FEW_OF_EQUALS not in CASES[name].exempt:
        torch.testing.assert_close(answer.shares, torch.full((n,), 1 / n, dtype=torch.float64))


@all_but(OWN_SCALE, NO_AVERAGE)
@pytest.mark.parametrize("n", [2, 5, 11])
def test_one_dimension_stays_within_the_data(name: str, n: int) -> None:
    if not accepts(name, n):
        return
    points = sample(n, 1, num_shifted=n // 5)
    assert points.min() - 1e-12 <= CASES[name](points).update[0] <= points.max() + 1e-12


@pytest.mark.parametrize("name", [name for name in ASSUMING if name not in NOT_THE_MEAN])
@pytest.mark.parametrize("assumed_fraction", [0.0, 0.049])
def test_no_assumed_attacker_gives_the_mean(name: str, assumed_fraction: float) -> None:
    """f = ⌊0.049 · 20⌋ = 0 as well."""
    points = sample()
    rule = dataclasses.replace(CASES[name].rule, assumed_fraction=assumed_fraction)
    torch.testing.assert_close(Case(rule)(points).update, points.mean(dim=0), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", [name for name in ASSUMING if name != "robust_learning_rate"])
def test_as_many_attackers_as_honest_clients_are_refused(name: str) -> None:
    """ε = 0.4999999999 lies in [0, 1/2), yet f = ⌊0.9999999998 + 1e-9⌋ = 1 of 2."""
    rule = dataclasses.replace(CASES[name].rule, assumed_fraction=0.4999999999)
    with pytest.raises(UnsuitableSizeError, match="got n=2, f=1"):
        Case(rule)(torch.zeros(2, 3))


@pytest.mark.parametrize("name", ["spectral_filter", "spectral_filter_quantum_entropy", "sever", "no_regret_filter"])
def test_copies_of_an_attacker_leave_together(name: str) -> None:
    points = sample(20, 30, num_shifted=0).float()
    points[16:] = points[16] + 5.0
    shares = CASES[name](points).shares
    assert shares is not None
    assert shares[16:].tolist() == [0.0] * 4


@all_but(NO_BREAKDOWN)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("n", "f"), [(11, 2), (20, 4), (100, 20)])
@pytest.mark.parametrize("placement", ["together", "apart", "opposite", "many_scales"])
@pytest.mark.parametrize("magnitude", [1e3, 1e6, 1e12])
def test_outliers_do_bounded_harm(
    name: str, dtype: torch.dtype, n: int, f: int, placement: str, magnitude: float
) -> None:
    """However far the f attackers go, the answer stays no farther from the honest mean than an honest client may be.

    A rule whose answer has a length of its own is held to that length instead: it stays below the honest norms.
    """
    if n > CASES[name].max_n or (placement == "many_scales" and ONE_DIRECTION in CASES[name].exempt):
        return
    d = 50
    generator = torch_generator(5, placement, n)
    points = torch.randn(n, d, generator=generator, dtype=torch.float64)
    directions = torch.linalg.qr(torch.randn(d, f, generator=generator, dtype=torch.float64)).Q.T
    if placement == "together":
        directions = directions[:1].expand(f, d)
    elif placement == "opposite":
        directions = directions[:1] * torch.tensor([1.0, -1.0], dtype=torch.float64).repeat(f // 2)[:, None]
    elif placement == "many_scales":
        directions = directions * torch.logspace(0, -9, f, dtype=torch.float64)[:, None]
    points[n - f :] += magnitude * directions
    honest = points[: n - f]
    error = (CASES[name](points.to(dtype)).update.double() - honest.mean(dim=0)).norm()
    assert error <= (honest - honest.mean(dim=0)).norm(dim=1).max()


@all_but(NO_BREAKDOWN)
@pytest.mark.parametrize("size", [1e30, 1e38])
def test_an_outlier_whose_float32_square_overflows_does_bounded_harm(name: str, size: float) -> None:
    points = sample(11, 50, num_shifted=0).float()
    points[9] = size
    update = CASES[name](points).update
    assert torch.isfinite(update).all()
    assert update.norm() <= points[:9].norm(dim=1).max()


@ALL
def test_shares_are_a_distribution_and_scores_are_finite(name: str) -> None:
    answer = CASES[name](sample(), torch.arange(20) + 1.0)
    assert all(isinstance(value, float) for value in answer.diagnostics.values())
    if answer.shares is None:
        assert COORDINATE_WISE in CASES[name].exempt
        return
    assert (answer.shares >= 0).all()
    assert float(answer.shares.sum()) == pytest.approx(1, abs=1e-12)
    assert answer.scores is None or bool(torch.isfinite(answer.scores).all())


@all_but(NO_AVERAGE)
def test_the_update_is_what_the_shares_say(name: str) -> None:
    points, weights = sample(), torch.arange(20) + 1.0
    answer = CASES[name](points, weights)
    if answer.shares is not None:
        torch.testing.assert_close(answer.update, answer.shares @ points, rtol=0, atol=1e-12)


@ALL
def test_only_the_proportions_of_the_weights_matter(name: str) -> None:
    points, weights = sample(), torch.arange(20) + 1.0
    one, other = CASES[name](points, weights).update, CASES[name](points, 7 * weights).update
    torch.testing.assert_close(other, one, rtol=1e-12, atol=1e-12)


@all_but(KEEPS_FEW)
def test_most_clients_survive(name: str) -> None:
    """Never fewer than n - 2f of n, also on clean data."""
    for n in (5, 10, 11, 20, 33):
        if n <= CASES[name].max_n and accepts(name, n):
            shares = CASES[name](sample(n, num_shifted=0)).shares
            if shares is not None:
                assert int((shares > 0).sum()) >= n - 2 * assumed_count(0.2, n)


@ALL
def test_ties_are_broken_the_same_way_each_time(name: str) -> None:
    """Points on a coarse grid, many of them equal: the answer is one of the ties, and always the same."""
    grid = sample(20, 2).round()
    first, second = CASES[name](grid), CASES[name](grid.clone())
    assert torch.equal(first.update, second.update)
    assert bool(first.update.isfinite().all())


@ALL
def test_inputs_are_not_changed(name: str) -> None:
    points, weights = sample(), torch.ones(20)
    copies = points.clone(), weights.clone()
    CASES[name](points, weights)
    assert torch.equal(points, copies[0])
    assert torch.equal(weights, copies[1])


@ALL
def test_memory_layout_does_not_matter(name: str) -> None:
    points = sample()
    every_second = torch.stack([points, -points], dim=2).reshape(20, 14)[:, ::2]
    column_major = points.T.contiguous().T
    expected = CASES[name](points).update
    for layout in (every_second, column_major):
        assert not layout.is_contiguous()
        torch.testing.assert_close(CASES[name](layout).update, expected, rtol=0, atol=1e-12)


@ALL
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_the_answer_has_the_dtype_of_the_input(name: str, dtype: torch.dtype) -> None:
    answer = CASES[name](sample().to(dtype))
    assert answer.update.dtype == dtype
    assert answer.update.shape == (7,)


@ALL
@pytest.mark.parametrize("n", [10, 40, 160])
def test_float32_agrees_with_float64(name: str, n: int) -> None:
    if n > CASES[name].max_n or not accepts(name, n):
        return
    points = sample(n, 300, num_shifted=n // 10).float()
    exact = CASES[name](points.double()).update
    assert (CASES[name](points).update.double() - exact).norm() <= 1e-5 * exact.norm()


@all_but(ABOUT_ORIGIN)
def test_float32_far_from_the_origin_agrees_with_float64(name: str) -> None:
    """Rows at 10⁴ times their spread, as weights are instead of updates: who is kept and how much stays the same."""
    points = sample(20, 300).float()
    points += 1e4 * points.norm(dim=1).median() / 300**0.5
    exact, answer = CASES[name](points.double()), CASES[name](points)
    assert (answer.update.double() - exact.update).norm() <= 1e-6 * exact.update.norm()
    if exact.shares is not None:
        torch.testing.assert_close(answer.shares, exact.shares, rtol=0, atol=1e-4)


@ALL
@pytest.mark.parametrize("n", [20, 160])
def test_the_same_input_gives_the_same_bits(name: str, n: int) -> None:
    if n > CASES[name].max_n:
        return
    points = sample(n, num_shifted=n // 5)
    first, second = CASES[name](points), CASES[name](points.clone())
    assert torch.equal(first.update, second.update)
    if first.scores is not None and second.scores is not None:
        assert torch.equal(first.scores, second.scores)
    assert first.diagnostics == second.diagnostics


@ALL
def test_global_generators_and_precision_are_left_alone(name: str) -> None:
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
    torch.set_float32_matmul_precision("high")
    try:
        CASES[name](sample(min(160, CASES[name].max_n)))
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision("highest")
    after = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
    assert torch.equal(before[0], after[0])
    assert before[1:] == after[1:]


@ALL
@pytest.mark.parametrize(
    "updates",
    [torch.zeros(3), torch.zeros(3, 2, 2), torch.zeros(3, 2, dtype=torch.int64), torch.zeros(0, 2), torch.zeros(2, 0)],
)
def test_bad_updates_are_refused(name: str, updates: Tensor) -> None:
    with pytest.raises(ValueError, match="updates must"):
        CASES[name](updates)


@ALL
@pytest.mark.parametrize("weights", [[1.0, 1.0], [1.0, 1.0, -1.0], [0.0, 0.0, 0.0], [1.0, 1.0, float("nan")]])
def test_bad_weights_are_refused(name: str, weights: list[float]) -> None:
    with pytest.raises(ValueError, match="weights must"):
        CASES[name](torch.zeros(3, 2), torch.tensor(weights))
