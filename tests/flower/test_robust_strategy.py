"""RobustStrategy among Flower's own: parity, formats, memory, diagnostics. Hostile replies: test_hostile_replies.py."""

import logging

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg

from fedrobust.aggregators.base import Aggregate, RoundContext
from fedrobust.aggregators.coordinate_median import CoordinateMedian
from fedrobust.aggregators.fl_trust import FLTrust
from fedrobust.aggregators.krum import Krum
from fedrobust.aggregators.mean import Mean
from fedrobust.aggregators.sever import Sever
from fedrobust.aggregators.spectral_filter import SpectralFilter
from fedrobust.aggregators.trimmed_mean import TrimmedMean
from fedrobust.config.component import FieldError, component
from fedrobust.engines.local import LocalGrid
from fedrobust.flower import RobustStrategy
from fedrobust.flower.robust_strategy import client_of
from fedrobust.preaggregators import Pipeline
from fedrobust.server_optimizers import ServerMomentum

NUM_NODES = 5


def model() -> dict[str, np.ndarray]:
    """A state dict of mixed formats: parameters, batch normalisation, a scalar, an empty array, a mask."""
    generator = np.random.default_rng(0)
    return {
        "layer.weight": generator.normal(size=(3, 4)).astype(np.float32),
        "half": generator.normal(size=5).astype(np.float16),
        "double": generator.normal(size=(2, 1, 2)),
        "norm.running_mean": generator.normal(size=3).astype(np.float32),
        "norm.running_var": np.ones(3, np.float32),
        "norm.num_batches_tracked": np.array(7),
        "scale": np.array(1.5, np.float32),
        "nothing": np.zeros((0, 4), np.float32),
        "frozen": np.array([True, False]),
        "mask": np.array([0, -np.inf], np.float32),
        "rotations": np.array([1j, 1 + 2j], np.complex64),
    }


FLOATING = ["layer.weight", "half", "double", "scale"]
AVERAGED = ["norm.running_mean", "norm.running_var"]


def record(arrays: dict[str, np.ndarray]) -> ArrayRecord:
    return ArrayRecord({name: Array(np.asarray(values)) for name, values in arrays.items()})


def trained(partition: int, arrays: dict[str, np.ndarray], size: float = 1.0) -> dict[str, np.ndarray]:
    """What the node of a partition makes of the arrays: a fixed step, away from the others' for the last node."""
    generator = np.random.default_rng(100 + partition)
    return {
        name: (values + size * generator.normal(size=values.shape)).astype(values.dtype)
        if name in FLOATING + AVERAGED
        else values + 1
        if name == "norm.num_batches_tracked"
        else values
        for name, values in arrays.items()
    }


def client_app(sizes: dict[int, float] | None = None) -> ClientApp:
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        partition = int(context.node_config["partition-id"])
        arrays = {name: array.numpy() for name, array in message.content["arrays"].items()}
        arrays = trained(partition, arrays, (sizes or {}).get(partition, 0.1))
        metrics = MetricRecord({"num-examples": 10 * (partition + 1), "loss": float(partition), "list": [1.0, 2.0]})
        return Message(RecordDict({"arrays": record(arrays), "metrics": metrics}), reply_to=message)

    @app.evaluate()
    def evaluate(message: Message, context: Context) -> Message:
        partition = int(context.node_config["partition-id"])
        metrics = MetricRecord({"num-examples": partition + 1, "accuracy": 0.1 * partition})
        return Message(RecordDict({"metrics": metrics}), reply_to=message)

    return app


def grid(sizes: dict[int, float] | None = None, num_nodes: int = NUM_NODES) -> LocalGrid:
    return LocalGrid(client_app(sizes), num_nodes)


def arrays_of(found: ArrayRecord) -> dict[str, np.ndarray]:
    return {name: array.numpy() for name, array in found.items()}


