"""Replies that a malicious or broken client may send to RobustStrategy.

Three nodes (2, 3 and 4). The first two answer as they should, node 4 sends what a case makes of a good reply. Whatever
it is, the reply is rejected for the reason given, counted and named, and the new model is made of the two good ones: by
hand, (1 · 1 + 3 · 2) / 4 = 1.75 everywhere, for node 2 adds 1 and claims 1 example and node 3 adds 2 and claims 3.
"""

import io
import re

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from fedrobust.aggregators.base import Aggregate, UnsuitableSizeError
from fedrobust.aggregators.coordinate_median import CoordinateMedian
from fedrobust.aggregators.mean import Mean
from fedrobust.config.component import component
from fedrobust.engines.local import LocalGrid
from fedrobust.flower import RobustStrategy

GLOBAL = {
    "w": np.zeros((2, 3), np.float32),
    "b": np.zeros((), np.float64),
    "half": np.zeros(2, np.float16),
    "norm.running_var": np.zeros(2, np.float32),
    "norm.num_batches_tracked": np.array(3),
    "flag": np.array([True]),
}


def record(arrays: dict) -> ArrayRecord:
    found = ArrayRecord()
    for name, values in arrays.items():
        found[name] = values if isinstance(values, Array) else Array(np.asarray(values))
    return found


def content(add: float, examples: object, **arrays: object) -> RecordDict:
    """What a client sends that adds `add` to every floating number; `arrays` in place of its own, `None`: left out."""
    own = {
        name: values + values.dtype.type(add) if values.dtype.kind == "f" else values for name, values in GLOBAL.items()
    }
    merged = {name: values for name, values in {**own, **arrays}.items() if values is not None}
    return RecordDict({"arrays": record(merged), "metrics": MetricRecord({"num-examples": examples, "loss": add})})


class Nodes:
    def __init__(self, rule=None, **options) -> None:
        self.strategy = RobustStrategy(rule or Mean(), **options)
        self.grid = LocalGrid(ClientApp(), 3)
        self.sent = record(GLOBAL)
        messages = self.strategy.configure_train(1, self.sent, ConfigRecord(), self.grid)
        self.orders = {message.metadata.dst_node_id: message for message in messages}

    def reply(self, node: int, answer: RecordDict | Error) -> Message:
        return Message(answer, reply_to=self.orders[node])

    def good(self) -> list[Message]:
        return [self.reply(3, content(2, 3)), self.reply(2, content(1, 1))]

    def end(self, replies: list[Message]) -> tuple[dict[str, np.ndarray], MetricRecord]:
        arrays, metrics = self.strategy.aggregate_train(1, replies)
        return {name: array.numpy() for name, array in arrays.items()}, metrics


def check_model(found: dict[str, np.ndarray], expected: float) -> None:
    for name, values in GLOBAL.items():
        assert found[name].dtype == values.dtype
        assert found[name].shape == values.shape
        np.testing.assert_array_equal(
            found[name], np.full_like(values, expected) if values.dtype.kind == "f" else values
        )


def npy(header: bytes) -> Array:
    """An .npy file with a header of our own and eight bytes of numbers."""
    data = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(8)
    return Array("float32", (2, 3), "numpy.ndarray", data)


def numbers(shape: str) -> Array:
    return npy(f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}}}".encode())


def archive() -> Array:
    buffer = io.BytesIO()
    np.savez(buffer, w=np.zeros((2, 3), np.float32))
    return Array("float32", (2, 3), "numpy.ndarray", buffer.getvalue())


