"""The in-process grid: what a Flower grid promises, and that nothing is turned into bytes on the way."""

import gc
import logging
import time

import numpy as np
import pytest
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp

from fedrobust.engines import Local
from fedrobust.engines.local import LocalGrid


def echo(message: Message, context: Context) -> Message:
    """Answer with the message's content, the node's own count of messages, and who it is."""
    state = context.state.config_records.setdefault("seen", ConfigRecord({"count": 0}))
    state["count"] = int(str(state["count"])) + 1
    own = ConfigRecord({"node": context.node_id, "partition": context.node_config["partition-id"], **state})
    return Message(RecordDict({**message.content, "own": own}), reply_to=message)


@pytest.fixture
def grid() -> LocalGrid:
    app = ClientApp()
    app.train()(echo)

    @app.query()
    def fail(message: Message, context: Context) -> Message:
        raise ZeroDivisionError("by nought")

    @app.evaluate()
    def dawdle(message: Message, context: Context) -> Message:
        time.sleep(0.05)
        return Message(RecordDict(), reply_to=message)

    return LocalGrid(app, 3)


def ask(node: int, kind: str = "train", number: int = 0) -> Message:
    return Message(RecordDict({"task": ConfigRecord({"number": number})}), node, kind)


def test_nodes_follow_the_server(grid: LocalGrid) -> None:
    assert list(grid.get_node_ids()) == [2, 3, 4]
    assert grid.run.run_id == 1


def test_every_message_is_answered_by_its_node(grid: LocalGrid) -> None:
    replies = list(grid.send_and_receive([ask(4, number=40), ask(2, number=20)]))
    owns = [reply.content.config_records["own"] for reply in replies]
    assert [(own["node"], own["partition"]) for own in owns] == [(4, 2), (2, 0)]
    assert [reply.content.config_records["task"]["number"] for reply in replies] == [40, 20]
    assert [reply.metadata.src_node_id for reply in replies] == [4, 2]


def test_a_node_keeps_its_context(grid: LocalGrid) -> None:
    counts = [next(iter(grid.send_and_receive([ask(node)]))).content["own"]["count"] for node in (2, 2, 3, 2)]
    assert counts == [1, 2, 1, 3]


def test_replies_are_pulled_once_and_by_id(grid: LocalGrid) -> None:
    first, second = grid.push_messages([ask(2, number=1), ask(3, number=2)])
    (reply,) = grid.pull_messages([second])
    assert reply.metadata.reply_to_message_id == second
    assert list(grid.pull_messages([second, "unknown"])) == []
    assert len(list(grid.pull_messages([first]))) == 1


def test_a_node_that_raises_answers_with_an_error(grid: LocalGrid, caplog: pytest.LogCaptureFixture) -> None:
    replies = list(grid.send_and_receive([ask(2, "query"), ask(3)]))
    assert [reply.has_error() for reply in replies] == [True, False]
    assert replies[0].error.reason == "ZeroDivisionError: by nought"
    assert replies[0].metadata.src_node_id == 2
    assert "node 2 raised ZeroDivisionError: by nought" in caplog.messages


def test_after_the_time_is_over_nobody_else_is_asked(grid: LocalGrid, caplog: pytest.LogCaptureFixture) -> None:
    """Each answer takes 0.05 s: the first is under way when 0.01 s are over, the others are not asked."""
    replies = list(grid.send_and_receive([ask(node, "evaluate") for node in (2, 3, 4)], timeout=0.01))
    assert [reply.metadata.src_node_id for reply in replies] == [2]
    assert caplog.messages == [f"node {node} was not asked: the round's time was over" for node in (3, 4)]


def test_ctrl_c_in_a_client_ends_the_run() -> None:
    app, asked = ClientApp(), []

    @app.train()
    def train(message: Message, context: Context) -> Message:
        asked.append(context.node_id)
        raise KeyboardInterrupt

    server = ServerApp()

    @server.main()
    def main(grid, context: Context) -> None:
        grid.send_and_receive([ask(node) for node in grid.get_node_ids()])

    with pytest.raises(KeyboardInterrupt):
        Local(num_nodes=2).run(server, app, 2)
    assert asked == [2]


def test_there_are_no_more_nodes_than_clients() -> None:
    nodes, server = [], ServerApp()

    @server.main()
    def main(grid, context: Context) -> None:
        nodes.extend(grid.get_node_ids())

    Local(num_nodes=5).run(server, ClientApp(), 3)
    assert len(nodes) == 3


def test_flower_is_as_talkative_after_as_before() -> None:
    logger, server, during = logging.getLogger("flwr"), ServerApp(), []
    before = logger.level

    @server.main()
    def main(grid, context: Context) -> None:
        during.append(logger.level)

    Local().run(server, ClientApp(), 1)
    assert during == [logging.WARNING]
    assert logger.level == before


def test_the_collector_is_left_as_it_was() -> None:
    server, during = ServerApp(), []

    @server.main()
    def main(grid, context: Context) -> None:
        during.append(gc.get_freeze_count())
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        Local().run(server, ClientApp(), 1)
    assert during[0] > 10_000
    assert gc.get_freeze_count() == 0


@pytest.mark.parametrize("num_nodes", [1, 4])
def test_nothing_is_turned_into_bytes(play, monkeypatch: pytest.MonkeyPatch, num_nodes: int) -> None:
    """Flower and TensorArray both make bytes with `np.save`, and Flower reads them with `np.load`."""

    def refuse(*arguments: object, **options: object) -> None:
        raise AssertionError("a tensor was serialised")

    monkeypatch.setattr(np, "save", refuse)
    monkeypatch.setattr(np, "load", refuse)
    rows = play(Local(num_nodes=num_nodes), "num_rounds=2").rows
    assert [row["num_received"] for row in rows] == [4, 4]
