"""What every aggregation rule promises, over a table of all rules."""

import random

import numpy as np
import pytest
import torch
from torch import Tensor

from fedrobust.aggregators import Aggregator, CoordinateMedian, Mean, Sever, SpectralFilter, TrimmedMean, assumed_count
from fedrobust.seeds import torch_generator

RULES: dict[str, Aggregator] = {
    "mean": Mean(),
    "coordinate_median": CoordinateMedian(),
    "trimmed_mean": TrimmedMean(assumed_fraction=0.2),
    "spectral_filter": SpectralFilter(assumed_fraction=0.2),
    "spectral_filter_sigma": SpectralFilter(assumed_fraction=0.2, sigma=1.0),
    "sever": Sever(assumed_fraction=0.2),
    "sever_three_rounds": Sever(assumed_fraction=0.2, num_rounds=3),
}
COORDINATE_WISE = {"coordinate_median", "trimmed_mean"}
# A batch of f/2 sees one direction only, so only the one-a-round Sever withstands attackers at many scales.
WITHSTAND_OUTLIERS = ["coordinate_median", "trimmed_mean", "spectral_filter", "spectral_filter_sigma", "sever"]
ALL = pytest.mark.parametrize("name", RULES)


def sample(n: int = 20, d: int = 7, *, num_shifted: int = 4, seed: int = 0) -> Tensor:
    """N(0, I) with the last clients shifted by 5 along the diagonal: enough for every filter to act."""
    points = torch.randn(n, d, generator=torch_generator(seed, "sample", n, d), dtype=torch.float64)
    points[n - num_shifted :] += 5.0
    return points


@ALL
def test_permuting_clients_permutes_shares_and_scores_and_keeps_the_update(name: str) -> None:
    points = sample()
    order = torch.randperm(20, generator=torch_generator(1, "order"))
    before, after = RULES[name](points), RULES[name](points[order])
    torch.testing.assert_close(after.update, before.update, rtol=0, atol=1e-12)
    for was, now in ((before.shares, after.shares), (before.scores, after.scores)):
        assert (was is None) == (now is None)
        if was is not None and now is not None:
            torch.testing.assert_close(now, was[order], rtol=0, atol=1e-9)


@ALL
@pytest.mark.parametrize("distance", [1.0, 1e3])
def test_translation_equivariance(name: str, distance: float) -> None:
    points = sample()
    shift = distance * torch.randn(7, generator=torch_generator(2, "shift"), dtype=torch.float64)
    expected = RULES[name](points).update + shift
    torch.testing.assert_close(RULES[name](points + shift).update, expected, rtol=0, atol=1e-9)


@ALL
def test_rotation_equivariance_holds_for_all_but_the_coordinate_wise(name: str) -> None:
    points = sample()
    gaussian = torch.randn(7, 7, generator=torch_generator(3, "rotation"), dtype=torch.float64)
    rotation = torch.linalg.qr(gaussian).Q
    gap = float((RULES[name](points @ rotation).update - RULES[name](points).update @ rotation).norm())
    assert gap > 1e-3 if name in COORDINATE_WISE else gap < 1e-11


@ALL
@pytest.mark.parametrize("factor", [1e-4, 3.0, 1e5])
def test_scale_equivariance(name: str, factor: float) -> None:
    """A rule with an explicit sigma is equivariant if sigma, which has the unit of an update, is scaled too."""
    rule = RULES[name]
    scaled = SpectralFilter(assumed_fraction=0.2, sigma=factor) if name == "spectral_filter_sigma" else rule
    expected = factor * rule(sample()).update
    torch.testing.assert_close(scaled(factor * sample()).update, expected, rtol=1e-10, atol=0)


@ALL
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("n", [1, 2, 3, 10])
@pytest.mark.parametrize("d", [1, 5])
def test_identical_clients_are_returned_unchanged(name: str, dtype: torch.dtype, n: int, d: int) -> None:
    row = 3 * torch.randn(d, generator=torch_generator(4, "row"), dtype=dtype)
    answer = RULES[name](row.repeat(n, 1))
    torch.testing.assert_close(answer.update, row)
    if answer.shares is not None:
        torch.testing.assert_close(answer.shares, torch.full((n,), 1 / n, dtype=torch.float64))


