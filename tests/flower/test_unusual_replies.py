"""Replies that are unusual and yet to be used: other formats, several clients' rows, large claims, huge updates.

The expected model is the weighted mean of the updates, by hand.
"""

import numpy as np
import pytest
import torch
from flwr.app import Message
from flwr.clientapp import ClientApp
from three_nodes import BUFFERS, UPDATES, D, Nodes, content, with_array, with_clients

from fedrobust.aggregators import CoordinateMedian, Mean, Sever, SpectralFilter, TrimmedMean
from fedrobust.engines.local import LocalGrid
from fedrobust.flower.tensor_array import TensorArray


@pytest.mark.parametrize("kind", [np.float64, np.float16])
def test_other_floating_formats_are_converted(kind):
    """2^-k is exact in every format, so the mean over three clients is that of float32 updates."""
    exact = np.array([[2.0**-power for power in range(D)]])
    nodes = Nodes()
    unusual = content(2)
    with_array("updates", exact.astype(kind))(unusual)
    with_array("losses", np.array([0.5], kind))(unusual)
    with_array("buffer/1.running_mean", np.zeros((1, 2), kind))(unusual)
    result = nodes.end([nodes.good(0), nodes.good(1), Message(unusual, reply_to=nodes.orders[2])])
    assert result["rejected"] == []
    expected = (UPDATES[0] + UPDATES[1] + torch.from_numpy(exact[0]).float()) / 3
    torch.testing.assert_close(nodes.federation.state.vector, expected)
    # (1 + 1 + 0) / 3, and still in the model's own format, whatever a client sends.
    torch.testing.assert_close(nodes.federation.state.buffers["1.running_mean"], torch.full((2,), 2 / 3))


def test_bfloat16_by_reference_is_converted():
    """NumPy has no bfloat16, so it can come by reference only."""
    exact = torch.tensor([[2.0**-power for power in range(D)]])
    nodes = Nodes()
    unusual = content(2)
    with_array("updates", TensorArray(exact.bfloat16()))(unusual)
    result = nodes.end([nodes.good(0), nodes.good(1), Message(unusual, reply_to=nodes.orders[2])])
    assert result["rejected"] == []
    torch.testing.assert_close(nodes.federation.state.vector, (UPDATES[0] + UPDATES[1] + exact[0]) / 3)


def test_one_bad_row_of_a_node_with_many_clients_costs_the_others_nothing():
    """One node hosts all three clients; the row of client 1 is NaN."""
    nodes = Nodes()
    nodes.grid = LocalGrid(ClientApp(), 1)
    nodes.orders = nodes.order()
    together = content(0)
    rows = UPDATES.clone()
    rows[1, 4] = np.nan
    with_array("updates", rows)(together)
    with_array("num-examples", np.array([10, 20, 30]))(together)
    with_array("losses", np.zeros(3, np.float32))(together)
    for name, shape in BUFFERS.items():
        with_array(f"buffer/{name}", np.ones((3, *shape), np.float32))(together)
    with_clients([0, 1, 2])(together)
    result = nodes.end([Message(together, reply_to=nodes.orders[0])])
    torch.testing.assert_close(nodes.federation.state.vector, (10 * UPDATES[0] + 30 * UPDATES[2]) / 40)
    assert result["rejected"] == [{"client": 1, "reason": "update contains NaN or infinity"}]
    assert result["clients"] == [0, 2]


def test_claims_of_many_examples_do_not_overflow():
    """2^62 three times is more than int64 holds; equal claims are equal weights all the same."""
    nodes = Nodes()
    replies = []
    for client in range(3):
        boast = content(client)
        with_array("num-examples", np.array([2**62]))(boast)
        replies.append(Message(boast, reply_to=nodes.orders[client]))
    assert nodes.end(replies)["rejected"] == []
    torch.testing.assert_close(nodes.federation.state.vector, UPDATES.mean(dim=0))


@pytest.mark.parametrize("value", [1e30, -3e38])
@pytest.mark.parametrize(
    "rule",
    [
        Mean(),
        CoordinateMedian(),
        TrimmedMean(assumed_fraction=0.34),
        SpectralFilter(assumed_fraction=0.34),
        SpectralFilter(assumed_fraction=0.34, sigma=1.0),
        Sever(assumed_fraction=0.34),
    ],
    ids=lambda rule: f"{type(rule).__name__}{'' if getattr(rule, 'sigma', None) is None else '-sigma'}",
)
def test_finite_updates_whose_squares_overflow_do_not_end_the_run(rule, value):
    """Such an update is the rule's to judge. All but the mean must hold it off: their answer is of the others' size."""
    nodes = Nodes(rule)
    huge = content(2)
    with_array("updates", np.full((1, D), value, np.float32))(huge)
    result = nodes.end([nodes.good(0), nodes.good(1), Message(huge, reply_to=nodes.orders[2])])
    assert result["num_received"] == 3
    size = nodes.federation.state.vector.double().abs().max()
    assert size > 1e29 if isinstance(rule, Mean) else size < 10
