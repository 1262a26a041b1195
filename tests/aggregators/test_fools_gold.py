import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from fedrobust._linalg.columns import Shards
from fedrobust.aggregators.base import RoundContext
from fedrobust.aggregators.fools_gold import FoolsGold
from fedrobust.config.component import FieldError
from fedrobust.seeds import torch_generator

Array = NDArray[np.float64]


def rule_of_the_paper(histories: Array, confidence: float) -> Array:
    """Algorithm 1 with loops, the largest similarity floored at 0 as in the authors' code."""
    n = len(histories)
    similarity = np.zeros((n, n))
    for i in range(n):
        for j in range(n):
            if i != j:
                a, b = histories[i], histories[j]
                similarity[i, j] = sum(a * b) / np.sqrt(sum(a * a)) / np.sqrt(sum(b * b))
    largest = similarity.max(axis=1)  # the diagonal holds 0
    rates = np.zeros(n)
    for i in range(n):
        for j in range(n):
            if largest[j] > largest[i]:
                similarity[i, j] *= largest[i] / largest[j]
        rates[i] = min(max(1 - similarity[i].max(), 0), 1)
    rates /= rates.max()
    with np.errstate(divide="ignore"):
        return np.clip(confidence * (np.log(rates / (1 - rates)) + 0.5), 0, 1)


def sample(n: int, d: int, num_sybils: int = 0) -> torch.Tensor:
    points = torch.randn(n, d, generator=torch_generator(0, "fools_gold", n, d), dtype=torch.float64)
    points[n - num_sybils :] += 4 * points[-1]
    return points


@pytest.mark.parametrize(("n", "d", "num_sybils"), [(2, 5, 0), (3, 6, 2), (6, 4, 0), (12, 30, 4), (25, 3, 10)])
@pytest.mark.parametrize("confidence", [1.0, 0.3, 4.0])
@pytest.mark.parametrize("use_memory", [True, False])
def test_equals_the_algorithm_of_the_paper(
    n: int, d: int, num_sybils: int, confidence: float, use_memory: bool
) -> None:
    points, weights = sample(n, d, num_sybils), torch.arange(1, n + 1, dtype=torch.float64)
    answer = FoolsGold(confidence=confidence, use_memory=use_memory)(points, weights)
    shares = rule_of_the_paper(points.numpy(), confidence) * weights.numpy()
    shares /= shares.sum()
    assert answer.shares is not None
    np.testing.assert_allclose(answer.shares.numpy(), shares, rtol=0, atol=1e-10)
    np.testing.assert_allclose(answer.update.numpy(), shares @ points.numpy(), rtol=0, atol=1e-10)


@pytest.mark.parametrize("num_sybils", [2, 5, 40])
def test_sybils_lose_all_weight_and_honest_clients_none(num_sybils: int) -> None:
    """Orthogonal honest updates have similarity 0, equal sybils 1, however many there are."""
    points = torch.cat([torch.eye(6)[:5], 7 * torch.eye(6)[5:].repeat(num_sybils, 1)])
    answer = FoolsGold()(points)
    assert answer.shares is not None
    assert answer.scores is not None
    assert answer.shares.tolist() == pytest.approx([0.2] * 5 + [0.0] * num_sybils)
    assert answer.scores.tolist() == pytest.approx([0.0] * 5 + [1.0] * num_sybils)


def test_pardoning_by_hand() -> None:
    """Clients 0 and 1 are sybils at cosine 1, client 2 is honest at cosine 0.8 from both.

    Without pardon α₂ = 0.2, and the rescaled 1 is all the same; so a fourth client, orthogonal to all, holds the
    largest: v₂ = 0.8 < v₀ = 1, c₂₀ = 0.8·0.8 = 0.64, α₂ = 0.36, below 0.38: with κ = 1 no weight. At cosine 0.6 it is
    c₂₀ = 0.36, α₂ = 0.64, and ln(0.64 / 0.36) + 0.5 = 1.08, so all of it; without pardon ln(0.4 / 0.6) + 0.5 = 0.095.
    """
    for cosine, weight in ((0.8, 0.0), (0.6, 1.0)):
        sine = (1 - cosine**2) ** 0.5
        points = torch.tensor([[1.0, 0, 0], [2.0, 0, 0], [cosine, sine, 0], [0, 0, 1.0]], dtype=torch.float64)
        answer = FoolsGold()(points)
        assert answer.shares is not None
        assert answer.scores is not None
        assert answer.shares.tolist() == pytest.approx([0, 0, weight / (1 + weight), 1 / (1 + weight)], abs=1e-12)
        assert float(answer.scores[2]) == pytest.approx(cosine**2)


def test_histories_add_up_by_client_whoever_takes_part() -> None:
    """Three rounds of different clients in different places, against sums kept in a dictionary."""
    sums = {client: np.zeros(8) for client in (3, 5, 8, 9)}
    state = RoundContext().state
    for round_number, clients in enumerate([(3, 5, 8), (9, 3), (8, 9, 3, 5)]):
        points = torch.randn(len(clients), 8, generator=torch_generator(1, round_number), dtype=torch.float64)
        before = {name: values.clone() for name, values in state.items()}
        answer = FoolsGold()(points, None, RoundContext(clients=clients, state=state))
        assert all(torch.equal(values, before[name]) for name, values in state.items())  # the old memory is not touched
        for client, row in zip(clients, points.numpy(), strict=True):
            sums[client] = sums[client] + row
        shares = rule_of_the_paper(np.stack([sums[client] for client in clients]), 1.0)
        assert answer.shares is not None
        np.testing.assert_allclose(answer.shares.numpy(), shares / shares.sum(), rtol=0, atol=1e-10)
        state = answer.state
        for client, history in zip(state["clients"].tolist(), state["history"].numpy(), strict=True):
            np.testing.assert_allclose(history, sums[client], rtol=0, atol=1e-12)
    assert sorted(state["clients"].tolist()) == [3, 5, 8, 9]
    assert state["clients"].dtype == torch.int64


