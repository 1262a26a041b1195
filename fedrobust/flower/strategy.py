"""A federation as a Flower strategy: Flower's own `Strategy.start` turns the crank, `round.py` says what happens."""

import logging
import time
from collections.abc import Callable, Generator, Iterable, Sequence

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from fedrobust.federation.collection import Rejection, Reply
from fedrobust.federation.round import Delivery, Federation, Order, Row, play_round
from fedrobust.flower.answers import answering_node, nodes_by_message
from fedrobust.flower.messages import model_record, read_reply, train_message
from fedrobust.flower.rejections import rejections_line
from fedrobust.notices import is_new

_GRACE_SECONDS = 1.0

log = logging.getLogger("fedrobust")


class FederationStrategy(Strategy):
    """Plays the rounds of a federation.

    Flower counts rounds from 1 in every `start`; the federation's own count, which survives a resume, is used instead.
    Nor does it get to see the model, which it would turn into bytes to log its size: `start` it with an empty record.
    """

    def __init__(self, federation: Federation, on_round: Callable[[Row], None]) -> None:
        """Play `federation`; `on_round` gets the record of every round as it ends."""
        self.federation = federation
        self.on_round = on_round
        self._round: Generator[Order, Delivery, Row] | None = None
        self._asked: dict[int, tuple[int, ...]] = {}
        self._sent: list[Message] = []
        self._started = 0.0
        self._said = set(federation.notices)
        self._audit_reasons: set[str] = set()

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Begin a round: one message to each node that hosts clients of this round."""
        self._round = play_round(self.federation)
        order = next(self._round)
        self._asked = assign_clients(order.clients, sorted(grid.get_node_ids()), self.federation.num_clients)
        self._started = time.perf_counter()
        model = model_record(order.vector, order.buffers)
        messages = [train_message(order, clients, model, node) for node, clients in self._asked.items()]
        for message in messages:  # a node that is late should stop, too, but not before the server has given up on it
            message.metadata.ttl = self.federation.server.timeout + _GRACE_SECONDS
        self._sent = messages
        return messages

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """End the round with the replies, which may be fewer than the messages."""
        if self._round is None:
            raise RuntimeError("aggregate_train was called before configure_train")
        device = self.federation.state.vector.device
        received: list[Reply] = []
        failures: list[Rejection] = []
        nodes, self._sent = nodes_by_message(self._sent), []
        for message in replies:
            outcome = read_reply(message, self._asked.get(answering_node(message, nodes), ()), device)
            if isinstance(outcome, Reply):
                received.append(outcome)
            else:
                failures.extend(outcome)
        try:
            self._round.send(Delivery(received, failures, time.perf_counter() - self._started))
        except StopIteration as stop:
            row: Row = stop.value
        else:
            raise RuntimeError("a round asked for clients twice")
        if row["rejected"]:
            log.warning("round %d: %s", row["round"], rejections_line(row["rejected"], "client"))
        if row["refusal"] is not None:
            log.warning("round %d: the model stays as it is: %s", row["round"], row["refusal"])
        for text in row["notices"]:
            if is_new(text, self._said):  # what holds in one round holds in many: rounds.jsonl has them all
                self._said.add(text)
                log.warning("round %d: %s", row["round"], text)
        self._warn_of_audit(row)
        self.on_round(row)
        return None, None

    def _warn_of_audit(self, row: Row) -> None:
        """Say why an audit is not calibrated, once for each reason that is new."""
        if row["audit"] is None or self.federation.auditing is None:
            return
        plan = self.federation.auditing.plan
        waits = f", and {plan.action} waits (audit.allow_uncalibrated=true allows it)"
        for reason in row["audit"].get("uncalibrated", ()):
            if reason not in self._audit_reasons:
                self._audit_reasons.add(reason)
                idle = plan.acts and not plan.allow_uncalibrated
                log.warning("round %d: the audit is not calibrated%s: %s", row["round"], waits if idle else "", reason)

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Nothing: the server evaluates, on the test set."""
        return []

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """Nothing."""
        return None

    def summary(self) -> None:
        """Nothing: the run's own console says what runs."""


def assign_clients(clients: Sequence[int], nodes: Sequence[int], num_clients: int) -> dict[int, tuple[int, ...]]:
    """Which of `clients` each node hosts; nodes that host none of them are left out.

    Clients 0..num_clients-1 are divided over the nodes in blocks, so that a client always lives on the same node.
    """
    if not nodes:
        raise ValueError("no Flower node is connected")
    hosted: dict[int, list[int]] = {}
    for client in clients:
        hosted.setdefault(nodes[client * len(nodes) // num_clients], []).append(client)
    return {node: tuple(ids) for node, ids in hosted.items()}
