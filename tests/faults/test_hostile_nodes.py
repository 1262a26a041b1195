"""Whatever a node answers, or leaves by, a round goes on without it, and says whose answer was not used and why.

A run of digits with a node for each of four clients, in this process, so that replies need not pass through bytes. In
round 1 the node of client 2 does what a case says; in round 2 it behaves. Nothing else may differ from a run in which
client 2 raises.
"""

import asyncio
import dataclasses
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import Array, ConfigRecord, Context, Error, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from fedrobust.config.compose import compose_config
from fedrobust.engines import Local
from fedrobust.federation.collection import Rejection, Reply, collect
from fedrobust.federation.round import Row
from fedrobust.flower.apps import make_client_app, make_server_app
from fedrobust.flower.tensor_array import TensorArray
from fedrobust.scenario import Prepared, build_scenario, prepare

AREA = "Clients and nodes"
PROMISED = "the round goes on; the client is named and counted once, with the reason"
OVERRIDES = ["model=logistic", "num_clients=4", "attack=none", "aggregator=mean", "num_rounds=2", "device=cpu"]
OVERRIDES += ["dataset.num_test=200", "client.num_epochs=1"]
HOSTILE, NUM_CLIENTS, D = 2, 4, 650

Answer = Callable[[Message, Message], Any]
"""What the hostile node makes of the order and of the good reply that it would have sent."""


@cache
def prepared_once() -> Prepared:
    return prepare(build_scenario(compose_config(OVERRIDES)[0]))


def play(answer: Answer) -> tuple[list[Row], torch.Tensor]:
    """The rounds' records and the model at the end."""
    prepared = prepared_once()
    federation = dataclasses.replace(prepared.federation, state=dataclasses.replace(prepared.federation.state))
    inner, app = make_client_app(lambda context: prepared.population), ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        reply = inner(message, context)
        task = message.content["config"]
        return answer(message, reply) if (task["server-round"], task["clients"]) == (1, [HOSTILE]) else reply

    rows: list[Row] = []
    Local(num_nodes=NUM_CLIENTS).run(make_server_app(federation, rows.append), app, NUM_CLIENTS)
    return rows, federation.state.vector


@cache
def without_the_client() -> torch.Tensor:
    def answer(message: Message, reply: Message) -> Message:
        raise ValueError("absent")

    return play(answer)[1]


def leave(error: BaseException) -> Answer:
    def answer(message: Message, reply: Message) -> Message:
        raise error

    return answer


def give(value: Any) -> Answer:
    return lambda message, reply: value


def tensor(name: str, make: Callable[[torch.Tensor], torch.Tensor]) -> Answer:
    """The good reply with one tensor made into another, handed over as it is."""

    def answer(message: Message, reply: Message) -> Message:
        record = reply.content["updates"]
        record[name] = TensorArray(make(record[name].tensor))
        return reply

    return answer


def array(name: str, make: Callable[[np.ndarray], np.ndarray]) -> Answer:
    """The good reply with one array made into another, as bytes."""

    def answer(message: Message, reply: Message) -> Message:
        record = reply.content["updates"]
        record[name] = Array(np.asarray(make(record[name].numpy())))
        return reply

    return answer


def config(**changes: Any) -> Answer:
    def answer(message: Message, reply: Message) -> Message:
        reply.content["config"] = ConfigRecord({**reply.content["config"], **changes})
        return reply

    return answer


def metrics(record: Any) -> Answer:
    def answer(message: Message, reply: Message) -> Message:
        reply.content["metrics"] = record
        return reply

    return answer


def both_rows(message: Message, reply: Message) -> Message:
    """Two good rows for one client."""
    record = reply.content["updates"]
    for name in list(record):
        record[name] = TensorArray(torch.cat([record[name].tensor] * 2))
    reply.content["config"] = ConfigRecord({"clients": [HOSTILE, HOSTILE]})
    return reply


def failed_as_well(message: Message, reply: Message) -> Message:
    reply.content["config"] = ConfigRecord({"clients": [HOSTILE], "failed": [HOSTILE], "reasons": ["x"]})
    return reply


def to_another(message: Message, reply: Message) -> Message:
    return Message(reply.content, 3, "train")


def the_order_itself(message: Message, reply: Message) -> Message:
    return message


def quantised(values: torch.Tensor) -> torch.Tensor:
    return torch.quantize_per_tensor(values, 0.1, 0, torch.qint8)


def nested(values: torch.Tensor) -> torch.Tensor:
    return torch.nested.as_nested_tensor([values[0]], layout=torch.jagged)


class Stop(BaseException):
    """What some libraries end a thread by."""