def test_memory_unmasks_sybils_whose_noise_hides_one_round() -> None:
    """In one round noise of twice the aim's length hides the aim (cosine about 1/5), over 200 it averages out.

    Honest clients have aims of their own, orthogonal to each other.
    """
    generator = torch_generator(2, "sybils")
    aims = 10 * torch.eye(5)[[0, 1, 2, 3, 4, 4, 4]]
    state = RoundContext().state
    for _ in range(200):
        points = aims + 20 * torch.randn(7, 5, generator=generator) / 5**0.5
        answer = FoolsGold()(points, None, RoundContext(state=state))
        state = answer.state
    assert answer.shares is not None
    assert (answer.shares > 0).tolist() == [True] * 4 + [False] * 3


def test_without_memory_there_is_no_state() -> None:
    assert FoolsGold(use_memory=False)(sample(4, 3)).state == {}


@pytest.mark.parametrize("n", [1, 2, 3, 50])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_clients_that_all_point_one_way_count_fully(n: int, dtype: torch.dtype) -> None:
    row = torch.randn(1000, generator=torch_generator(3, "row")).to(dtype)
    answer = FoolsGold()(row.repeat(n, 1))
    assert answer.shares is not None
    assert answer.shares.tolist() == pytest.approx([1 / n] * n)
    torch.testing.assert_close(answer.update, row)


def test_an_update_of_zeros_resembles_nobody() -> None:
    answer = FoolsGold()(torch.tensor([[0.0, 0.0], [0.0, 0.0], [1.0, 0.0], [1.0, 0.0]]))
    assert answer.shares is not None
    assert answer.shares.tolist() == [0.5, 0.5, 0.0, 0.0]


def test_an_attacker_whose_history_overflows_does_not_stop_the_rounds() -> None:
    points = sample(4, 5).float()
    points[3] = 3e38
    state = FoolsGold()(points).state
    answer = FoolsGold()(points, None, RoundContext(state=state))
    assert answer.state["history"].isfinite().all()
    points[3] = 1.0
    assert FoolsGold()(points, None, RoundContext(state=answer.state)).update.isfinite().all()


@pytest.mark.parametrize("distance", [0.0, 1e4])
@pytest.mark.parametrize("use_memory", [True, False])
def test_float32_agrees_with_float64(distance: float, use_memory: bool) -> None:
    """At 10⁴ times their spread from the origin all cosines are 1 - 1e-8, below the resolution of float32 products."""
    generator = torch_generator(4, "precision")
    points = torch.randn(12, 200_000, generator=generator)
    points[8:] = points[8] + 0.5 * points[8:]
    points += distance * torch.randn(200_000, generator=generator)
    rule = FoolsGold(use_memory=use_memory)
    found, exact = rule(points), rule(points.double())
    assert found.shares is not None
    assert exact.shares is not None
    assert (exact.shares > 0).tolist() == [True] * 8 + [False] * 4
    torch.testing.assert_close(found.shares, exact.shares, rtol=1e-4, atol=1e-6)
    assert (found.update.double() - exact.update).norm() <= 1e-5 * exact.update.norm()


def test_shards_give_the_same_answer_and_memory() -> None:
    points = sample(9, 101, 3)
    parts = Shards.split(points, ["cpu", "cpu"])
    first, second = FoolsGold()(points), FoolsGold()(parts)
    again, sharded = (
        FoolsGold()(rows, None, RoundContext(clients=tuple(range(5, 14)), state=answer.state))
        for rows, answer in ((points, first), (parts, second))
    )
    torch.testing.assert_close(sharded.update, again.update, rtol=0, atol=1e-12)
    torch.testing.assert_close(sharded.state["history"], again.state["history"], rtol=0, atol=1e-12)


def test_weight_on_sybils_only_is_refused() -> None:
    points = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    with pytest.raises(ValueError, match="every client of positive weight was filtered"):
        FoolsGold()(points, torch.tensor([1.0, 1.0, 0.0]))


@pytest.mark.parametrize("clients", [(0, 1), (0, 1, 1)])
def test_ids_that_are_not_one_for_each_update_are_refused(clients: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="3 different client ids"):
        FoolsGold()(torch.ones(3, 2), None, RoundContext(clients=clients))


def test_a_memory_of_another_model_is_refused() -> None:
    state = FoolsGold()(torch.ones(3, 4)).state
    with pytest.raises(ValueError, match="remembers updates of 4 parameters, got 2"):
        FoolsGold()(torch.ones(3, 2), None, RoundContext(state=state))


@pytest.mark.parametrize("use_memory", [True, False])
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_updates_that_are_not_finite_are_refused(value: float, use_memory: bool) -> None:
    updates = torch.ones(3, 2)
    updates[1, 0] = value
    with pytest.raises(ValueError, match=r"rows \[1\] hold NaN or infinity"):
        FoolsGold(use_memory=use_memory)(updates)


def test_a_confidence_of_zero_is_refused() -> None:
    with pytest.raises(FieldError, match="confidence: must be greater than 0, got 0"):
        FoolsGold(confidence=0.0)