def pickled() -> Array:
    buffer = io.BytesIO()
    np.save(buffer, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    return Array("float32", (2, 3), "numpy.ndarray", buffer.getvalue())


def nan(shape: tuple[int, ...], dtype: type = np.float32) -> np.ndarray:
    values = np.ones(shape, dtype)
    values.reshape(-1)[-1:] = np.nan
    return values


def two_array_records() -> RecordDict:
    found = content(1, 1)
    found["more"] = record(GLOBAL)
    return found


def two_metric_records() -> RecordDict:
    found = content(1, 1)
    found["more"] = MetricRecord({"num-examples": 1})
    return found


def without_metrics() -> RecordDict:
    return RecordDict({"arrays": content(1, 1)["arrays"]})


def without_examples() -> RecordDict:
    return RecordDict({"arrays": content(1, 1)["arrays"], "metrics": MetricRecord({"loss": 1.0})})


CASES = {
    "error": (lambda: Error(2, "out of memory"), "failed: out of memory"),
    "error without reason": (lambda: Error(2), "failed: no reason given"),
    "nothing": (lambda: RecordDict(), "one MetricRecord, got 0"),
    "no arrays": (lambda: RecordDict({"m": MetricRecord({"num-examples": 1})}), "one ArrayRecord, got 0"),
    "two array records": (two_array_records, "one ArrayRecord, got 2"),
    "no metrics": (without_metrics, "one MetricRecord, got 0"),
    "two metric records": (two_metric_records, "one MetricRecord, got 2"),
    "no examples": (without_examples, r"metrics must hold 'num-examples', got \['loss'\]"),
    "zero examples": (lambda: content(1, 0), "must be a positive number up to 1e\\+09, got 0"),
    "negative examples": (lambda: content(1, -5), "must be a positive number"),
    "nan examples": (lambda: content(1, float("nan")), "must be a positive number"),
    "infinite examples": (lambda: content(1, float("inf")), "must be a positive number"),
    "absurd examples": (lambda: content(1, 2**62), "must be a positive number"),
    "a list of examples": (lambda: content(1, [5]), "must be a positive number"),
    "missing array": (lambda: content(1, 1, half=None), r"missing \['half'\], unknown \[\]"),
    "missing counter": (lambda: content(1, 1, flag=None), r"missing \['flag'\]"),
    "extra array": (lambda: content(1, 1, more=np.zeros(1)), r"missing \[\], unknown \['more'\]"),
    "other shape": (lambda: content(1, 1, w=np.zeros((3, 2))), r"'w' must have shape \(2, 3\), got \(3, 2\)"),
    "flat": (lambda: content(1, 1, w=np.zeros(6)), r"must have shape \(2, 3\), got \(6,\)"),
    "would broadcast": (lambda: content(1, 1, w=np.zeros((1, 3))), r"must have shape \(2, 3\), got \(1, 3\)"),
    "scalar as vector": (lambda: content(1, 1, b=np.zeros(1)), r"'b' must have shape \(\), got \(1,\)"),
    "counter misshapen": (lambda: content(1, 1, flag=np.array([True] * 2)), r"'flag' must have shape \(1,\)"),
    "integers for floats": (lambda: content(1, 1, w=np.zeros((2, 3), int)), "'w' must hold floating point"),
    "floats for integers": (lambda: content(1, 1, flag=np.zeros(1)), "'flag' must hold booleans, got float64"),
    "complex": (lambda: content(1, 1, w=np.zeros((2, 3), complex)), "must hold floating point numbers, got complex128"),
    "text": (lambda: content(1, 1, w=np.array([["a"] * 3] * 2)), "must hold numbers, got <U1"),
    "nan": (lambda: content(1, 1, w=nan((2, 3))), "'w' contains NaN or infinity"),
    "nan scalar": (lambda: content(1, 1, b=np.array(np.nan)), "'b' contains NaN or infinity"),
    "infinite buffer": (lambda: content(1, 1, **{"norm.running_var": np.array([1, np.inf])}), "running_var' contains"),
    "too large for a row": (lambda: content(1, 1, w=np.full((2, 3), 1e300)), "'w' contains NaN or infinity"),
    "no bytes": (lambda: content(1, 1, w=Array("float32", (2, 3), "numpy.ndarray", b"")), "unreadable array"),
    "cut short": (lambda: content(1, 1, w=numbers("(2, 3)")), "unreadable array"),
    "huge": (lambda: content(1, 1, w=numbers("(9999999999999999,)")), "unreadable array"),
    "no dictionary": (lambda: content(1, 1, w=npy(b"(" * 500)), "unreadable array"),
    "deep": (lambda: content(1, 1, w=npy(b"-" * 9000 + b"1")), "unreadable array"),
    "pickle": (lambda: content(1, 1, w=pickled()), "unreadable array"),
    "archive": (lambda: content(1, 1, w=archive()), "unreadable array: holds a NpzFile"),
    "other serialisation": (lambda: content(1, 1, w=Array("float32", (2, 3), "pickle", b"1")), "unreadable array"),
    "long names": (lambda: content(1, 1, **{"x" * 10000: np.zeros(1)}), "arrays must be the server's.* \\.\\.\\.$"),
}


def test_one_line_a_round_says_of_all_who_was_rejected(caplog):
    nodes = Nodes()
    overflowed = content(1, 1, w=np.full((2, 3), np.inf, dtype=np.float32))
    nodes.end([nodes.reply(2, overflowed), nodes.reply(3, overflowed), nodes.reply(4, Error(2))])
    (line,) = (line for line in caplog.messages if " rejected: " in line)
    assert re.fullmatch("round 1: nodes 2, 3 rejected: .*; node 4 rejected: failed: no reason given", line), line


@pytest.mark.parametrize("case", CASES)
def test_the_round_goes_on_without_it(case, caplog):
    make, reason = CASES[case]
    nodes = Nodes()
    found, metrics = nodes.end([nodes.reply(4, make()), *nodes.good()])
    check_model(found, 1.75)
    about = nodes.strategy.diagnostics[1]
    (rejection,) = about["rejected"]
    assert rejection["node"] == 4
    assert len(rejection["reason"]) <= 200
    assert re.search(reason, rejection["reason"]), rejection["reason"]
    assert any(f"round 1: node 4 rejected: {rejection['reason']}" in line for line in caplog.messages)
    assert (metrics["robust.num_received"], metrics["robust.num_rejected"]) == (2, 1)
    assert metrics["robust.nodes"] == [2, 3]
    assert metrics["robust.shares"] == [0.25, 0.75]
    assert metrics["loss"] == pytest.approx(1.75)


def test_a_reply_from_a_node_that_was_not_asked_does_not_count():
    nodes = Nodes()
    stranger = Message(content(100, 1), reply_to=nodes.orders[4])
    stranger.metadata.__dict__["_src_node_id"] = 9
    found, _ = nodes.end([stranger, *nodes.good()])
    check_model(found, 1.75)
    assert nodes.strategy.diagnostics[1]["rejected"] == [
        {"node": 9, "reason": "was not asked to train in this round"},
        {"node": 4, "reason": "did not answer"},
    ]


def test_the_first_usable_of_several_replies_counts():
    """Node 3 sends something broken, then its good reply, then another."""
    nodes = Nodes()
    broken = nodes.reply(3, content(1, 1, w=None))
    again = nodes.reply(3, content(50, 3))
    found, metrics = nodes.end([broken, *nodes.good(), again, nodes.reply(4, Error(2, "x"))])
    check_model(found, 1.75)
    reasons = [one["reason"] for one in nodes.strategy.diagnostics[1]["rejected"] if one["node"] == 3]
    assert reasons == [
        "arrays must be the server's, missing ['w'], unknown []",
        "answered more than once; the first usable reply counts",
    ]
    assert metrics["robust.num_received"] == 2


@pytest.mark.parametrize("answers", [0, 3])
def test_without_a_usable_reply_the_model_stays(answers):
    nodes = Nodes()
    arrays, metrics = nodes.strategy.aggregate_train(
        1, [nodes.reply(node, content(1, 0)) for node in (2, 3, 4)[:answers]]
    )
    assert arrays is nodes.sent
    assert (metrics["robust.num_received"], metrics["robust.num_rejected"]) == (0, 3)
    assert nodes.strategy.diagnostics[1]["shares"] is None


@component
class NeedsThree:
    def __call__(self, updates, weights=None) -> Aggregate:
        if len(updates) < 3:
            raise UnsuitableSizeError(f"NeedsThree needs n >= 3, got n={len(updates)}")
        return Mean()(updates, weights)


def test_a_rule_with_too_few_updates_leaves_the_model_and_says_so(caplog):
    nodes = Nodes(NeedsThree(), weights="num_examples")
    arrays, metrics = nodes.strategy.aggregate_train(1, nodes.good())
    assert arrays is nodes.sent
    assert nodes.strategy.diagnostics[1]["refusal"] == "NeedsThree needs n >= 3, got n=2"
    assert "round 1: the model stays as it is: NeedsThree needs n >= 3, got n=2" in caplog.messages
    assert metrics["loss"] == pytest.approx(1.75)
    assert "robust.shares" not in metrics


def test_a_model_that_would_overflow_its_format_is_not_taken(caplog):
    """70000 is a number in float32, not in float16: the mean of it and the others is infinite there."""
    nodes = Nodes(weights="uniform")
    far = content(1, 1, half=np.full(2, 3e5, np.float32))
    arrays, _ = nodes.strategy.aggregate_train(1, [*nodes.good(), nodes.reply(4, far)])
    assert arrays is nodes.sent
    assert "'half' would not be finite in float16" in nodes.strategy.diagnostics[1]["refusal"]
    assert nodes.strategy.state_dict() == {"round_number": 1, "state": {}}


@pytest.mark.parametrize("value", [1e30, -3e38])
def test_huge_but_finite_updates_are_the_rules_to_judge(value):
    """The coordinate-wise median of 1, 2 and something far off on either side."""
    nodes = Nodes(CoordinateMedian(), weights="uniform")
    arrays = {
        name: np.full_like(GLOBAL[name], value, dtype=np.float32) for name in ("w", "b", "half", "norm.running_var")
    }
    found, metrics = nodes.end([*nodes.good(), nodes.reply(4, content(1, 1, **arrays))])
    check_model(found, 2.0 if value > 0 else 1.0)
    assert metrics["robust.num_rejected"] == 0


def test_uniform_weights_need_no_metrics_and_believe_none():
    nodes = Nodes(weights="uniform")
    found, metrics = nodes.end(
        [nodes.reply(2, content(1, 2**62)), nodes.reply(3, content(2, -1)), nodes.reply(4, without_metrics())]
    )
    expected = np.float32(4 / 3)
    np.testing.assert_allclose(found["w"], np.full((2, 3), expected), rtol=1e-6)
    assert metrics["loss"] == pytest.approx(1.5)  # of the two that sent one, each counted once


@pytest.mark.parametrize("loss", [float("nan"), float("inf"), [1.0, 2.0], 10**400])
def test_metrics_unlike_the_others_are_left_out_and_the_update_counts(loss):
    """Flower's own strategies end the run with the first of these (or pass NaN on)."""
    nodes = Nodes(weights="uniform")
    odd = content(6, 1)
    odd["metrics"]["loss"] = loss
    found, metrics = nodes.end([*nodes.good(), nodes.reply(4, odd)])
    check_model(found, 3.0)
    assert metrics["loss"] == pytest.approx(1.5)


@pytest.mark.parametrize("bad", [RecordDict(), Error(2, "x"), RecordDict({"m": MetricRecord({"accuracy": 1.0})})])
def test_evaluation_goes_on_without_the_unusable(bad):
    nodes = Nodes()
    fine = [
        nodes.reply(node, RecordDict({"m": MetricRecord({"num-examples": node, "accuracy": 0.1 * node})}))
        for node in (2, 3)
    ]
    metrics = nodes.strategy.aggregate_evaluate(1, [nodes.reply(4, bad), *fine])
    assert dict(metrics) == {"accuracy": pytest.approx((0.4 + 0.9) / 5)}
    assert nodes.strategy.aggregate_evaluate(1, [nodes.reply(4, bad)]) is None


def test_wider_and_narrower_floats_than_the_servers_are_taken():
    """As numbers: 1 and 2 are the same in every format, whatever the byte order."""
    nodes = Nodes(weights="uniform")
    wide = {
        name: np.full(GLOBAL[name].shape, 3.0, dtype) for name, dtype in [("w", ">f8"), ("b", "f2"), ("half", "f8")]
    }
    wide["w"] = np.asfortranarray(wide["w"])
    found, metrics = nodes.end([*nodes.good(), nodes.reply(4, content(3, 1, **wide))])
    check_model(found, 2.0)
    assert metrics["robust.num_received"] == 3


def test_rows_lie_on_the_device_that_was_asked_for():
    strategy = RobustStrategy(Mean(), device="meta")
    strategy._rows.clear(2, 3)
    strategy._rows.next_row().fill_(1.0)  # the staging row on the CPU
    strategy._rows.keep()
    assert strategy._rows.rows.device == torch.device("meta")
    assert strategy._rows.rows.shape == (1, 3)