EXITS = {
    "SystemExit": (leave(SystemExit()), "failed: SystemExit"),
    "SystemExit 0": (leave(SystemExit(0)), "failed: SystemExit: 0"),
    "SystemExit with text": (leave(SystemExit("done")), "failed: SystemExit: done"),
    "GeneratorExit": (leave(GeneratorExit()), "failed: GeneratorExit"),
    "CancelledError": (leave(asyncio.CancelledError()), "failed: CancelledError"),
    "a BaseException of one's own": (leave(Stop("now")), "failed: Stop: now"),
    "StopIteration": (leave(StopIteration(3)), "failed: StopIteration: 3"),
    "MemoryError": (leave(MemoryError()), "failed: MemoryError"),
    "RecursionError": (leave(RecursionError("deep")), "failed: RecursionError: deep"),
    "None": (give(None), "failed: TypeError: a ClientApp must answer with a message, got "),
    "an int": (give(7), "failed: TypeError: a ClientApp must answer with a message, got "),
    "a string": (give("ok"), "failed: TypeError: a ClientApp must answer with a message, got "),
    "a class": (give(Message), "failed: TypeError: a ClientApp must answer with a message, got "),
    "the content alone": (lambda message, reply: reply.content, "failed: TypeError: a ClientApp must answer"),
    "a list of replies": (lambda message, reply: [reply], "failed: TypeError: a ClientApp must answer with a message"),
    "a message to another": (to_another, "failed: ValueError: a ClientApp must answer the message that it was given"),
    "the order itself": (the_order_itself, "failed: ValueError: a ClientApp must answer the message that it was"),
    "an error": (lambda message, reply: Message(Error(9, "full"), reply_to=message), "failed: full"),
    "an error without a reason": (
        lambda message, reply: Message(Error(9), reply_to=message),
        "failed: no reason given",
    ),
}
TENSORS = {
    "sparse": (tensor("updates", lambda one: one.to_sparse()), "update must be dense, got torch.sparse_coo"),
    "sparse rows": (tensor("updates", lambda one: one.to_sparse_csr()), "update must be dense, got torch.sparse_csr"),
    "sparse losses": (tensor("losses", lambda one: one.to_sparse()), "loss must be dense, got torch.sparse_coo"),
    "sparse claims": (tensor("num-examples", lambda one: one.to_sparse()), "num_examples must be dense, got torch.sp"),
    "quantised": (tensor("updates", quantised), "update must be dense, got torch.qint8"),
    "quantised losses": (tensor("losses", quantised), "loss must be dense, got torch.qint8"),
    "nested": (tensor("updates", nested), "update must be dense"),
    "mkldnn": (tensor("updates", lambda one: one.to_mkldnn()), "update must be dense, got torch._mkldnn"),
    "on no device": (tensor("updates", lambda one: one.to("meta")), "unreadable reply: "),
    "losses on no device": (tensor("losses", lambda one: one.to("meta")), "unreadable reply: "),
    "packed in fours": (
        tensor("updates", lambda one: one.to(torch.uint8).view(torch.float4_e2m1fn_x2)),
        "reply cannot be converted to torch.float32",
    ),
    "complex": (tensor("updates", lambda one: one.to(torch.complex64)), "update must be floating point, got torch.c"),
    "booleans": (tensor("updates", lambda one: one > 0), "update must be floating point, got torch.bool"),
    "transposed": (tensor("updates", lambda one: one.T), f"update must have shape (1, {D}), got ({D}, 1)"),
    "a scalar": (tensor("updates", lambda one: one.sum()), f"update must have shape (1, {D}), got ()"),
    "a NaN": (tensor("updates", lambda one: one.index_fill(1, torch.tensor(5), torch.nan)), "update contains NaN"),
    "beyond float32": (tensor("updates", lambda one: one.double() + 1e300), "update contains NaN or infinity"),
    "a huge loss": (tensor("losses", lambda one: one.double() + 1e300), "loss contains NaN or infinity"),
    "bytes of float128": (array("updates", lambda one: one.astype(np.longdouble)), "unreadable reply: "),
    "bytes of dates": (array("updates", lambda one: one.astype("datetime64[s]")), "unreadable reply: "),
    "a claim of 2^64 - 1": (
        array("num-examples", lambda one: np.array([2**64 - 1], np.uint64)),
        "num_examples must be integers, got torch.uint64",
    ),
}
RECORDS = {
    "two rows for one client": (both_rows, "unreadable reply: clients must be named once each, got [2, 2]"),
    "trained and failed at once": (failed_as_well, "unreadable reply: failed clients must have a reason each"),
    "the same failure twice": (
        config(clients=[], failed=[2, 2], reasons=["x", "y"]),
        "unreadable reply: clients must be named once each, got [2, 2]",
    ),
    "another's id": (config(clients=[1]), "unreadable reply: clients must be of those that the node was asked"),
    "everyone's ids": (config(clients=[0, 1, 2, 3]), "unreadable reply: clients must be of those"),
    "ids as text": (config(clients=["2"]), "unreadable reply: clients must be a list of integers"),
    "an id of 10^18": (config(clients=[10**18]), "unreadable reply: clients must be of those"),
    "an id and a half": (config(clients=[2.0]), "unreadable reply: clients must be a list of integers"),
    "reasons without clients": (config(failed=[], reasons=["x"]), "unreadable reply: failed clients must have"),
    "another failed": (config(failed=[1], reasons=["x"]), "unreadable reply: clients must be of those"),
    "seconds below zero": (metrics(MetricRecord({"seconds": -1.0})), "unreadable reply: seconds must be"),
    "seconds of 10^400": (metrics(MetricRecord({"seconds": 10**400})), "unreadable reply: "),
    "metrics of another kind": (metrics(ConfigRecord({"seconds": 1.0})), "unreadable reply: metrics must be a Metric"),
    "updates of another kind": (
        lambda message, reply: Message(
            RecordDict({**reply.content, "updates": MetricRecord({"updates": 1.0})}), reply_to=message
        ),
        "unreadable reply: updates must be a ArrayRecord",
    ),
    "nothing": (lambda message, reply: Message(RecordDict(), reply_to=message), "unreadable reply: missing updates"),
}
CASES = {**EXITS, **TENSORS, **RECORDS}


