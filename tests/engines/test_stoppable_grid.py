"""A grid that can be stopped, around one whose nodes never answer."""

import threading
import time

import pytest
from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp

from fedrobust.engines.local import LocalGrid
from fedrobust.engines.stoppable_grid import StoppableGrid, Stopped


class SilentGrid(LocalGrid):
    """Takes messages; node 3 never answers."""

    def pull_messages(self, message_ids):
        return [reply for reply in super().pull_messages(message_ids) if reply.metadata.src_node_id != 3]


@pytest.fixture
def silent() -> SilentGrid:
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        return Message(RecordDict(), reply_to=message)

    return SilentGrid(app, 2)


def messages() -> list[Message]:
    return [Message(RecordDict(), node, "train") for node in (2, 3)]


def test_the_rest_of_a_round_is_not_waited_for_longer_than_its_time(silent: SilentGrid) -> None:
    started = time.monotonic()
    replies = list(StoppableGrid(silent, threading.Event()).send_and_receive(messages(), timeout=0.1))
    assert [reply.metadata.src_node_id for reply in replies] == [2]
    assert 0.1 <= time.monotonic() - started < 5


def test_complete_rounds_do_not_wait(silent: SilentGrid) -> None:
    grid = StoppableGrid(silent, threading.Event())
    assert len(list(grid.send_and_receive(messages()[:1], timeout=1000))) == 1


def test_a_stop_ends_the_wait(silent: SilentGrid) -> None:
    stop = threading.Event()
    threading.Timer(0.1, stop.set).start()
    with pytest.raises(Stopped):
        StoppableGrid(silent, stop).send_and_receive(messages(), timeout=None)


def test_once_stopped_there_is_no_next_round(silent: SilentGrid) -> None:
    stop = threading.Event()
    grid = StoppableGrid(silent, stop)
    assert list(grid.get_node_ids()) == [2, 3]
    stop.set()
    with pytest.raises(Stopped):
        grid.get_node_ids()


def test_the_rest_is_the_inner_grids(silent: SilentGrid) -> None:
    grid = StoppableGrid(silent, threading.Event())
    assert grid.run is silent.run
    message = grid.create_message(RecordDict(), "train", 2, "group")
    assert (message.metadata.dst_node_id, message.metadata.group_id) == (2, "group")
    (identifier,) = grid.push_messages([message])
    assert len(list(grid.pull_messages([identifier]))) == 1
