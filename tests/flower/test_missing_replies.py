"""Replies that fail, do not come, come twice, or come from where nobody was asked.

Three nodes host one client each; the expected model is the mean of the good updates, by hand.
"""

import torch
from flwr.app import Context, Error, Message, MessageType, RecordDict
from flwr.clientapp import ClientApp
from three_nodes import UPDATES, Nodes, content, row, with_array

from fedrobust.engines.local import LocalGrid


def test_an_error_is_a_failure_of_all_clients_of_its_node():
    nodes = Nodes()
    error = Message(Error(code=0, reason="out of memory\n" + "x" * 1000), reply_to=nodes.orders[2])
    result = nodes.end([error, nodes.good(0), nodes.good(1)])
    torch.testing.assert_close(nodes.federation.state.vector, UPDATES[:2].mean(dim=0))
    assert [one["client"] for one in result["rejected"]] == [2]
    reason = result["rejected"][0]["reason"]
    assert reason.startswith("failed: out of memory xxx")
    assert reason.endswith(" ...")
    assert len(reason) <= 200


def test_a_client_that_raises_on_the_local_grid_is_rejected():
    nodes = Nodes()
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        client = context.node_config["partition-id"]
        if client == 2:
            raise ArithmeticError("the client's disk\nis full")
        return Message(content(client), reply_to=message)

    result = nodes.end(LocalGrid(app, 3).send_and_receive(nodes.orders))
    torch.testing.assert_close(nodes.federation.state.vector, UPDATES[:2].mean(dim=0))
    reason = "ArithmeticError: the client's disk is full"
    assert [one["client"] for one in result["rejected"]] == [2]
    assert reason in result["rejected"][0]["reason"]


def test_a_reply_from_a_node_that_was_not_asked_is_counted_and_not_used():
    nodes = Nodes()
    stray = Message(RecordDict(), 77, MessageType.TRAIN)
    result = nodes.end([Message(content(0), reply_to=stray), *map(nodes.good, range(3))])
    torch.testing.assert_close(nodes.federation.state.vector, UPDATES.mean(dim=0))
    reason = "unreadable reply: clients must be of those that the node was asked to train, got [0]"
    assert result["rejected"] == [{"client": None, "reason": reason}]
    assert result["num_rejected"] == 1


def test_the_second_answer_of_a_client_is_not_used():
    nodes = Nodes()
    second = content(2)
    with_array("updates", row(at0=7.0))(second)
    replies = [*map(nodes.good, range(3)), Message(second, reply_to=nodes.orders[2])]
    result = nodes.end(replies)
    torch.testing.assert_close(nodes.federation.state.vector, UPDATES.mean(dim=0))
    assert result["rejected"] == [{"client": 2, "reason": "answered more than once; the first reply counts"}]


def test_a_client_that_does_not_answer_is_named():
    nodes = Nodes()
    result = nodes.end([nodes.good(1), nodes.good(0)])
    torch.testing.assert_close(nodes.federation.state.vector, UPDATES[:2].mean(dim=0))
    assert result["rejected"] == [{"client": 2, "reason": "did not answer"}]


def test_without_a_usable_reply_the_model_stays_and_the_next_round_is_played():
    nodes = Nodes()
    before, buffers_before = nodes.federation.state.vector.clone(), dict(nodes.federation.state.buffers)
    result = nodes.end([])
    assert torch.equal(nodes.federation.state.vector, before)
    assert all(torch.equal(nodes.federation.state.buffers[name], value) for name, value in buffers_before.items())
    assert (result["num_received"], result["num_rejected"], result["clean_loss"] is None) == (0, 3, False)
    nodes.orders = nodes.order()
    result = nodes.end(map(nodes.good, range(3)))
    assert (result["round"], result["num_received"]) == (2, 3)
    torch.testing.assert_close(nodes.federation.state.vector, UPDATES.mean(dim=0))
