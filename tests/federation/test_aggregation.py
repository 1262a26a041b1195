import inspect

import pytest
import torch

from fedrobust._linalg.kernels import combination_kernel, gram_kernel, network_kernels
from fedrobust.aggregators import RULES, FLTrust, FoolsGold, Krum, Mean
from fedrobust.aggregators.base import Aggregate, RoundContext
from fedrobust.federation.aggregation import Aggregation
from fedrobust.preaggregators import ClientMomentum, Pipeline
from fedrobust.seeds import torch_generator
from fedrobust.server_optimizers import ServerAdam

CPU = torch.device("cpu")


class Counting:
    """Keeps the shapes that it was called with."""

    def __init__(self):
        self.shapes = []

    def __call__(self, updates, weights=None):
        self.shapes.append(tuple(updates.shape))
        return Mean()(updates, weights)


@pytest.mark.parametrize(
    ("n", "d", "expected"), [(20, 100, []), (20, 10_000, [(20, 10_000)]), (100, 10**6, [(100, 20_972)])]
)
def test_warming_up_takes_a_few_megabytes_and_only_where_something_would_compile(n, d, expected):
    """2²¹ numbers at most: 20,972 columns of 100 rows; 2,000 numbers compile nothing."""
    rule = Counting()
    Aggregation(rule).warm_up(n, d, CPU)
    assert rule.shapes == expected


def test_a_round_after_warming_up_compiles_nothing(monkeypatch):
    aggregation = Aggregation(Krum(assumed_fraction=0.2))
    aggregation.warm_up(20, 200_000, CPU)

    def compile_kernel(*_):
        raise AssertionError("compiled in the round")

    for module in (combination_kernel, gram_kernel, network_kernels):
        monkeypatch.setattr(module, "compile_kernel", compile_kernel)
    updates = torch.randn(20, 200_000, generator=torch_generator(0, "updates"))
    aggregation(updates, torch.full((20,), 0.05, dtype=torch.float64), RoundContext())


@pytest.mark.parametrize(
    "rule", [FLTrust(), FoolsGold(), Pipeline(preaggregators=(ClientMomentum(),), aggregator=Mean())]
)
def test_nothing_is_remembered_and_refusals_wait_for_round_1(rule):
    updates = torch.randn(8, 10_000, generator=torch_generator(0, "updates"))
    weights = torch.full((8,), 1 / 8, dtype=torch.float64)
    context = RoundContext(root_update=updates[0])
    before = Aggregation(rule, ServerAdam())(updates, weights, context)
    Aggregation(rule, ServerAdam()).warm_up(8, 10_000, CPU)
    assert torch.equal(Aggregation(rule, ServerAdam())(updates, weights, context).update, before.update)
    Aggregation(Krum(assumed_fraction=0.4)).warm_up(3, 10**6, CPU)  # n < 2f + 3


class Remembering:
    """Remembers how often it was called, and declares nothing."""

    def __call__(self, updates, weights=None, context=None):
        seen = context.state.get("seen", torch.zeros(1)) + 1
        return Aggregate(updates.mean(dim=0), diagnostics={"seen": float(seen)}, state={"seen": seen})


class Forgetful:
    """Returns a state, and takes nothing that would bring it back."""

    def __call__(self, updates, weights=None):
        return Aggregate(updates.mean(dim=0), state={"seen": torch.ones(1)})


class Plain:
    """Needs no context."""

    def __call__(self, updates, weights=None):
        return Aggregate(updates.mean(dim=0))


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_rule_finds_its_state_again_without_declaring_anything(wrapped: bool) -> None:
    rule = Pipeline(aggregator=Remembering()) if wrapped else Remembering()
    aggregation, memory = Aggregation(rule), {}
    for number in range(1, 4):
        answer = aggregation(torch.ones(3, 2), torch.ones(3), RoundContext(round_number=number, state=memory))
        memory = answer.state
        assert answer.diagnostics["seen"] == number


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_memory_that_would_be_lost_is_refused(wrapped: bool) -> None:
    rule = Pipeline(aggregator=Forgetful()) if wrapped else Forgetful()
    with pytest.raises(TypeError, match=r"^Forgetful returns a state, seen, but takes no context"):
        Aggregation(rule)(torch.ones(3, 2), torch.ones(3), RoundContext())


def test_who_needs_no_context_may_leave_it_out() -> None:
    for rule in (Plain(), Pipeline(aggregator=Plain()), lambda updates, weights: Aggregate(updates.mean(dim=0))):
        answer = Aggregation(rule)(torch.ones(3, 2), torch.ones(3), RoundContext())
        assert answer.update.tolist() == [1.0, 1.0]


def test_every_rule_takes_updates_weights_and_context() -> None:
    for rule in (*RULES, Pipeline):
        assert list(inspect.signature(rule.__call__).parameters) == ["self", "updates", "weights", "context"]
