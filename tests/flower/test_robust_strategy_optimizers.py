"""RobustStrategy's server optimisers against Flower's own, their memory, and parameters divided over devices.

Every node adds a step to what it is sent that depends on the node and the round alone, so that strategies which go
different ways still see the same updates, and their steps can be compared round by round.
"""

import logging
import math

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAdam, FedAvg, FedAvgM, FedYogi
from numpy.typing import NDArray

from fedrobust.aggregators import (
    CentredClipping,
    CoordinateMedian,
    FoolsGold,
    Krum,
    Mean,
    SpectralFilter,
    TrimmedMean,
)
from fedrobust.aggregators.base import Aggregate, RoundContext
from fedrobust.config.component import FieldError, component
from fedrobust.engines.local import LocalGrid
from fedrobust.flower import RobustStrategy
from fedrobust.preaggregators import ClientMomentum, NearestNeighbourMixing
from fedrobust.server_optimizers import PlainStep, ServerAdam, ServerMomentum, ServerOptimizer, ServerYogi

NUM_NODES = 5
NUM_EXAMPLES = np.arange(1, NUM_NODES + 1) * 10.0
ROUNDS = 4
START = {
    "weight": np.linspace(-1, 1, 12).reshape(3, 4),
    "bias": np.zeros(3),
    "running_mean": np.ones(4),
    "count": np.array(3),
}

Model = dict[str, NDArray[np.float64]]


def step_of(partition: int, round_number: int, name: str) -> NDArray[np.float64]:
    generator = np.random.default_rng([partition, round_number, len(name)])
    return 0.1 * generator.normal(size=START[name].shape) + 0.05 * math.cos(round_number)


def record(arrays: Model) -> ArrayRecord:
    return ArrayRecord({name: Array(np.asarray(values)) for name, values in arrays.items()})


def floating(arrays: Model = START) -> Model:
    """Without the counter and the running statistics, which Flower's strategies put through their optimisers."""
    return {name: values for name, values in arrays.items() if name in ("weight", "bias")}


def grid() -> LocalGrid:
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        partition = int(context.node_config["partition-id"])
        config = message.content["config"]
        round_number = int(config.get("round", 0)) or int(config["server-round"])
        arrays = {name: array.numpy() for name, array in message.content["arrays"].items()}
        for name, values in arrays.items():
            if values.dtype.kind == "f":
                arrays[name] = values + step_of(partition, round_number, name)
        metrics = MetricRecord({"num-examples": float(NUM_EXAMPLES[partition])})
        return Message(RecordDict({"arrays": record(arrays), "metrics": metrics}), reply_to=message)

    return LocalGrid(app, NUM_NODES)


def play(strategy: FedAvg, arrays: Model, num_rounds: int = ROUNDS) -> list[Model]:
    """The arrays after every round, those at the start first."""
    seen: list[Model] = []

    def look(round_number: int, found: ArrayRecord) -> None:
        seen.append({name: array.numpy().copy() for name, array in found.items()})

    strategy.start(grid(), record(arrays), num_rounds=num_rounds, evaluate_fn=look)
    assert len(seen) == num_rounds + 1
    return seen


def steps(models: list[Model], name: str = "weight") -> NDArray[np.float64]:
    return np.diff([model[name] for model in models], axis=0)


def weighted_mean(round_number: int, name: str) -> NDArray[np.float64]:
    stacked = np.stack([step_of(partition, round_number, name) for partition in range(NUM_NODES)])
    return np.average(stacked, axis=0, weights=NUM_EXAMPLES)


def ours(optimizer: ServerOptimizer, learning_rate: float) -> RobustStrategy:
    return robust(aggregator=Mean(), server_optimizer=optimizer, learning_rate=learning_rate)


def robust(**options: object) -> RobustStrategy:
    return RobustStrategy(**options, fraction_evaluate=0.0)


def flower(kind: type[FedAvg], **options: float) -> FedAvg:
    return kind(fraction_evaluate=0.0, **options)