def test_with_the_mean_it_is_fedavg_but_for_what_must_not_be_averaged():
    """FedAvg turns counters and masks into averages; where it is right the two agree over three rounds."""
    parameters = {name: values for name, values in model().items() if name in [*FLOATING, *AVERAGED, "nothing"]}
    theirs = FedAvg().start(grid(), record(parameters), num_rounds=3)
    ours = RobustStrategy(Mean()).start(grid(), record(parameters), num_rounds=3)
    assert list(ours.arrays) == list(theirs.arrays)
    for name, values in arrays_of(theirs.arrays).items():
        tolerance = 2e-3 if name == "half" else 1e-6
        np.testing.assert_allclose(ours.arrays[name].numpy(), values, rtol=tolerance, atol=tolerance)
    for round_number in (1, 2, 3):
        expected = theirs.train_metrics_clientapp[round_number]
        found = ours.train_metrics_clientapp[round_number]
        for name in ("loss", "list"):
            assert found[name] == pytest.approx(expected[name])
        assert {name for name in found if not name.startswith("robust.")} == set(expected)
        expected = theirs.evaluate_metrics_clientapp[round_number]
        assert dict(ours.evaluate_metrics_clientapp[round_number]) == pytest.approx(dict(expected))
    assert ours.train_metrics_clientapp[1]["loss"] == pytest.approx(40 / 15)  # sum of 10(p+1)p over 150


def test_every_array_keeps_its_format_and_what_is_no_parameter_its_value():
    start = model()
    found = arrays_of(RobustStrategy(Mean()).start(grid(), record(start), num_rounds=1).arrays)
    assert list(found) == list(start)
    for name, values in start.items():
        assert (found[name].dtype, found[name].shape) == (values.dtype, values.shape)
        moves = name in FLOATING + AVERAGED
        assert np.array_equal(found[name], values) == (not moves), name


@pytest.mark.parametrize("rule", [CoordinateMedian(), TrimmedMean(assumed_fraction=0.2)])
def test_a_coordinate_wise_rule_by_hand(rule):
    """Its answer on the stacked client arrays, array by array; running statistics: their median."""
    start = model()
    found = arrays_of(RobustStrategy(rule, seed=3).start(grid(), record(start), num_rounds=1).arrays)
    clients = [trained(partition, start, 0.1) for partition in range(NUM_NODES)]
    for name in FLOATING + AVERAGED:
        stacked = np.stack([client[name].astype(np.float64) for client in clients])
        trims = isinstance(rule, TrimmedMean) and name in FLOATING
        expected = np.sort(stacked, axis=0)[1:-1].mean(axis=0) if trims else np.median(stacked, axis=0)
        np.testing.assert_allclose(found[name], expected, atol=2e-3 if name == "half" else 1e-6)


@pytest.mark.parametrize("rule", [Sever(assumed_fraction=0.2), SpectralFilter(assumed_fraction=0.2)])
def test_a_filter_drops_the_outlier_and_its_batch_statistics(rule):
    """Node 4's step is a thousand times the others'; by hand the answer is the weighted mean of nodes 0 to 3."""
    start = model()
    strategy = RobustStrategy(rule)
    result = strategy.start(grid({4: 100.0}), record(start), num_rounds=1)
    shares = np.array(strategy.diagnostics[1]["shares"])
    assert shares[4] < 1e-6
    clients = [trained(partition, start, 100.0 if partition == 4 else 0.1) for partition in range(NUM_NODES)]
    for name in FLOATING + AVERAGED:
        stacked = np.stack([client[name].astype(np.float64) for client in clients])
        expected = np.tensordot(shares, stacked, axes=1)
        np.testing.assert_allclose(result.arrays[name].numpy(), expected, atol=2e-3 if name == "half" else 1e-6)
    assert result.train_metrics_clientapp[1]["robust.shares"] == strategy.diagnostics[1]["shares"]


def test_krum_takes_one_client_as_it_is():
    """Its parameters, half precision included, and its batch statistics: client - global + global."""
    start = model()
    strategy = RobustStrategy(Krum(assumed_fraction=0.2))
    found = arrays_of(strategy.start(grid(), record(start), num_rounds=1).arrays)
    chosen = strategy.diagnostics[1]["shares"].index(1.0)
    for name, values in trained(chosen, start, 0.1).items():
        if name in FLOATING + AVERAGED:
            np.testing.assert_allclose(found[name], values, atol=2e-3 if name == "half" else 1e-6)


def test_patterns_decide_what_the_rule_does_not_judge():
    """Without patterns the trimmed mean sees the running statistics, too."""
    start = model()
    strategy = RobustStrategy(TrimmedMean(assumed_fraction=0.2), averaged_arrays=())
    found = strategy.start(grid(), record(start), num_rounds=1).arrays["norm.running_mean"].numpy()
    stacked = np.stack([trained(partition, start, 0.1)["norm.running_mean"] for partition in range(NUM_NODES)])
    np.testing.assert_allclose(found, np.sort(stacked, axis=0)[1:-1].mean(axis=0), atol=1e-6)


