import numpy as np
import pytest
import torch

from fedrobust._linalg.columns import Shards
from fedrobust.aggregators import Mean
from fedrobust.aggregators.base import RoundContext, State
from fedrobust.config.component import FieldError
from fedrobust.preaggregators import Pipeline
from fedrobust.preaggregators.client_momentum import ClientMomentum
from fedrobust.seeds import torch_generator

ROUNDS = [(0, 1, 2), (1, 3), (0, 1, 2, 3), (4,), (7, 2, 0), (7, 4, 3, 2, 1, 0)]


def play(dtype: torch.dtype = torch.float64, d: int = 9, *, shards: int = 1) -> list[tuple[torch.Tensor, State]]:
    """Six rounds with changing clients: what the rule would see, and the state after each."""
    state: State = {}
    seen = []
    for number, clients in enumerate(ROUNDS, start=1):
        updates = update_of(clients, number, d).to(dtype)
        points = Shards.split(updates, ["cpu"] * shards) if shards > 1 else updates
        answer = ClientMomentum(beta=0.9)(points, None, RoundContext(clients, number, state=state))
        rows = answer.updates
        seen.append((torch.cat(rows.parts, dim=1) if isinstance(rows, Shards) else rows, answer.state))
        state = answer.state
    return seen


def update_of(clients: tuple[int, ...], number: int, d: int) -> torch.Tensor:
    rows = [
        torch.randn(d, generator=torch_generator(0, "update", number, client), dtype=torch.float64)
        for client in clients
    ]
    return torch.stack(rows)


def test_equals_a_dictionary_of_vectors() -> None:
    """m ← 0.9 m + 0.1 x, the first m = x; whoever is absent keeps its own."""
    memory: dict[int, np.ndarray] = {}
    for (number, clients), (rows, state) in zip(enumerate(ROUNDS, start=1), play(), strict=True):
        for client, update in zip(clients, update_of(clients, number, 9).numpy(), strict=True):
            memory[client] = 0.9 * memory[client] + 0.1 * update if client in memory else update
        np.testing.assert_allclose(rows.numpy(), [memory[client] for client in clients], atol=1e-14)
        assert state["clients"].tolist() == sorted(memory)
        np.testing.assert_allclose(state["momentum"].numpy(), [memory[client] for client in sorted(memory)], atol=1e-14)


def test_shards_keep_their_own_columns() -> None:
    for (whole, state), (parts, sharded) in zip(play(), play(shards=2), strict=True):
        torch.testing.assert_close(parts, whole, rtol=0, atol=0)
        together = torch.cat([sharded["momentum.0"], sharded["momentum.1"]], dim=1)
        torch.testing.assert_close(together, state["momentum"], rtol=0, atol=0)


def test_float32_agrees_with_float64() -> None:
    for (rows, _), (exact, _) in zip(play(torch.float32, 200_000), play(torch.float64, 200_000), strict=True):
        assert rows.dtype == torch.float32
        assert (rows.double() - exact).norm() <= 1e-6 * exact.norm()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_stays_what_it_is(dtype: torch.dtype) -> None:
    rows, state = play(dtype)[-1]
    assert rows.dtype == state["momentum"].dtype == dtype
    torch.testing.assert_close(rows.double(), play()[-1][0], rtol=0, atol=0.05)


def test_the_variance_of_honest_noise_falls_as_stated() -> None:
    """(1 - β)/(1 + β) = 1/19 at β = 0.9 after many rounds; 60 rounds leave 0.9^120 of the start."""
    state: State = {}
    rule = ClientMomentum(beta=0.9)
    for number in range(1, 61):
        updates = torch.randn(20, 2000, generator=torch_generator(1, number))
        answer = rule(updates, None, RoundContext(round_number=number, state=state))
        state = answer.state
    assert isinstance(answer.updates, torch.Tensor)
    assert float(answer.updates.var()) == pytest.approx(1 / 19, rel=0.04)


def test_neither_updates_nor_memory_are_written_to() -> None:
    first = ClientMomentum()(torch.ones(2, 3))
    before = first.state["momentum"].clone()
    updates = torch.full((2, 3), 5.0)
    ClientMomentum()(updates, None, RoundContext(state=first.state))
    assert torch.equal(updates, torch.full((2, 3), 5.0))
    assert torch.equal(first.state["momentum"], before)


def test_without_ids_clients_are_counted_and_rows_stay_clients() -> None:
    answer = ClientMomentum()(torch.ones(3, 2), torch.tensor([1.0, 1.0, 2.0]))
    assert answer.state["clients"].tolist() == [0, 1, 2]
    assert answer.mixing is None
    assert answer.weights.tolist() == [0.25, 0.25, 0.5]
    assert ClientMomentum().output_size(3) == 3
    assert dict(answer.diagnostics) == {"num_known": 3.0, "num_new": 3.0}


def test_in_a_pipeline_the_memory_goes_round() -> None:
    """Updates 1 and then 3 at β = 0.5: the mean is 1, then 0.5 · 1 + 0.5 · 3 = 2."""
    rule = Pipeline(preaggregators=(ClientMomentum(beta=0.5),), aggregator=Mean())
    first = rule(torch.ones(4, 2))
    second = rule(3 * torch.ones(4, 2), None, RoundContext(round_number=2, state=first.state))
    assert first.update.tolist() == [1.0, 1.0]
    assert second.update.tolist() == [2.0, 2.0]


def test_beta_zero_passes_the_updates_on() -> None:
    first = ClientMomentum(beta=0.0)(torch.ones(2, 3))
    second = ClientMomentum(beta=0.0)(2 * torch.ones(2, 3), None, RoundContext(state=first.state))
    assert isinstance(second.updates, torch.Tensor)
    assert second.updates.tolist() == [[2.0] * 3] * 2


@pytest.mark.parametrize("clients", [(0,), (0, 1, 2), (5, 5)])
def test_ids_that_do_not_fit_are_refused(clients: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="clients must be 2 different ids"):
        ClientMomentum()(torch.ones(2, 3), None, RoundContext(clients=clients))


def test_a_memory_of_another_model_is_refused() -> None:
    state = ClientMomentum()(torch.ones(2, 3)).state
    with pytest.raises(ValueError, match=r"momentum must have shape \(2, 4\), got \(2, 3\)"):
        ClientMomentum()(torch.ones(2, 4), None, RoundContext(state=state))
    with pytest.raises(ValueError, match=r"momentum.0 must have shape \(2, 2\), got none"):
        ClientMomentum()(Shards((torch.ones(2, 2), torch.ones(2, 2))), None, RoundContext(state=state))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("round_number", [1, 2])
def test_rows_that_are_not_finite_are_named(bad: float, round_number: int) -> None:
    state = ClientMomentum()(torch.ones(3, 2)).state if round_number == 2 else {}
    points = torch.ones(3, 2)
    points[1, 1] = bad
    with pytest.raises(ValueError, match=r"rows \[1\] hold NaN or infinity"):
        ClientMomentum()(points, None, RoundContext(state=state))


@pytest.mark.parametrize("value", [-0.1, 1.0])
def test_a_beta_out_of_range_is_refused(value: float) -> None:
    with pytest.raises(FieldError, match=f"beta: must be .*got {value}"):
        ClientMomentum(beta=value)