def assert_same(found: list[Model], expected: list[Model]) -> None:
    for mine, other in zip(found, expected, strict=True):
        for name, values in other.items():
            np.testing.assert_allclose(mine[name], values, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(("momentum", "rate"), [(0.9, 1.0), (0.5, 0.3), (0.0, 0.3)])
def test_momentum_is_flowers_fedavgm(momentum: float, rate: float) -> None:
    """Over four rounds, weighted by examples; its defaults (momentum 0, rate 1) are FedAvg, as ours."""
    theirs = play(flower(FedAvgM, server_momentum=momentum, server_learning_rate=rate), floating())
    assert_same(play(ours(ServerMomentum(beta=momentum), rate), floating()), theirs)


def test_yogi_is_flowers_fedyogi_where_tau_is_small() -> None:
    """τ² where theirs starts from v = 0 makes no difference beside squares of 1e-3 and more."""
    options = {"beta_1": 0.7, "beta_2": 0.9, "tau": 1e-6}
    theirs = play(flower(FedYogi, eta=0.05, **options), floating())
    assert_same(play(ours(ServerYogi(beta1=0.7, beta2=0.9, tau=1e-6), 0.05), floating()), theirs)


def test_adam_is_flowers_fedadam_but_for_its_corrected_learning_rate() -> None:
    """Flower takes η√(1 - β₂ᵗ⁺¹)/(1 - β₁ᵗ⁺¹) in round t, one power more than Kingma and Ba's Adam has in step t.

    Reddi et al., whom both follow, correct nothing (their Algorithm 2): the steps differ by this factor.
    """
    theirs = steps(play(flower(FedAdam, eta=0.05, beta_1=0.7, beta_2=0.9, tau=1e-6), floating()))
    found = steps(play(ours(ServerAdam(beta1=0.7, beta2=0.9, tau=1e-6), 0.05), floating()))
    for index in range(ROUNDS):
        factor = math.sqrt(1 - 0.9 ** (index + 2)) / (1 - 0.7 ** (index + 2))
        assert factor < 0.9
        np.testing.assert_allclose(theirs[index], factor * found[index], rtol=1e-5)


@pytest.mark.parametrize(
    ("theirs", "optimizer"),
    [(FedAdam, ServerAdam(beta1=0.7, beta2=0.9, tau=0.1)), (FedYogi, ServerYogi(beta1=0.7, beta2=0.9, tau=0.1))],
)
def test_flower_starts_from_v_0_and_the_paper_from_tau_squared(
    theirs: type[FedAvg], optimizer: ServerOptimizer
) -> None:
    """Algorithm 2 of Reddi et al. says v₋₁ ≥ τ². With τ as large as the updates the first steps differ, both by hand.

    Flower's zero makes the first steps larger the larger τ is beside an update: by half and more here.
    """
    deltas = weighted_mean(1, "weight")
    rate = 0.05 * (math.sqrt(1 - 0.9**2) / (1 - 0.7**2) if theirs is FedAdam else 1.0)
    expected = rate * 0.3 * deltas / (np.sqrt(0.1 * deltas**2) + 0.1)
    found = steps(play(flower(theirs, eta=0.05, beta_1=0.7, beta_2=0.9, tau=0.1), floating(), 1))[0]
    np.testing.assert_allclose(found, expected, rtol=1e-5)

    squares = deltas**2
    second = 0.1**2 - 0.1 * squares * np.sign(0.1**2 - squares) if theirs is FedYogi else 0.9 * 0.1**2 + 0.1 * squares
    own = 0.05 * 0.3 * deltas / (np.sqrt(second) + 0.1)
    np.testing.assert_allclose(steps(play(ours(optimizer, 0.05), floating(), 1))[0], own, rtol=1e-5)
    assert (np.abs(expected / rate) > 1.3 * np.abs(own / 0.05)).all()


def test_momentum_after_a_robust_rule_by_hand() -> None:
    """v ← βv + median, arrays ← arrays + ηv; the median of each round's node steps, since all start alike."""
    strategy = robust(aggregator=CoordinateMedian(), server_optimizer=ServerMomentum(beta=0.8), learning_rate=0.5)
    found = steps(play(strategy, START))
    momentum = np.zeros((3, 4))
    for index in range(ROUNDS):
        answers = np.stack([step_of(partition, index + 1, "weight") for partition in range(NUM_NODES)])
        momentum = 0.8 * momentum + np.median(answers, axis=0)
        np.testing.assert_allclose(found[index], 0.5 * momentum, rtol=1e-5, atol=1e-7)


def test_running_statistics_and_counters_pass_the_optimiser_by() -> None:
    """The running mean moves by the clients' average each round, without momentum or rate; the counter stays."""
    found = play(robust(aggregator=Mean(), server_optimizer=ServerMomentum(), learning_rate=0.1), START)
    for index, step in enumerate(steps(found, "running_mean")):
        np.testing.assert_allclose(step, weighted_mean(index + 1, "running_mean"), rtol=1e-5, atol=1e-7)
    assert int(found[-1]["count"]) == 3


@pytest.mark.parametrize("optimizer", [ServerMomentum(), ServerAdam(), ServerYogi()])
def test_memory_survives_several_starts_and_a_resume(optimizer: ServerOptimizer) -> None:
    """Rounds 1, 2 and 3 in three runs, the last with a new strategy that was given the state of the old."""

    def run(strategy: RobustStrategy, arrays: ArrayRecord, round_number: int) -> ArrayRecord:
        config = ConfigRecord({"round": round_number})
        return strategy.start(grid(), arrays, num_rounds=1, train_config=config).arrays

    whole = play(ours(optimizer, 0.1), floating(), 3)[-1]
    first = ours(optimizer, 0.1)
    arrays = run(first, record(floating()), 1)
    arrays = run(first, arrays, 2)
    second = ours(optimizer, 0.1)
    second.load_state_dict(first.state_dict())
    found = run(second, arrays, 3)
    assert second.round_number == 3
    for name, values in whole.items():
        np.testing.assert_allclose(found[name].numpy(), values, rtol=1e-9)


@component
class RefusesRoundTwo:
    """The mean, but not in round 2."""

    def __call__(self, updates, weights=None, context: RoundContext | None = None) -> Aggregate:
        if context.round_number == 2:
            raise ValueError("not today")
        return Mean()(updates, weights)


def test_a_round_that_the_rule_refuses_leaves_the_memory_alone() -> None:
    """Round 3's step is 0.9 · Δ₁ + Δ₃: nothing faded and nothing was added in round 2."""
    strategy = robust(aggregator=RefusesRoundTwo(), server_optimizer=ServerMomentum(beta=0.9), weights="num_examples")
    found = steps(play(strategy, floating(), 3))
    assert not found[1].any()
    expected = 0.9 * weighted_mean(1, "weight") + weighted_mean(3, "weight")
    np.testing.assert_allclose(found[2], expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    "options",
    [
        {"aggregator": CoordinateMedian(), "server_optimizer": ServerAdam()},
        {"aggregator": TrimmedMean(assumed_fraction=0.2), "preaggregators": [ClientMomentum()]},
        {"aggregator": Krum(assumed_fraction=0.2), "preaggregators": [NearestNeighbourMixing(assumed_fraction=0.2)]},
        {"aggregator": SpectralFilter(assumed_fraction=0.2), "server_optimizer": ServerYogi()},
        {"aggregator": FoolsGold(), "server_optimizer": ServerMomentum()},
        {"aggregator": CentredClipping()},
    ],
    ids=lambda options: type(options["aggregator"]).__name__,
)
@pytest.mark.parametrize("devices", [["cpu", "cpu"], ["cpu"] * 16])
def test_shards_of_parameters_give_what_one_device_gives(options: dict, devices: list[str]) -> None:
    """Also more devices than parameters (15): some then hold none. Memories and running statistics included."""
    one, several = robust(**options), robust(**options, devices=devices)
    expected, found = play(one, START, 3), play(several, START, 3)
    assert_same(found, expected)
    for round_number in (1, 2, 3):
        was, now = one.diagnostics[round_number], several.diagnostics[round_number]
        assert now["refusal"] is None
        for name in ("shares", "scores"):
            assert now[name] == (was[name] if was[name] is None else pytest.approx(was[name], rel=1e-4, abs=1e-6))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize(("device", "devices"), [("cuda", []), ("cpu", ["cuda:0", "cpu"]), ("cuda", ["cpu", "cuda:0"])])
def test_a_gpu_gives_what_the_cpu_gives(device: str, devices: list[str]) -> None:
    options = {"aggregator": SpectralFilter(assumed_fraction=0.2), "server_optimizer": ServerAdam()}
    expected = play(robust(**options), START, 3)
    assert_same(play(robust(**options, device=device, devices=devices), START, 3), expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"server_optimizer": "adam"}, "server_optimizer: must be a component of the kind ServerOptimizer, got 'adam'"),
        ({"devices": ["cpu", "abacus"]}, "devices: must be a device of this machine, got 'abacus'"),
        ({"devices": ["cuda:77"]}, "devices: must be a device of this machine, got 'cuda:77'"),
        ({"devices": "cpu"}, "devices: must be"),
        ({"devices": [0]}, "devices: must be"),
    ],
)
def test_wrong_options_are_refused(options: dict, message: str) -> None:
    with pytest.raises(FieldError, match=message):
        RobustStrategy(Mean(), **options)


def test_the_summary_names_optimiser_and_devices(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="flwr")
    RobustStrategy(Mean(), server_optimizer=ServerMomentum(beta=0.75), devices=["cpu", "cpu"]).summary()
    assert any("Server optimiser: ServerMomentum(beta=0.75)" in line for line in caplog.messages)
    assert any("Devices: cpu, cpu" in line for line in caplog.messages)


def test_without_an_optimiser_the_answer_is_the_step() -> None:
    assert RobustStrategy(Mean()).aggregation.optimizer == PlainStep()
