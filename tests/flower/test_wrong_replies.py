"""Replies that a malicious or broken client may send, as Flower messages to the strategy.

Nodes of clients 0 and 1 answer as they should, the node of client 2 sends what a case makes of a good reply. What must
come of it does not depend on the case: the reply is rejected for the reason given, counted and named, and the new model
is that of the two good updates alone: the mean of their rows, by hand.
"""

from io import BytesIO

import numpy as np
import pytest
import torch
from flwr.app import Array, Message
from three_nodes import (
    BUFFERS,
    UPDATES,
    Change,
    D,
    Nodes,
    content,
    row,
    with_array,
    with_clients,
    with_seconds,
    without,
    without_array,
)

from fedrobust.flower.tensor_array import TensorArray


def raw(data: bytes, stype: str = "numpy.ndarray") -> Array:
    return Array("float32", (1, D), stype, data)


def saved(values: np.ndarray, **options) -> bytes:
    buffer = BytesIO()
    np.save(buffer, values, **options)
    return buffer.getvalue()


def zipped() -> bytes:
    buffer = BytesIO()
    np.savez(buffer, values=np.zeros((1, D), np.float32))
    return buffer.getvalue()


def huge_header() -> bytes:
    """An array that claims 10^15 numbers and brings none."""
    return saved(np.zeros((1, D), np.float32)).replace(b"(1, 10), }     ", b"(10, 10**14), }")


