"""Three nodes that host one client each, a strategy in its first round, and good replies with one thing changed."""

from collections.abc import Callable, Iterable

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from torch import nn

from fedrobust.aggregators import Mean
from fedrobust.attacks import Adversary, Attack
from fedrobust.data.datasets import Dataset, Examples
from fedrobust.engines.local import LocalGrid
from fedrobust.federation.aggregation import Aggregation
from fedrobust.federation.round import Federation, GlobalModel, Row
from fedrobust.federation.server import Server
from fedrobust.flower.messages import model_record
from fedrobust.flower.strategy import FederationStrategy
from fedrobust.parameters import ParameterLayout, clone_buffers

Change = Callable[[RecordDict], object]

D = 10  # a linear layer (4 + 2 parameters) and a batch normalisation (2 + 2)
UPDATES = torch.randn(3, D, generator=torch.Generator().manual_seed(3))
BUFFERS = {"1.running_mean": (2,), "1.running_var": (2,), "1.num_batches_tracked": ()}


def federation(aggregator=None) -> Federation:
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    examples = Examples(torch.randn(8, 2, generator=torch.Generator().manual_seed(0)), torch.arange(8) % 2)
    layout = ParameterLayout.of(model)
    return Federation(
        model=model,
        dataset=Dataset("toy", examples, examples, 2, "tabular", torch.zeros(2), torch.ones(2)),
        server=Server(),
        aggregation=Aggregation(aggregator or Mean()),
        adversary=Adversary(Attack(num_malicious=0), ()),
        num_clients=3,
        num_rounds=2,
        evaluate_every=1,
        seed=0,
        state=GlobalModel(0, layout.flatten(model), clone_buffers(model)),
    )


class Nodes:
    """A strategy in its first round, and the messages that it sent to nodes 2, 3 and 4 (clients 0, 1 and 2)."""

    def __init__(self, aggregator=None) -> None:
        self.rows: list[Row] = []
        self.federation = federation(aggregator)
        self.strategy = FederationStrategy(self.federation, self.rows.append)
        self.grid = LocalGrid(ClientApp(), 3)
        self.orders = self.order()

    def order(self) -> list[Message]:
        state = self.federation.state
        arrays = model_record(state.vector, state.buffers)
        return list(self.strategy.configure_train(1, arrays, ConfigRecord(), self.grid))

    def good(self, client: int) -> Message:
        return Message(content(client), reply_to=self.orders[client])

    def end(self, replies: Iterable[Message]) -> Row:
        self.strategy.aggregate_train(1, replies)
        return self.rows[-1]


def array(values: torch.Tensor | np.ndarray) -> Array:
    """As it arrives from another process: bytes, not a reference."""
    return Array(np.asarray(values))


def buffers() -> dict[str, Array]:
    return {f"buffer/{name}": array(np.ones((1, *shape), np.float32)) for name, shape in BUFFERS.items()}


def content(client: int) -> RecordDict:
    """What a healthy client sends."""
    arrays = {
        "updates": array(UPDATES[client : client + 1]),
        "num-examples": array(np.array([5])),
        "losses": array(np.array([0.5], np.float32)),
        **buffers(),
    }
    return RecordDict(
        {
            "updates": ArrayRecord(arrays),
            "config": ConfigRecord({"clients": [client]}),
            "metrics": MetricRecord({"seconds": 0.1}),
        }
    )


def with_array(name: str, value: Array | np.ndarray | torch.Tensor) -> Change:
    def change(record: RecordDict) -> None:
        record.array_records["updates"][name] = value if isinstance(value, Array) else array(value)

    return change


def without_array(*names: str) -> Change:
    def change(record: RecordDict) -> None:
        for name in names:
            del record.array_records["updates"][name]

    return change


def without(name: str) -> Change:
    return lambda record: record.pop(name)


def with_clients(clients: list) -> Change:
    return lambda record: record.config_records["config"].update({"clients": clients})


def with_seconds(seconds: object) -> Change:
    return lambda record: record.metric_records["metrics"].update({"seconds": seconds})


def row(**entries: float) -> np.ndarray:
    values = np.zeros((1, D), np.float32)
    for position, value in entries.items():
        values[0, int(position.removeprefix("at"))] = value
    return values
