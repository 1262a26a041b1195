"""The same idle clients for everyone: they return what they received, and a metric."""

import time
from collections.abc import Iterable
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

NUM_PARAMETERS = 100_000


def noop_client_app() -> ClientApp:
    """A ClientApp that sends the arrays back."""
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        arrays = message.content.array_records["arrays"]
        content = RecordDict({"arrays": arrays, "metrics": MetricRecord({"num-examples": 1, "loss": 0.0})})
        return Message(content, reply_to=message)

    return app


class TimedFedAvg(FedAvg):
    """Flower's FedAvg, which notes the time at the end of each round's aggregation."""

    def __init__(self, num_clients: int) -> None:
        """Ask all clients in every round, and evaluate nothing."""
        super().__init__(fraction_train=1.0, fraction_evaluate=0.0, min_available_nodes=num_clients)
        self.times: list[float] = []

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Start the clock at the beginning of round 1."""
        if not self.times:
            self.times.append(time.perf_counter())
        return super().configure_train(server_round, arrays, config, grid)

    def aggregate_train(self, server_round: int, replies: Iterable[Message]) -> Any:
        """Note the end of the round."""
        result = super().aggregate_train(server_round, replies)
        self.times.append(time.perf_counter())
        return result


def fedavg_server_app(strategy: TimedFedAvg, num_rounds: int) -> ServerApp:
    """A ServerApp that plays `num_rounds` of `strategy` with one array of `NUM_PARAMETERS` float32."""
    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        arrays = ArrayRecord()
        arrays["parameters"] = Array(np.zeros(NUM_PARAMETERS, dtype=np.float32))
        strategy.start(grid, arrays, num_rounds=num_rounds)

    return app