WRONG_REPLIES: dict[str, tuple[Change, str]] = {
    "NaN": (with_array("updates", row(at3=np.nan)), "update contains NaN or infinity"),
    "infinity": (with_array("updates", row(at0=np.inf)), "update contains NaN or infinity"),
    "minus infinity": (with_array("updates", row(at9=-np.inf)), "update contains NaN or infinity"),
    "infinite in float32": (
        with_array("updates", np.full((1, D), 1e300)),
        "update contains NaN or infinity",
    ),
    "too long": (
        with_array("updates", np.zeros((1, D + 1), np.float32)),
        r"update must have shape (1, 10), got (1, 11)",
    ),
    "too short": (with_array("updates", np.zeros((1, 1), np.float32)), "update must have shape (1, 10), got (1, 1)"),
    "empty": (with_array("updates", np.zeros((1, 0), np.float32)), "update must have shape (1, 10), got (1, 0)"),
    "no rows": (with_array("updates", np.zeros((0, D), np.float32)), "update must have shape (1, 10), got (0, 10)"),
    "two rows for one client": (
        with_array("updates", np.zeros((2, D), np.float32)),
        "update must have shape (1, 10), got (2, 10)",
    ),
    "one dimension": (with_array("updates", np.zeros(D, np.float32)), "update must have shape (1, 10), got (10,)"),
    "three dimensions": (
        with_array("updates", np.zeros((1, D, 1), np.float32)),
        "update must have shape (1, 10), got (1, 10, 1)",
    ),
    "a scalar": (with_array("updates", np.float32(1.0)), "update must have shape (1, 10), got ()"),
    "integers": (with_array("updates", np.zeros((1, D), np.int64)), "update must be floating point, got torch.int64"),
    "booleans": (with_array("updates", np.zeros((1, D), bool)), "update must be floating point, got torch.bool"),
    "complex": (with_array("updates", np.zeros((1, D), np.complex64)), "unreadable reply: array must hold numbers"),
    "complex by reference": (
        with_array("updates", TensorArray(torch.zeros(1, D, dtype=torch.complex64))),
        "update must be floating point, got torch.complex64",
    ),
    "strings": (with_array("updates", np.full((1, D), "x")), "unreadable reply: array must hold numbers, got <U1"),
    "dates": (with_array("updates", np.zeros((1, D), "datetime64[s]")), "unreadable reply: array must hold numbers"),
    "records": (with_array("updates", np.zeros((1, D), "f4,f4")), "unreadable reply: array must hold numbers"),
    "pickled objects": (
        with_array("updates", raw(saved(np.array([[{"a": 1}] * D]), allow_pickle=True))),
        "unreadable reply: Object arrays cannot be loaded when allow_pickle=False",
    ),
    "a zip of arrays": (with_array("updates", raw(zipped())), "unreadable reply: "),
    "no bytes": (with_array("updates", raw(b"")), "unreadable reply: "),
    "bytes that are no array": (with_array("updates", raw(b"garbage" * 9)), "unreadable reply: "),
    "a torn array": (with_array("updates", raw(saved(UPDATES[:1].numpy())[:-4])), "unreadable reply: "),
    "a header that lies": (with_array("updates", raw(huge_header())), "unreadable reply: "),
    "another serialisation": (
        with_array("updates", raw(saved(UPDATES[:1].numpy()), "torch.pickle")),
        "unreadable reply: Unsupported serialization type",
    ),
    "no updates": (without_array("updates"), "unreadable reply: missing updates"),
    "no num-examples and losses": (
        without_array("num-examples", "losses"),
        "unreadable reply: missing num-examples, losses",
    ),
    "no arrays": (without("updates"), "unreadable reply: missing updates"),
    "no config": (without("config"), "unreadable reply: missing config"),
    "no clients": (lambda record: record.config_records["config"].pop("clients"), "unreadable reply: missing clients"),
    "no metrics": (without("metrics"), "unreadable reply: missing metrics"),
    "a missing buffer": (without_array("buffer/1.running_mean"), "buffers must be ['1.num_batches_tracked', '1.runn"),
    "no buffers": (without_array(*(f"buffer/{name}" for name in BUFFERS)), "buffers must be ['1.num_batches_tracked'"),
    "an extra buffer": (with_array("buffer/more", np.zeros((1, 2), np.float32)), "buffers must be ['1.num_batches_tra"),
    "a misshapen buffer": (
        with_array("buffer/1.running_var", np.ones((1, 3), np.float32)),
        "buffer 1.running_var must have shape (1, 2), got (1, 3)",
    ),
    "NaN in a buffer": (
        with_array("buffer/1.running_mean", np.array([[0, np.nan]], np.float32)),
        "buffer 1.running_mean contains NaN or infinity",
    ),
    "a complex buffer": (
        with_array("buffer/1.running_mean", TensorArray(torch.zeros(1, 2, dtype=torch.complex64))),
        "buffer 1.running_mean must hold real numbers, got torch.complex64",
    ),
    "no examples": (with_array("num-examples", np.array([0])), "num_examples must be positive, got 0"),
    "negative num_examples": (with_array("num-examples", np.array([-5])), "num_examples must be positive, got -5"),
    "float num_examples": (
        with_array("num-examples", np.array([5.0])),
        "num_examples must be integers, got torch.float64",
    ),
    "NaN num_examples": (
        with_array("num-examples", np.array([np.nan])),
        "num_examples must be integers, got torch.float64",
    ),
    "num_examples beyond int64": (
        with_array("num-examples", np.array([2**64 - 1], np.uint64)),
        "num_examples must be integers, got torch.uint64",
    ),
    "two num_examples": (with_array("num-examples", np.array([5, 5])), "num_examples must have shape (1,), got (2,)"),
    "two losses": (with_array("losses", np.zeros(2, np.float32)), "loss must have shape (1,), got (2,)"),
    "a loss without dimensions": (with_array("losses", np.float32(0)), "loss must have shape (1,), got ()"),
    "NaN loss": (with_array("losses", np.array([np.nan], np.float32)), "loss contains NaN or infinity"),
    "integer loss": (with_array("losses", np.array([1])), "loss must be floating point, got torch.int64"),
    "another client's id": (
        with_clients([0]),
        "unreadable reply: clients must be of those that the node was asked to train, got [0]",
    ),
    "an id that nobody has": (
        with_clients([99]),
        "unreadable reply: clients must be of those that the node was asked to train, got [99]",
    ),
    "a negative id": (
        with_clients([-1]),
        "unreadable reply: clients must be of those that the node was asked to train, got [-1]",
    ),
    "ids as strings": (with_clients(["2"]), "unreadable reply: clients must be a list of integers, got ['2']"),
    "ids as floats": (with_clients([2.0]), "unreadable reply: clients must be a list of integers, got [2.0]"),
    "ids as booleans": (with_clients([True]), "unreadable reply: clients must be a list of integers, got [True]"),
    "an id without a list": (
        lambda record: record.config_records["config"].update({"clients": 2}),
        "unreadable reply: clients must be a list of integers, got 2",
    ),
    "no ids": (with_clients([]), "unreadable reply: names no client"),
    "a client named twice": (
        with_clients([2, 2]),
        "unreadable reply: clients must be named once each, got [2, 2]",
    ),
    "seconds that are NaN": (with_seconds(float("nan")), "unreadable reply: seconds must be a finite number from 0 on"),
    "negative seconds": (with_seconds(-1.0), "unreadable reply: seconds must be a finite number from 0 on, got -1.0"),
    "a list of seconds": (with_seconds([0.1]), "unreadable reply: seconds must be a finite number from 0 on"),
}


@pytest.mark.parametrize("name", WRONG_REPLIES)
def test_a_wrong_reply_is_rejected_and_the_round_goes_on(name):
    change, reason = WRONG_REPLIES[name]
    nodes = Nodes()
    wrong = content(2)
    change(wrong)
    result = nodes.end([nodes.good(0), Message(wrong, reply_to=nodes.orders[2]), nodes.good(1)])
    torch.testing.assert_close(nodes.federation.state.vector, UPDATES[:2].mean(dim=0))
    assert nodes.federation.state.round_number == 1
    assert (result["clients"], result["num_received"], result["num_rejected"]) == ([0, 1], 2, len(result["rejected"]))
    assert [one["client"] for one in result["rejected"]] == [2]
    assert result["rejected"][0]["reason"].startswith(reason)
