"""The clients of a scenario in a SuperNode under `flwr run`."""

import functools

from flwr.app import Context
from omegaconf import OmegaConf

from fedrobust.clients.population import Population
from fedrobust.config.compose import compose_overrides
from fedrobust.flower.apps import make_client_app
from fedrobust.scenario.population import population_of_config


def population_of_run(context: Context) -> Population:
    """The clients of the scenario that the run-config's Hydra `overrides` describe."""
    values, _ = _compose(str(context.run_config.get("overrides", "")))
    return population_of_config(OmegaConf.to_yaml(OmegaConf.create(values)))


_compose = functools.lru_cache(maxsize=1)(compose_overrides)

app = make_client_app(population_of_run)
