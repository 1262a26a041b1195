"""A node that dies: the runtime answers in its place, with an id of its own, and the node is counted once, by its id.

Flower's SuperLink signs such errors with its own node id (1), and names the message that they answer.
"""

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Context, Error, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from fedrobust.aggregators import Mean
from fedrobust.engines.local import LocalGrid
from fedrobust.flower import RobustStrategy
from fedrobust.flower.apps import prepare_nodes


class Runtime(LocalGrid):
    """Some nodes are dead."""

    def __init__(self, dead: tuple[int, ...], source: int) -> None:
        app = ClientApp()

        @app.query()
        @app.train()
        def answer(message: Message, context: Context) -> Message:
            metrics = MetricRecord({"num-examples": 1})
            arrays = ArrayRecord([np.full(2, float(context.node_id), np.float32)])
            return Message(RecordDict({"arrays": arrays, "metrics": metrics}), reply_to=message)

        super().__init__(app, 4)
        self.dead, self.source = dead, source

    def send_and_receive(self, messages, *, timeout=None):
        replies = []
        for message in messages:
            (reply,) = super().send_and_receive([message])
            if message.metadata.dst_node_id in self.dead:
                reply = Message(Error(3, "Node Unavailable"), reply_to=message)
                reply.metadata.__dict__["_src_node_id"] = self.source
            replies.append(reply)
        return replies


CASES = [(dead, source) for dead in [(2,), (5,), (3, 4), (2, 3, 4)] for source in (0, 1, 2, 3, 99, 2**63 + 1)]


@pytest.mark.parametrize(("dead", "source"), CASES)
def test_in_robust_strategy(dead: tuple[int, ...], source: int) -> None:
    grid = Runtime(dead, source)
    strategy = RobustStrategy(Mean(), fraction_evaluate=0.0)
    sent = ArrayRecord([np.zeros(2, np.float32)])
    messages = list(strategy.configure_train(1, sent, ConfigRecord(), grid))
    arrays, _ = strategy.aggregate_train(1, grid.send_and_receive(messages))
    alive = [node for node in (2, 3, 4, 5) if node not in dead]
    about = strategy.diagnostics[1]
    assert about["nodes"] == alive
    assert about["rejected"] == [{"node": node, "reason": "failed: Node Unavailable"} for node in dead]
    np.testing.assert_allclose(next(iter(arrays.values())).numpy(), np.full(2, np.mean(alive)), rtol=1e-6)


@pytest.mark.parametrize("source", [0, 1, 3, 99])
def test_before_the_first_round(source: int, caplog: pytest.LogCaptureFixture) -> None:
    prepare_nodes(Runtime((2, 5), source), 4, 1.0)
    assert caplog.messages == [f"node {node} could not load the scenario: Node Unavailable" for node in (2, 5)]
