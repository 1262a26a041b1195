"""fedrobust's own round around idle clients: sampling, messages, collection, the mean, records; no evaluation."""

import time

import torch
from flwr.app import ArrayRecord, Context, Message
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from torch import nn

from fedrobust.aggregators import Mean
from fedrobust.attacks import Adversary, Attack
from fedrobust.clients.population import TrainedClients
from fedrobust.data.datasets import Dataset
from fedrobust.data.examples import Examples
from fedrobust.federation.aggregation import Aggregation
from fedrobust.federation.round import Federation, GlobalModel, Row
from fedrobust.federation.server import Server
from fedrobust.flower.apps import warm_up
from fedrobust.flower.messages import read_order, reply_message
from fedrobust.flower.strategy import FederationStrategy
from fedrobust.parameters import ParameterLayout

CPU = torch.device("cpu")


def noop_federation(num_clients: int, num_rounds: int) -> Federation:
    """A federation whose model has 10^5 parameters, and whose rounds are never evaluated."""
    model = nn.Linear(999, 100)
    examples = Examples(torch.zeros(1, 999), torch.zeros(1, dtype=torch.int64))
    dataset = Dataset("none", examples, examples, 100, "tabular", torch.zeros(1), torch.ones(1))
    layout = ParameterLayout.of(model)
    return Federation(
        model=model,
        dataset=dataset,
        server=Server(),
        aggregation=Aggregation(Mean()),
        adversary=Adversary(Attack(num_malicious=0), ()),
        num_clients=num_clients,
        num_rounds=num_rounds + 1,  # the last round is evaluated, and not played here
        evaluate_every=num_rounds + 1,
        seed=0,
        state=GlobalModel(0, layout.flatten(model), {}),
    )


def noop_population_app(num_parameters: int, clients_per_node: int) -> ClientApp:
    """A ClientApp whose clients send updates that lie ready: nothing is trained."""
    app = ClientApp()
    ready = torch.ones(clients_per_node, num_parameters)

    @app.train()
    def train(message: Message, context: Context) -> Message:
        order = read_order(message, CPU)
        k = len(order.clients)
        ones = torch.ones(k, dtype=torch.int64)
        return reply_message(TrainedClients(order.clients, ready, ones, torch.zeros(k), {}, 0.0), message)

    return app


def federation_server_app(federation: Federation, times: list[float]) -> ServerApp:
    """A ServerApp that plays all rounds but the last, and notes the time at the start and after each."""
    app = ServerApp()

    def on_round(row: Row) -> None:
        times.append(time.perf_counter())

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        warm_up(federation)  # as every run does
        times.append(time.perf_counter())
        FederationStrategy(federation, on_round).start(grid, ArrayRecord(), num_rounds=federation.num_rounds - 1)

    return app
