"""The ServerApp and the ClientApp of a scenario: the same two on every engine."""

from collections.abc import Callable

from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

from fedrobust.clients.population import Population
from fedrobust.flower.messages import model_record, read_order, reply_message
from fedrobust.flower.strategy import FederationStrategy
from fedrobust.round import Federation, Row


def make_client_app(population_of: Callable[[Context], Population]) -> ClientApp:
    """A ClientApp whose nodes train the clients that a message names.

    Args:
        population_of: gives the scenario's clients; called for every message, so it should remember.
    """
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        population = population_of(context)
        order = read_order(message, population.dataset.train.inputs.device)
        trained = population.train(order.round_number, order.clients, order.vector, order.buffers)
        return reply_message(trained, message)

    return app


def play_rounds(federation: Federation, grid: Grid, on_round: Callable[[Row], None]) -> None:
    """Play what is left of a federation's rounds over a grid."""
    state = federation.state
    FederationStrategy(federation, on_round).start(
        grid,
        model_record(state.vector, state.buffers),
        num_rounds=federation.num_rounds - state.round_number,
        timeout=federation.server.timeout,
    )


def make_server_app(federation: Federation, on_round: Callable[[Row], None]) -> ServerApp:
    """A ServerApp that plays what is left of a federation's rounds."""
    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        play_rounds(federation, grid, on_round)

    return app