@ALL
@pytest.mark.parametrize("n", [2, 5, 11])
def test_one_dimension_stays_within_the_data(name: str, n: int) -> None:
    points = sample(n, 1, num_shifted=n // 5)
    assert points.min() <= RULES[name](points).update[0] <= points.max()


@pytest.mark.parametrize("rule", [TrimmedMean, SpectralFilter, Sever])
@pytest.mark.parametrize("assumed_fraction", [0.0, 0.049])
def test_no_assumed_attacker_gives_exactly_the_mean(rule: type, assumed_fraction: float) -> None:
    """f = ⌊0.049 · 20⌋ = 0 as well."""
    points = sample()
    update = rule(assumed_fraction=assumed_fraction)(points).update
    if rule is TrimmedMean:
        torch.testing.assert_close(update, points.mean(dim=0))
    else:
        assert torch.equal(update, Mean()(points).update)


@pytest.mark.parametrize("rule", [TrimmedMean, SpectralFilter, Sever])
def test_as_many_attackers_as_honest_clients_are_refused(rule: type) -> None:
    """ε = 0.4999999999 lies in [0, 1/2), yet f = ⌊0.9999999998 + 1e-9⌋ = 1 of 2."""
    with pytest.raises(ValueError, match="n > 2f, got n=2, f=1"):
        rule(assumed_fraction=0.4999999999)(torch.zeros(2, 3))


@pytest.mark.parametrize("name", ["spectral_filter", "sever"])
def test_copies_of_an_attacker_leave_together(name: str) -> None:
    points = sample(20, 30, num_shifted=0).float()
    points[16:] = points[16] + 5.0
    shares = RULES[name](points).shares
    assert shares is not None
    assert shares[16:].tolist() == [0.0] * 4


@pytest.mark.parametrize("name", WITHSTAND_OUTLIERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("n", "f"), [(10, 2), (20, 4), (100, 20)])
@pytest.mark.parametrize("placement", ["together", "apart", "opposite", "many_scales"])
@pytest.mark.parametrize("magnitude", [1e3, 1e6, 1e12])
def test_outliers_do_bounded_harm(
    name: str, dtype: torch.dtype, n: int, f: int, placement: str, magnitude: float
) -> None:
    """However far the f attackers go, the answer stays no farther from the honest mean than an honest client may be."""
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
    error = (RULES[name](points.to(dtype)).update.double() - honest.mean(dim=0)).norm()
    assert error <= (honest - honest.mean(dim=0)).norm(dim=1).max()


@pytest.mark.parametrize("name", WITHSTAND_OUTLIERS)
def test_an_outlier_whose_float32_square_overflows_does_bounded_harm(name: str) -> None:
    points = sample(10, 50, num_shifted=0).float()
    points[9] = 1e38
    update = RULES[name](points).update
    assert torch.isfinite(update).all()
    assert update.norm() <= points[:9].norm(dim=1).max()


@ALL
def test_shares_are_a_distribution_and_scores_are_finite(name: str) -> None:
    answer = RULES[name](sample(), torch.arange(20) + 1.0)
    if name in COORDINATE_WISE:
        assert answer.shares is None
        assert answer.scores is None
        return
    assert answer.shares is not None
    assert (answer.shares >= 0).all()
    assert float(answer.shares.sum()) == pytest.approx(1, abs=1e-12)
    assert answer.scores is None or bool(torch.isfinite(answer.scores).all())
    assert all(isinstance(value, float) for value in answer.diagnostics.values())


@ALL
def test_the_update_is_what_the_shares_say(name: str) -> None:
    points, weights = sample(), torch.arange(20) + 1.0
    answer = RULES[name](points, weights)
    if answer.shares is not None:
        torch.testing.assert_close(answer.update, answer.shares @ points, rtol=0, atol=1e-12)


@ALL
def test_most_clients_survive(name: str) -> None:
    """Never fewer than n - 2f of n, also on clean data."""
    for n in (5, 10, 11, 20, 33):
        shares = RULES[name](sample(n, num_shifted=0)).shares
        if shares is not None:
            assert int((shares > 0).sum()) >= n - 2 * assumed_count(0.2, n)


@ALL
def test_inputs_are_not_changed(name: str) -> None:
    points, weights = sample(), torch.ones(20)
    copies = points.clone(), weights.clone()
    RULES[name](points, weights)
    assert torch.equal(points, copies[0])
    assert torch.equal(weights, copies[1])


@ALL
def test_memory_layout_does_not_matter(name: str) -> None:
    points = sample()
    every_second = torch.stack([points, -points], dim=2).reshape(20, 14)[:, ::2]
    column_major = points.T.contiguous().T
    expected = RULES[name](points).update
    for layout in (every_second, column_major):
        assert not layout.is_contiguous()
        torch.testing.assert_close(RULES[name](layout).update, expected, rtol=0, atol=1e-12)


@ALL
def test_a_tensor_that_requires_gradients_is_read_as_data(name: str) -> None:
    assert not RULES[name](sample().requires_grad_()).update.requires_grad


@ALL
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_the_answer_has_the_dtype_of_the_input(name: str, dtype: torch.dtype) -> None:
    answer = RULES[name](sample().to(dtype))
    assert answer.update.dtype == dtype
    assert answer.update.shape == (7,)


@ALL
@pytest.mark.parametrize("n", [10, 40, 160])
def test_float32_agrees_with_float64(name: str, n: int) -> None:
    points = sample(n, 300, num_shifted=n // 10).float()
    exact = RULES[name](points.double()).update
    assert (RULES[name](points).update.double() - exact).norm() <= 1e-5 * exact.norm()


@ALL
@pytest.mark.parametrize("n", [20, 160])
def test_the_same_input_gives_the_same_bits(name: str, n: int) -> None:
    points = sample(n, num_shifted=n // 5)
    first, second = RULES[name](points), RULES[name](points.clone())
    assert torch.equal(first.update, second.update)
    if first.scores is not None and second.scores is not None:
        assert torch.equal(first.scores, second.scores)
    assert first.diagnostics == second.diagnostics


@ALL
def test_global_generators_and_precision_are_left_alone(name: str) -> None:
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
    torch.set_float32_matmul_precision("high")
    try:
        RULES[name](sample(160))
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
        RULES[name](updates)


@ALL
@pytest.mark.parametrize("weights", [[1.0, 1.0], [1.0, 1.0, -1.0], [0.0, 0.0, 0.0], [1.0, 1.0, float("nan")]])
def test_bad_weights_are_refused(name: str, weights: list[float]) -> None:
    with pytest.raises(ValueError, match="weights must"):
        RULES[name](torch.zeros(3, 2), torch.tensor(weights))
