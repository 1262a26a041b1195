import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from fedrobust._linalg.columns import Shards
from fedrobust.aggregators.base import RoundContext
from fedrobust.aggregators.fl_trust import FLTrust
from fedrobust.config.component import FieldError
from fedrobust.seeds import torch_generator
from fedrobust.types import UnusableUpdatesError

Array = NDArray[np.float64]


def rule_of_the_paper(updates: Array, root: Array) -> tuple[Array, Array]:
    """Equations for trust scores, rescaling and the weighted average, one client after the other."""
    total, trusts = np.zeros(updates.shape[1]), []
    for update in updates:
        cosine = sum(a * b for a, b in zip(update, root, strict=True)) / np.sqrt(sum(update**2)) / np.sqrt(sum(root**2))
        trust = max(0.0, cosine)
        total += trust * np.sqrt(sum(root**2)) / np.sqrt(sum(update**2)) * update
        trusts.append(trust)
    return total / sum(trusts), np.array(trusts)


def sample(n: int, d: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Clients about a common direction, at many scales; the server's own update is another draw."""
    generator = torch_generator(0, "fl_trust", n, d)
    direction = torch.randn(d, generator=generator, dtype=torch.float64)
    updates = direction + 2 * torch.randn(n, d, generator=generator, dtype=torch.float64)
    updates *= torch.logspace(-2, 2, n, dtype=torch.float64)[:, None]
    updates[: n // 3] *= -1
    return updates, updates[-1] + direction


@pytest.mark.parametrize(("n", "d"), [(1, 4), (2, 3), (5, 7), (12, 40), (40, 11)])
def test_equals_the_formula_client_by_client(n: int, d: int) -> None:
    updates, root = sample(n, d)
    answer = FLTrust()(updates, torch.arange(1, n + 1, dtype=torch.float64), RoundContext(root_update=root))
    expected, trusts = rule_of_the_paper(updates.numpy(), root.numpy())
    np.testing.assert_allclose(answer.update.numpy(), expected, rtol=0, atol=1e-12)
    assert answer.shares is not None
    assert answer.scores is not None
    np.testing.assert_allclose(answer.shares.numpy(), trusts / trusts.sum(), rtol=0, atol=1e-12)
    assert ((answer.scores < 1) == (answer.shares > 0)).all()
    assert answer.diagnostics["num_filtered"] == (trusts == 0).sum()


def test_two_clients_by_hand() -> None:
    """g₀ = (2, 0). Cosines 1, 0.6, -1: (1·(2, 0) + 0.6·2·(0.6, 0.8)) / 1.6 = (1.7, 0.6)."""
    updates = torch.tensor([[10.0, 0.0], [0.3, 0.4], [-1.0, 0.0]])
    answer = FLTrust()(updates, None, RoundContext(root_update=torch.tensor([2.0, 0.0])))
    assert answer.update.tolist() == pytest.approx([1.7, 0.6])
    assert answer.shares is not None
    assert answer.scores is not None
    assert answer.shares.tolist() == pytest.approx([0.625, 0.375, 0.0])
    assert answer.scores.tolist() == pytest.approx([0.0, 0.4, 2.0])
    assert dict(answer.diagnostics) == pytest.approx({"root_norm": 2, "mean_trust": 1.6 / 3, "num_filtered": 1})


@pytest.mark.parametrize("scale", [1.0, 1e12, 1e30, 1e38])
def test_a_majority_of_attackers_neither_lengthens_nor_turns_the_answer(scale: float) -> None:
    """Trust is at most 1 and everything is rescaled: the answer is at most ‖g₀‖ long, whatever 15 of 20 send."""
    generator = torch_generator(1, "majority")
    root = torch.randn(30, generator=generator)
    updates = root + torch.randn(20, 30, generator=generator)
    updates[:15] *= -scale / updates[:15].abs().max()
    answer = FLTrust()(updates, None, RoundContext(root_update=root))
    assert answer.shares is not None
    assert answer.shares[:15].tolist() == [0.0] * 15
    assert answer.update.norm() <= root.norm() * (1 + 1e-6)
    assert answer.update @ root > 0.5 * root.norm() * answer.update.norm()


@pytest.mark.parametrize("updates", [[[-1.0, 0.0], [0.0, 3.0]], [[0.0, 0.0], [0.0, 0.0]]])
def test_without_trust_the_answer_is_zero(updates: list[list[float]]) -> None:
    answer = FLTrust()(torch.tensor(updates), None, RoundContext(root_update=torch.tensor([1.0, 0.0])))
    assert answer.update.tolist() == [0.0, 0.0]
    assert answer.shares is not None
    assert answer.shares.tolist() == [0.0, 0.0]
    assert answer.diagnostics["num_filtered"] == 2


def test_a_root_update_of_norm_zero_trusts_nobody() -> None:
    answer = FLTrust()(torch.ones(3, 2), None, RoundContext(root_update=torch.zeros(2)))
    assert answer.update.tolist() == [0.0, 0.0]


@pytest.mark.parametrize("distance", [0.0, 1e4])
def test_float32_agrees_with_float64(distance: float) -> None:
    """Also with all updates 10⁴ times their spread from the origin."""
    generator = torch_generator(2, "precision")
    far = torch.randn(200_000, generator=generator)
    updates = torch.randn(12, 200_000, generator=generator) + distance * far + 0.1 * far
    root = far + torch.randn(200_000, generator=generator)
    exact = FLTrust()(updates.double(), None, RoundContext(root_update=root.double())).update
    found = FLTrust()(updates, None, RoundContext(root_update=root)).update
    assert found.dtype == torch.float32
    assert (found.double() - exact).norm() <= 1e-5 * exact.norm()


def test_shards_give_the_same_answer() -> None:
    updates, root = sample(9, 101)
    whole = FLTrust()(updates, None, RoundContext(root_update=root))
    sharded = FLTrust()(Shards.split(updates, ["cpu", "cpu"]), None, RoundContext(root_update=root))
    torch.testing.assert_close(sharded.update, whole.update, rtol=0, atol=1e-12)


@pytest.mark.parametrize("context", [None, RoundContext()])
def test_no_root_update_is_refused(context: RoundContext | None) -> None:
    with pytest.raises(ValueError, match=r"own update of shape \(2,\): give RoundContext\(root_update=...\)"):
        FLTrust()(torch.zeros(3, 2), None, context)


@pytest.mark.parametrize(
    ("root", "message"),
    [
        (torch.zeros(3), r"shape \(2,\), got torch.float32 \(3,\)"),
        (torch.zeros(2, dtype=torch.int64), "floating tensor"),
    ],
)
def test_a_root_update_that_does_not_fit_is_refused(root: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FLTrust()(torch.ones(3, 2), None, RoundContext(root_update=root))


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_root_training_that_diverged_costs_the_round_and_not_the_run(value: float) -> None:
    """A round goes on with the model as it is after an `UnusableUpdatesError` alone."""
    with pytest.raises(UnusableUpdatesError, match="root_update must be finite"):
        FLTrust()(torch.ones(3, 2), None, RoundContext(root_update=torch.tensor([1.0, value])))


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_updates_that_are_not_finite_are_refused(value: float) -> None:
    updates = torch.ones(3, 2)
    updates[1, 0] = value
    with pytest.raises(ValueError, match=r"rows \[1\] hold NaN or infinity"):
        FLTrust()(updates, None, RoundContext(root_update=torch.ones(2)))


def test_a_root_data_set_of_no_examples_is_refused() -> None:
    with pytest.raises(FieldError, match="num_root_examples: must be greater than or equal to 1, got 0"):
        FLTrust(num_root_examples=0)
