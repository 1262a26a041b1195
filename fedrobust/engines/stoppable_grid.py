"""A grid that stops waiting when it is told to.

Flower's simulation runtime runs the ServerApp in a thread, which Ctrl-C does not reach: it would wait for the replies
of its round, an hour by default, before the process could end.
"""

import threading
import time
from collections.abc import Iterable

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid
from flwr.supercore.run import Run

_POLL_SECONDS = 0.02


class Stopped(Exception):
    """The run was stopped while it waited for messages."""


class StoppableGrid(Grid):
    """Another grid, whose `send_and_receive` ends early once `stop` is set."""

    def __init__(self, inner: Grid, stop: threading.Event) -> None:
        """Speak to the nodes of `inner`."""
        self._inner = inner
        self._stop = stop

    def set_run(self, run: Run) -> None:
        """Set the run that messages belong to."""
        self._inner.set_run(run)

    @property
    def run(self) -> Run:
        """The run that messages belong to."""
        return self._inner.run

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """A message to a node."""
        return self._inner.create_message(content, message_type, dst_node_id, group_id, ttl)

    def get_node_ids(self) -> Iterable[int]:
        """The ids of all nodes.

        Raises:
            Stopped: the run was stopped.
        """
        if self._stop.is_set():
            raise Stopped
        return self._inner.get_node_ids()

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Send messages; returns the ids to pull the replies by."""
        return self._inner.push_messages(messages)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """The replies that are there."""
        return self._inner.pull_messages(message_ids)

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Push, then pull until every reply is there or `timeout` seconds are over.

        Raises:
            Stopped: the run was stopped.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        waiting = set(self.push_messages(messages))
        replies: list[Message] = []
        while waiting and (deadline is None or time.monotonic() < deadline):
            arrived = list(self.pull_messages(waiting))
            replies.extend(arrived)
            waiting -= {reply.metadata.reply_to_message_id for reply in arrived}
            if waiting and self._stop.wait(_POLL_SECONDS):
                raise Stopped
        return replies