def test_uniform_weights_ignore_what_clients_claim():
    start = {"w": np.zeros(4, np.float32)}
    result = RobustStrategy(Mean(), weights="uniform").start(grid(), record(start), num_rounds=1)
    assert result.train_metrics_clientapp[1]["loss"] == pytest.approx(2.0)  # (0 + 1 + 2 + 3 + 4) / 5
    assert result.train_metrics_clientapp[1]["robust.shares"] == pytest.approx([0.2] * 5)
    assert result.evaluate_metrics_clientapp[1]["accuracy"] == pytest.approx(0.2)


@pytest.mark.parametrize("aggregator", [SpectralFilter(assumed_fraction=0.2), Krum(assumed_fraction=0.2)])
def test_by_default_claims_count_under_the_plain_mean_alone(aggregator):
    start = {"w": np.zeros(4, np.float32)}
    auto, uniform = (
        RobustStrategy(aggregator, **options).start(grid(), record(start), num_rounds=1)
        for options in ({}, {"weights": "uniform"})
    )
    assert auto.arrays["w"] == uniform.arrays["w"]
    shares = RobustStrategy(Mean()).start(grid(), record(start), num_rounds=1)
    assert shares.train_metrics_clientapp[1]["robust.shares"] == pytest.approx([k / 15 for k in range(1, 6)])


def test_capped_weights_believe_a_claim_up_to_a_multiple_of_the_median():
    """Claims 10, 20, ..., 50: at 1.0 times their median of 30 the last three count alike, of 120 in all."""
    strategy = RobustStrategy(Mean(), weights="capped", max_claim_ratio=1.0)
    result = strategy.start(grid(), record({"w": np.zeros(4, np.float32)}), num_rounds=1)
    shares = result.train_metrics_clientapp[1]["robust.shares"]
    assert shares == pytest.approx([10 / 120, 20 / 120, 30 / 120, 30 / 120, 30 / 120])


def test_a_belief_in_nobody_is_said_before_training_and_once(caplog):
    strategy = RobustStrategy(SpectralFilter(assumed_fraction=0.19))
    strategy.start(grid(), record({"w": np.zeros(4, np.float32)}), num_rounds=3)
    (line,) = [message for message in caplog.messages if "is none" in message]
    assert line.startswith("SpectralFilter: an assumed fraction of 0.19 of 5 is none")
    assert caplog.messages.index(line) < caplog.messages.index("aggregate_train: 5 replies accepted, 0 rejected")


def test_a_sample_of_the_nodes_is_told_the_quantile():
    """Two of five may be malicious, three are asked: both of them are among those in 30 % of the rounds."""
    strategy = RobustStrategy(Recorder(), fraction_train=0.6)
    strategy.start(grid(), record({"w": np.zeros(4, np.float32)}), num_rounds=1)
    (context,) = CONTEXTS
    assert (context.num_clients, context.num_asked) == (5, 3)
    trimmed = RobustStrategy(TrimmedMean(assumed_fraction=0.4), fraction_train=0.6)
    result = trimmed.start(grid(), record({"w": np.zeros(4, np.float32)}), num_rounds=1)
    assert result.train_metrics_clientapp[1]["robust.num_trimmed_per_side"] == 1


def test_the_learning_rate_scales_the_answer_and_not_the_running_statistics():
    start = model()
    whole, half = (
        RobustStrategy(Mean(), learning_rate=rate).start(grid(), record(start), num_rounds=1) for rate in (1.0, 0.5)
    )
    middle = (whole.arrays["double"].numpy() + start["double"]) / 2
    np.testing.assert_allclose(half.arrays["double"].numpy(), middle, atol=1e-6)
    assert half.arrays["norm.running_var"] == whole.arrays["norm.running_var"]


def test_small_steps_on_large_doubles_survive_float32_rows():
    """A step of 1e-6 on parameters of 1e4 is below float32's resolution there (1e-3), not below float64's."""
    start = {"double": np.full(3, 1e4)}
    small = grid(dict.fromkeys(range(NUM_NODES), 1e-6))
    found = RobustStrategy(Mean(), weights="uniform").start(small, record(start), num_rounds=1)
    steps = [np.random.default_rng(100 + partition).normal(size=3) for partition in range(NUM_NODES)]
    moved = found.arrays["double"].numpy() - 1e4
    np.testing.assert_allclose(moved, 1e-6 * np.mean(steps, axis=0), rtol=1e-4, atol=1e-11)


