"""A small scenario in which everything happens, and how to play it on any engine."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import pytest
from flwr.clientapp import ClientApp
from omegaconf import OmegaConf
from torch import Tensor

from fedrobust.config.compose import compose_config
from fedrobust.engines import Engine
from fedrobust.federation.round import Row
from fedrobust.flower.apps import make_client_app, make_server_app
from fedrobust.scenario import build_scenario, prepare
from fedrobust.scenario.population import population_of_config

NUM_CLIENTS = 4

# Unequal shares, momentum and a backdoor from round 1 on, so that nothing is the same for two clients.
OVERRIDES = (
    f"num_clients={NUM_CLIENTS} model=mlp attack=dba attack.num_malicious=2 aggregator=mean "
    "partition=dirichlet partition.alpha=1.0 client.momentum=0.5 device=cpu"
).split()


@dataclass
class Played:
    """What the rounds of a run left, and the global model after each."""

    rows: list[Row] = field(default_factory=list)
    vectors: list[Tensor] = field(default_factory=list)


Play = Callable[..., Played]


@pytest.fixture(scope="session")
def play() -> Play:
    def run(engine: Engine, *overrides: str, wrap: Callable[[ClientApp], ClientApp] = lambda app: app) -> Played:
        values, _ = compose_config([*OVERRIDES, *overrides])
        prepared = prepare(build_scenario(values))
        played, state = Played(), prepared.federation.state
        if engine.shares_process:
            client_app = make_client_app(lambda context: prepared.population)
        else:
            client_app = make_client_app(partial(population_of_config, OmegaConf.to_yaml(OmegaConf.create(values))))

        def on_round(row: Row) -> None:
            played.rows.append(row)
            played.vectors.append(state.vector)

        server_app = make_server_app(prepared.federation, on_round)
        engine.run(server_app, wrap(client_app), NUM_CLIENTS)
        return played

    return run
