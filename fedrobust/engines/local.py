"""The local engine: Flower's ServerApp and ClientApp in this process, with nothing in between.

Its `Grid` calls the ClientApp when a message is pushed and keeps the reply. No subprocess, no socket, no bytes: records
are handed over as they are, tensors by reference. Ctrl-C reaches the code that is running.
"""

import gc
import logging
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from flwr.app import DEFAULT_TTL, Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.supercore.run import Run

from fedrobust.config.component import Count, component
from fedrobust.error_text import reason_of
from fedrobust.flower.identity import SERVER_NODE_ID, assume_identity

_CLIENT_APP_RAISED_EXCEPTION = 2  # Flower's error code for it
_RUN_ID = 1

log = logging.getLogger("fedrobust")


class LocalGrid(Grid):
    """A Flower grid whose nodes are calls of one ClientApp in this process.

    Nodes answer one after the other. A node that raises answers with an error, like one on a real grid; no node can
    be late, since the server waits in the call.
    """

    def __init__(self, client_app: ClientApp, num_nodes: int) -> None:
        """Connect `num_nodes` nodes, ids 2, 3, ... (1 is the server)."""
        self._client_app = client_app
        self._replies: dict[str, Message] = {}
        self._num_messages = 0
        self._run = assume_identity(_RUN_ID)
        self._contexts = {
            SERVER_NODE_ID + 1 + index: Context(
                run_id=_RUN_ID,
                node_id=SERVER_NODE_ID + 1 + index,
                node_config={"partition-id": index, "num-partitions": num_nodes},
                state=RecordDict(),
                run_config={},
            )
            for index in range(num_nodes)
        }

    def set_run(self, run: Run) -> None:
        """Set the run that messages belong to."""
        self._run = run

    @property
    def run(self) -> Run:
        """The run that messages belong to."""
        return self._run

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """A message to a node."""
        return Message(content, dst_node_id, message_type, ttl=ttl or DEFAULT_TTL, group_id=group_id)

    def get_node_ids(self) -> Iterable[int]:
        """The ids of all nodes."""
        return list(self._contexts)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Let the nodes answer; returns the ids to pull the replies by."""
        return [self._push(message) for message in messages]

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """The replies to the messages of these ids, once each."""
        return [self._replies.pop(one) for one in message_ids if one in self._replies]

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Push, then pull. After `timeout` seconds no further node is asked; the replies so far are returned."""
        deadline = None if timeout is None else time.monotonic() + timeout
        replies: list[Message] = []
        for message in messages:
            if deadline is not None and time.monotonic() > deadline:
                log.warning("node %d was not asked: the round's time was over", message.metadata.dst_node_id)
                continue
            replies.extend(self.pull_messages([self._push(message)]))
        return replies

    def _push(self, message: Message) -> str:
        self._num_messages += 1
        identifier = str(self._num_messages)
        message.metadata.__dict__["_message_id"] = identifier  # a runtime's grid sets it so, too
        node = message.metadata.dst_node_id
        try:
            reply = self._client_app(message, self._contexts[node])
            if not isinstance(reply, Message):
                raise TypeError(f"a ClientApp must answer with a message, got {type(reply).__name__}")
            if reply.metadata.reply_to_message_id != identifier:
                raise ValueError("a ClientApp must answer the message that it was given (reply_to=message)")
        except KeyboardInterrupt:  # the user's
            raise
        except BaseException as error:  # whatever a client raises is its reply, and must not end the server
            reason = reason_of(error)
            log.warning("node %d raised %s", node, reason)
            reply = Message(Error(code=_CLIENT_APP_RAISED_EXCEPTION, reason=reason), reply_to=message)
        self._replies[identifier] = reply
        return identifier


@component
class Local:
    """Run everything in this process.

    Attributes:
        num_nodes: Flower nodes that the clients are spread over; one node can train its clients as a cohort.
    """

    num_nodes: Count = 1

    @property
    def shares_process(self) -> bool:
        """Clients run in this process."""
        return True

    def run(self, server_app: ServerApp, client_app: ClientApp, num_clients: int) -> None:
        """Run until the ServerApp returns."""
        grid = LocalGrid(client_app, min(self.num_nodes, num_clients))
        context = Context(run_id=_RUN_ID, node_id=SERVER_NODE_ID, node_config={}, state=RecordDict(), run_config={})
        with quiet_flower(), _frozen_objects():
            server_app(grid, context)


@contextmanager
def _frozen_objects() -> Iterator[None]:
    """Keep the garbage collector from looking over what is alive now, libraries above all: a tenth of a second."""
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


@contextmanager
def quiet_flower() -> Iterator[None]:
    """Keep Flower's account of every round off the console: the run has its own."""
    logger = logging.getLogger("flwr")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)
