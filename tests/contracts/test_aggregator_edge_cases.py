"""What every rule promises at the edges of its input: one client, no weight, huge rows, weights instead of updates."""

import math

import pytest
import torch
from rule_cases import ABOUT_ORIGIN, BY_POSITION, CASES, NO_BREAKDOWN, OWN_SCALE, sample, without

from fedrobust.aggregators import UnsuitableSizeError
from fedrobust.seeds import torch_generator

ALL = pytest.mark.parametrize("name", CASES)


@ALL
def test_a_single_client_is_the_answer_or_refused_with_the_numbers(name: str) -> None:
    """f = ⌊0.2 · 1⌋ = 0. A rule whose answer has a length of its own keeps the client's direction, or its signs."""
    row = torch.tensor([[3.0, -1.0, 2.0]], dtype=torch.float64)
    try:
        answer = CASES[name](row)
    except UnsuitableSizeError as error:
        assert name in ("krum", "multi_krum", "bulyan")  # 2f + 3 and 4f + 3 are 3
        assert "got n=1, f=0" in str(error)  # noqa: PT017
        return
    if answer.shares is not None:
        assert answer.shares.tolist() == [1.0]
    if OWN_SCALE not in CASES[name].exempt:
        torch.testing.assert_close(answer.update, row[0], rtol=1e-12, atol=0)
    elif name == "sign_majority":
        assert torch.equal(answer.update.sign(), row[0].sign())
    else:
        cosine = torch.nn.functional.cosine_similarity(answer.update, row[0], dim=0)
        assert float(cosine) == pytest.approx(1, abs=1e-12)


@ALL
def test_a_client_of_no_weight_is_not_in_the_answer(name: str) -> None:
    """FLTrust believes its own update alone: it ignores the server's weights."""
    points, weights = sample(), torch.ones(20)
    weights[2] = 0.0
    shares = CASES[name](points, weights).shares
    if shares is not None and name != "fl_trust":
        assert float(shares[2]) == 0.0


@pytest.mark.parametrize("name", without(BY_POSITION))
def test_weights_go_with_their_clients(name: str) -> None:
    points, weights = sample(), torch.arange(20) + 1.0
    order = torch.randperm(20, generator=torch_generator(6, "order"))
    before, after = CASES[name](points, weights), CASES[name](points[order], weights[order])
    torch.testing.assert_close(after.update, before.update, rtol=1e-9, atol=1e-9)
    if before.shares is not None and after.shares is not None:
        torch.testing.assert_close(after.shares, before.shares[order], rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("name", [name for name, one in CASES.items() if NO_BREAKDOWN in one.exempt])
@pytest.mark.parametrize("size", [1e30, 1e38])
def test_without_a_breakdown_point_a_huge_row_still_gives_finite_numbers(name: str, size: float) -> None:
    """Float32 squares of the row overflow. The others' answers are held to more, in the contract itself."""
    points = sample(11, 50, num_shifted=0).float()
    points[9] = size
    answer = CASES[name](points)
    assert bool(answer.update.isfinite().all())
    assert float(answer.update.double().norm()) <= size * math.sqrt(50) * (1 + 1e-6)
    for values in (answer.shares, answer.scores):
        assert values is None or bool(values.isfinite().all())
    assert all(math.isfinite(value) for value in answer.diagnostics.values())


@pytest.mark.parametrize("name", [name for name, one in CASES.items() if ABOUT_ORIGIN in one.exempt])
def test_float32_far_from_the_origin_agrees_with_float64_about_angles_and_norms(name: str) -> None:
    """Rows at 10⁴ times their spread: their cosines are 1 - 1e-8, below what float32 products can tell."""
    points = sample(20, 300).float()
    points += 1e4 * points.norm(dim=1).median() / 300**0.5
    exact, answer = CASES[name](points.double()), CASES[name](points)
    assert (answer.update.double() - exact.update).norm() <= 1e-6 * exact.update.norm()
    if exact.shares is not None:
        torch.testing.assert_close(answer.shares, exact.shares, rtol=0, atol=1e-4)


@ALL
def test_weights_whose_sum_overflows_are_weights(name: str) -> None:
    """Only their proportions matter: 1e308 each is as good as 1 each, though twenty of them add up to infinity."""
    points = sample()
    answer = CASES[name](points, torch.full((20,), 1e308, dtype=torch.float64))
    torch.testing.assert_close(answer.update, CASES[name](points).update, rtol=1e-9, atol=1e-12)


@ALL
def test_what_is_no_tensor_is_refused_by_name(name: str) -> None:
    points = sample()
    rule = CASES[name].rule
    for updates in (points.numpy(), points.tolist()):
        with pytest.raises(ValueError, match=r"updates must be a tensor, got (ndarray|list)"):
            rule(updates)
    for weights in ([1.0] * 20, points[:, 0].numpy()):
        with pytest.raises(ValueError, match=r"weights must be a tensor, got (ndarray|list)"):
            rule(points, weights)
