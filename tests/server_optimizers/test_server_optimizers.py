import math

import pytest
import torch

from fedrobust.aggregators.base import State
from fedrobust.config.component import FieldError
from fedrobust.seeds import torch_generator
from fedrobust.server_optimizers import PlainStep, ServerAdam, ServerMomentum, ServerOptimizer, ServerYogi

ALL: dict[str, ServerOptimizer] = {
    "plain": PlainStep(),
    "momentum": ServerMomentum(beta=0.8),
    "adam": ServerAdam(beta1=0.7, beta2=0.9, tau=0.01),
    "yogi": ServerYogi(beta1=0.7, beta2=0.9, tau=0.01),
}


def steps_by_hand(name: str, answers: list[float]) -> list[float]:
    """One parameter: FedAvgM's recursion, and Algorithm 2 of Reddi et al. from m = 0, v = τ²."""
    steps, momentum, first, second = [], 0.0, 0.0, 0.01**2
    for answer in answers:
        momentum = 0.8 * momentum + answer
        first = 0.7 * first + 0.3 * answer
        if name == "adam":
            second = 0.9 * second + 0.1 * answer**2
        elif name == "yogi":
            sign = (second > answer**2) - (second < answer**2)
            second = second - 0.1 * answer**2 * sign
        adaptive = first / (math.sqrt(second) + 0.01)
        steps.append({"plain": answer, "momentum": momentum}.get(name, adaptive))
    return steps


def play(optimizer: ServerOptimizer, answers: torch.Tensor) -> torch.Tensor:
    state: State = {}
    steps = []
    for answer in answers:
        step, state = optimizer(answer, state)
        steps.append(step)
    return torch.stack(steps)


@pytest.mark.parametrize("name", ALL)
def test_equals_the_recursion_for_each_parameter(name: str) -> None:
    answers = torch.randn(12, 5, generator=torch_generator(0, name), dtype=torch.float64)
    answers[3:6] *= 1e-3  # small ones in a row, where Adam forgets faster than Yogi
    answers[:, 4] = 0.0
    steps = play(ALL[name], answers)
    for parameter in range(5):
        expected = steps_by_hand(name, answers[:, parameter].tolist())
        assert steps[:, parameter].tolist() == pytest.approx(expected, rel=1e-12, abs=1e-15)


def test_adam_and_yogi_differ_after_small_answers() -> None:
    answers = torch.tensor([[1.0]] * 5 + [[1e-3]] * 20 + [[1.0]], dtype=torch.float64)
    adam, yogi = play(ALL["adam"], answers), play(ALL["yogi"], answers)
    assert float(adam[-1]) > 1.5 * float(yogi[-1])


def test_first_steps_by_hand() -> None:
    """Adam's first: 0.1 · 2 / (√(0.99 · 1e-6 + 0.01 · 4) + 1e-3) = 0.2 / 0.201002...; Yogi's v is 1e-6 + 0.04."""
    update = torch.tensor([2.0], dtype=torch.float64)
    assert ServerAdam()(update, {})[0].item() == pytest.approx(0.2 / (math.sqrt(0.99e-6 + 0.04) + 1e-3))
    assert ServerYogi()(update, {})[0].item() == pytest.approx(0.2 / (math.sqrt(1e-6 + 0.04) + 1e-3))
    assert ServerMomentum()(update, {})[0].item() == 2.0


def test_momentum_adds_up_agreeing_answers() -> None:
    """1/(1 - β) = 10 times the answer after many rounds."""
    steps = play(ServerMomentum(beta=0.9), torch.ones(300, 2))
    assert steps[-1].tolist() == pytest.approx([10.0, 10.0], rel=1e-5)


def test_a_plain_step_is_the_answer_itself() -> None:
    update = torch.ones(3)
    step, state = PlainStep()(update, {})
    assert step is update
    assert state == {}


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_the_step_has_the_dtype_of_the_answer_and_memory_is_at_least_float32(name: str, dtype: torch.dtype) -> None:
    """Squares of 1e-4 vanish in float16, and 0.99 is 1 in bfloat16."""
    answers = (1e-4 * torch.randn(10, 40, generator=torch_generator(1, name))).to(dtype)
    optimizer = ServerAdam(tau=1e-6) if name == "adam" else ALL[name]
    steps = play(optimizer, answers)
    _, state = optimizer(answers[0], {})
    assert steps.dtype == dtype
    assert all(values.dtype in (torch.float32, torch.float64) for values in state.values())
    exact = play(optimizer, answers.double())
    assert (steps.double() - exact).norm() <= 3 * torch.finfo(dtype).eps * exact.norm() + 1e-7


@pytest.mark.parametrize("name", ALL)
def test_neither_answer_nor_memory_is_written_to(name: str) -> None:
    update = torch.ones(4)
    _, state = ALL[name](update, {})
    copies = {key: values.clone() for key, values in state.items()}
    ALL[name](3 * update, state)
    assert torch.equal(update, torch.ones(4))
    assert all(torch.equal(values, copies[key]) for key, values in state.items())


@pytest.mark.parametrize("name", ["momentum", "adam", "yogi"])
def test_a_memory_of_another_model_is_refused(name: str) -> None:
    _, state = ALL[name](torch.ones(1), {})
    with pytest.raises(ValueError, match=r"must have shape \(4,\), got \(1,\)"):
        ALL[name](torch.ones(4), state)


@pytest.mark.parametrize(
    ("kind", "field", "value"),
    [
        (ServerMomentum, "beta", 1.0),
        (ServerAdam, "beta1", -0.1),
        (ServerAdam, "tau", 0.0),
        (ServerYogi, "beta2", 1.0),
    ],
)
def test_fields_out_of_range_are_refused(kind: type, field: str, value: float) -> None:
    with pytest.raises(FieldError, match=f"{field}: must be .*got {value}"):
        kind(**{field: value})