@component
class Recorder:
    """The mean, with a memory of how often it was called; leaves the contexts that it saw in `seen`."""

    seen: tuple[str, ...] = ()

    def __call__(self, updates, weights=None, context: RoundContext | None = None) -> Aggregate:
        CONTEXTS.append(context)
        calls = context.state.get("calls", torch.zeros(1)) + 1
        answer = Mean()(updates, weights)
        return Aggregate(update=answer.update, shares=answer.shares, state={"calls": calls, "row": updates[0]})


CONTEXTS: list[RoundContext] = []


@pytest.fixture(autouse=True)
def no_contexts():
    CONTEXTS.clear()


def test_the_rule_remembers_over_rounds_and_runs():
    start = record({"double": np.zeros(3)})
    first = RobustStrategy(Recorder(), seed=5)
    first.start(grid(), start, num_rounds=2)
    second = RobustStrategy(Recorder(), seed=5)
    second.load_state_dict(first.state_dict())
    second.start(grid(), start, num_rounds=1)
    assert [context.round_number for context in CONTEXTS] == [1, 2, 3]
    assert [float(context.state.get("calls", 0)) for context in CONTEXTS] == [0, 1, 2]
    assert all(context.clients == (2, 3, 4, 5, 6) and context.seed == 5 for context in CONTEXTS)
    assert list(second.diagnostics) == [3]


def test_a_remembered_row_is_not_overwritten_by_the_next_round():
    """The rows of all rounds are written to the same memory; what a rule keeps of them must be a copy."""
    strategy = RobustStrategy(Recorder())
    strategy.start(grid(), record({"double": np.zeros(3)}), num_rounds=1)
    before = strategy.state_dict()["state"]["rule.aggregator.row"]
    strategy._rows.rows.fill_(9.0)
    torch.testing.assert_close(strategy.state_dict()["state"]["rule.aggregator.row"], before)


def test_the_rows_are_allocated_once():
    strategy = RobustStrategy(Mean())
    places = set()
    for _ in range(3):
        strategy.start(grid(), record(model()), num_rounds=1)
        places.add(strategy._rows.rows.data_ptr())
    assert len(places) == 1


class Trusting(Recorder):
    traits = frozenset({"needs_root_update"})


def test_a_rule_that_trusts_the_server_gets_the_servers_update():
    """The server moves by 2 where the running statistics, which it also has, are not part of its update."""
    start = {"a": np.ones((2, 2), np.float32), "running_mean": np.zeros(3, np.float32), "count": np.array(3)}

    def root_update(round_number: int, arrays: ArrayRecord) -> ArrayRecord:
        assert round_number == 1
        return record({name: values + 2 for name, values in arrays_of(arrays).items()})

    RobustStrategy(Trusting(), root_update=root_update).start(grid(), record(start), num_rounds=1)
    torch.testing.assert_close(CONTEXTS[0].root_update, torch.full((4,), 2.0))


def test_such_a_rule_without_one_is_refused():
    with pytest.raises(FieldError, match="root_update: must be given for Trusting"):
        RobustStrategy(Trusting())


def test_nor_is_one_within_a_pipeline():
    with pytest.raises(FieldError, match="root_update: must be given for Pipeline"):
        RobustStrategy(Pipeline(aggregator=FLTrust()))


def test_a_round_in_which_nobody_is_trusted_goes_on():
    """All clients move by 0.1. The server moves by 1 in round 1 and by -1 in round 2, where it trusts nobody.

    FLTrust's answer is 1 everywhere, the server's length in the clients' direction, and then 0, with shares of zero: of
    the momentum a half is left, 1 + 1/2. The running statistics follow the clients to 0.1 and then nobody.
    """

    def root_update(round_number: int, arrays: ArrayRecord) -> ArrayRecord:
        step = 1 if round_number == 1 else -1
        return record({name: values + np.float32(step) for name, values in arrays_of(arrays).items()})

    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        moved = {name: values + np.float32(0.1) for name, values in arrays_of(message.content["arrays"]).items()}
        metrics = MetricRecord({"num-examples": 1})
        return Message(RecordDict({"arrays": record(moved), "metrics": metrics}), reply_to=message)

    start = record({"w": np.zeros((3, 4), np.float32), "running_mean": np.zeros(3, np.float32)})
    strategy = RobustStrategy(
        FLTrust(), root_update=root_update, server_optimizer=ServerMomentum(beta=0.5), fraction_evaluate=0
    )
    found = strategy.start(LocalGrid(app, 3), start, num_rounds=2).arrays
    assert [strategy.diagnostics[number]["refusal"] for number in (1, 2)] == [None, None]
    assert strategy.diagnostics[2]["shares"] == [0.0, 0.0, 0.0]
    np.testing.assert_allclose(found["w"].numpy(), np.full((3, 4), 1.5), rtol=1e-6)
    np.testing.assert_allclose(found["running_mean"].numpy(), np.full(3, 0.1), rtol=1e-6)