@pytest.mark.fault(AREA, "a node that answers with something else, or leaves", PROMISED)
@pytest.mark.parametrize("case", CASES)
@pytest.mark.filterwarnings(
    "ignore:Sparse CSR tensor support:UserWarning", "ignore:torch.quantize_per_tensor:UserWarning"
)
def test_the_round_goes_on_without_it(case: str) -> None:
    answer, reason = CASES[case]
    first, second = play(answer)[0]
    assert [one["client"] for one in first["rejected"]] == [HOSTILE]
    assert first["rejected"][0]["reason"].startswith(reason), first["rejected"]
    assert (first["num_received"], first["num_rejected"], first["clients"]) == (3, 1, [0, 1, 3])
    assert (second["num_received"], second["num_rejected"]) == (4, 0)


@pytest.mark.parametrize("case", ["SystemExit", "None", "sparse", "two rows for one client"])
def test_the_model_is_that_of_the_others(case: str) -> None:
    assert torch.equal(play(CASES[case][0])[1], without_the_client())


def test_ctrl_c_is_the_users() -> None:
    with pytest.raises(KeyboardInterrupt):
        play(leave(KeyboardInterrupt()))


GLOBAL = torch.zeros(3)
BUFFERS = {"mean": torch.zeros(2)}


def reply(*clients: int, **changes: Any) -> Reply:
    k = len(clients)
    values: dict[str, Any] = {
        "clients": clients,
        "updates": torch.ones(k, 3),
        "num_examples": torch.ones(k, dtype=torch.int64),
        "losses": torch.zeros(k),
        "buffers": {"mean": torch.zeros(k, 2)},
        "seconds": 0.0,
    }
    return Reply(**{**values, **changes})


LAYOUTS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "coo": lambda one: one.to_sparse(),
    "csr": lambda one: one.to_sparse_csr(),
    "csc": lambda one: one.to_sparse_csc(),
    "mkldnn": lambda one: one.to_mkldnn(),
    "nested": lambda one: torch.nested.as_nested_tensor(list(one), layout=torch.jagged),
    "old nested": lambda one: torch.nested.nested_tensor(list(one)),
    "meta": lambda one: one.to("meta"),
}


@pytest.mark.fault(AREA, "a tensor that is not an ordinary one, at the door of the matrix", PROMISED)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("field", ["updates", "buffers"])
@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning")
@pytest.mark.filterwarnings("ignore:Sparse CS:UserWarning")
def test_only_dense_tensors_become_rows(field: str, layout: str) -> None:
    make = LAYOUTS[layout]
    odd = make(torch.ones(2, 3)) if field == "updates" else {"mean": make(torch.zeros(2, 2))}
    collected = collect([0, 1, 2], [reply(0, 1, **{field: odd}), reply(2)], [], GLOBAL, BUFFERS)
    assert collected.clients == (2,)
    assert [one.client for one in collected.rejections] == [0, 1]
    assert all("must be dense" in one.reason for one in collected.rejections)


@pytest.mark.fault(AREA, "one client rejected for several reasons, or several times", PROMISED)
@pytest.mark.parametrize(
    ("replies", "failures", "expected"),
    [
        ([reply(0, 0, losses=torch.zeros(3))], [], {0: "loss must have shape"}),
        ([reply(0, 0)], [], {0: "answered more than once; the first reply counts"}),
        ([reply(0), reply(0), reply(0)], [], {0: "answered more than once; the first reply counts"}),
        ([reply(0, updates=torch.full((1, 3), torch.nan))] * 3, [], {0: "update contains NaN"}),
        ([reply(0, updates=torch.zeros(1, 4))] * 2, [Rejection(0, "failed: x")], {0: "failed: x"}),
        ([reply(7), reply(7, 7)], [Rejection(0, "failed: x")] * 2, {0: "failed: x", 7: "was not asked to train"}),
    ],
)
def test_a_client_is_counted_once(replies: list[Reply], failures: list[Rejection], expected: dict[int, str]) -> None:
    found = collect([0], replies, failures, GLOBAL, BUFFERS).rejections
    assert [one.client for one in found] == list(expected)
    assert all(one.reason.startswith(expected[one.client]) for one in found)
