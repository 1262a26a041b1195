"""The ServerApp and the ClientApp of a scenario: the same two on every engine."""

import logging
import time
from collections.abc import Callable

from flwr.app import ArrayRecord, Context, Message, MessageType, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

from fedrobust.clients.population import Population
from fedrobust.error_text import said_by_node
from fedrobust.federation.round import Federation, Row
from fedrobust.flower.answers import answering_node, nodes_by_message
from fedrobust.flower.messages import read_order, reply_message
from fedrobust.flower.strategy import FederationStrategy

_POLL_SECONDS = 0.05

log = logging.getLogger("fedrobust")


def make_client_app(population_of: Callable[[Context], Population]) -> ClientApp:
    """A ClientApp whose nodes train the clients that a message names, and load the scenario when queried.

    Args:
        population_of: gives the scenario's clients; called for every message, so it should remember.
    """
    app = ClientApp()

    @app.query()
    def prepare(message: Message, context: Context) -> Message:
        population_of(context)
        return Message(RecordDict(), reply_to=message)

    @app.train()
    def train(message: Message, context: Context) -> Message:
        population = population_of(context)
        order = read_order(message, population.dataset.train.inputs.device)
        trained = population.train(
            order.round_number, order.clients, order.vector, order.buffers, attack_on=order.attack_on
        )
        return reply_message(trained, message)

    return app


def prepare_nodes(grid: Grid, num_nodes: int, timeout: float) -> None:
    """Wait until nodes are connected and have loaded the scenario, so that round 1 is timed like any other.

    Args:
        grid: the way to the nodes.
        num_nodes: nodes to wait for; later ones may join in any round.
        timeout: seconds to wait for connections, and again for the scenario to be loaded.

    Raises:
        RuntimeError: too few nodes, or none that could load the scenario.
    """
    deadline = time.monotonic() + timeout
    while len(nodes := list(grid.get_node_ids())) < num_nodes:
        if time.monotonic() > deadline:
            raise RuntimeError(f"{len(nodes)} of {num_nodes} Flower nodes connected within {timeout:g} s")
        time.sleep(_POLL_SECONDS)
    queries = [Message(RecordDict(), node, MessageType.QUERY) for node in nodes]
    replies = list(grid.send_and_receive(queries, timeout=timeout))
    failed = [reply for reply in replies if reply.has_error()]
    asked = nodes_by_message(queries)
    for reply in failed:
        node, reason = answering_node(reply, asked), said_by_node(reply.error.reason)
        log.warning("node %d could not load the scenario: %s", node, reason)
    if len(failed) == len(replies):
        reason = said_by_node(failed[0].error.reason) if failed else "no answer"
        raise RuntimeError(f"none of {len(nodes)} Flower nodes could load the scenario within {timeout:g} s: {reason}")


def play_rounds(
    federation: Federation, grid: Grid, on_round: Callable[[Row], None], num_rounds: int | None = None
) -> None:
    """Play the next `num_rounds` of a federation's rounds over a grid; `None` plays all that are left."""
    warm_up(federation)
    left = federation.num_rounds - federation.state.round_number
    FederationStrategy(federation, on_round).start(
        grid,
        ArrayRecord(),
        num_rounds=left if num_rounds is None else num_rounds,
        timeout=federation.server.timeout,
    )


def warm_up(federation: Federation) -> None:
    """Have compiled what the rule compiles, so that round 1 is timed like any other."""
    num_asked = federation.server.num_sampled or federation.num_clients
    vector = federation.state.vector
    federation.aggregation.warm_up(num_asked, len(vector), vector.device)


def make_server_app(federation: Federation, on_round: Callable[[Row], None]) -> ServerApp:
    """A ServerApp that plays what is left of a federation's rounds."""
    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        play_rounds(federation, grid, on_round)

    return app