def test_a_mistake_in_the_servers_own_update_ends_the_run():
    strategy = RobustStrategy(Trusting(), root_update=lambda round_number, arrays: record({"a": np.ones(3)}))
    with pytest.raises(ValueError, match="missing"):
        strategy.start(grid(), record({"double": np.zeros(3)}), num_rounds=1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fraction_train": 1.5}, "fraction_train: must be less than or equal to 1"),
        ({"fraction_evaluate": -0.1}, "fraction_evaluate: must be greater than or equal to 0"),
        ({"min_train_nodes": -1}, "min_train_nodes: must be greater than or equal to 0"),
        ({"learning_rate": 0.0}, "learning_rate: must be greater than 0"),
        ({"learning_rate": float("nan")}, "learning_rate: must be"),
        ({"weights": "examples"}, "weights: must be 'auto', 'uniform', 'capped' or 'num_examples'"),
        ({"max_num_examples": 0}, "max_num_examples: must be greater than 0"),
        ({"averaged_arrays": "*mean"}, "averaged_arrays: must be"),
        ({"averaged_arrays": [1]}, "averaged_arrays: must be"),
        ({"seed": -1}, "seed: must be greater than or equal to 0"),
        ({"device": "abacus"}, "device: must be a device of this machine, got 'abacus'"),
        ({"device": "cuda:77"}, "device: must be a device of this machine, got 'cuda:77'"),
        ({"preaggregators": [Mean()]}, r"preaggregators"),
        ({"aggregator": "mean"}, "aggregator: must be a component of the kind Aggregator"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(FieldError, match=message):
        RobustStrategy(**{"aggregator": Mean(), **options})


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"w": np.array([1j])}, "arrays must hold floating point numbers for the rule"),
        ({"w": np.array(["a"])}, "'w' must hold numbers, got <U1"),
        ({"w": np.ones(2), "v": np.array([1.0, np.nan])}, "'v' contains NaN: nothing can be trained from it"),
        ({"n": np.array([1])}, r"must hold floating point numbers for the rule, got \['n'\]"),
        ({"running_var": np.ones(1)}, "must hold floating point numbers for the rule"),
    ],
)
def test_arrays_that_no_rule_can_work_with_are_refused(arrays, message):
    with pytest.raises(ValueError, match=message):
        RobustStrategy(Mean()).start(grid(), record(arrays), num_rounds=1)


def test_nothing_is_asked_where_nothing_is_to_be_trained():
    result = RobustStrategy(Mean(), fraction_train=0.0).start(grid(), record(model()), num_rounds=1)
    assert result.train_metrics_clientapp == {}
    assert result.evaluate_metrics_clientapp[1]["accuracy"] > 0


def test_the_summary_names_the_rule(caplog):
    caplog.set_level(logging.INFO, logger="flwr")
    RobustStrategy(TrimmedMean(assumed_fraction=0.25), learning_rate=0.5).summary()
    assert any("TrimmedMean(assumed_fraction=0.25" in line for line in caplog.messages)
    assert any("Fraction: train (1.00)" in line for line in caplog.messages)


@pytest.mark.parametrize(
    ("node", "client"), [(0, 0), (5, 5), (2**63 - 1, 2**63 - 1), (2**63, -(2**63)), (2**64 - 1, -1)]
)
def test_node_ids_fit_into_tensors(node, client):
    """Flower draws node ids of 64 bits without a sign; two's complement, as C would read them."""
    assert client_of(node) == client
    assert torch.tensor([client]).item() == client
    assert np.uint64(node).astype(np.int64) == client


def test_sampled_nodes_only():
    strategy = RobustStrategy(Mean(), fraction_train=0.4)
    messages = list(strategy.configure_train(1, record(model()), ConfigRecord(), grid()))
    assert len(messages) == 2
    assert all(message.content["config"]["server-round"] == 1 for message in messages)
