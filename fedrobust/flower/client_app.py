"""The clients of a scenario in a process of their own: a Ray actor, or a SuperNode under `flwr run`."""

import functools

from flwr.app import Context
from omegaconf import OmegaConf

from fedrobust.clients.population import Population
from fedrobust.compose import compose_overrides
from fedrobust.flower.apps import make_client_app
from fedrobust.scenario import build_scenario, prepare_clients


def population_of_config(config: str, context: Context) -> Population:
    """The clients of the scenario that `config` (YAML, resolved) describes; loaded once a process."""
    return _load(config)


def population_of_run(context: Context) -> Population:
    """The clients of the scenario that the run-config's Hydra `overrides` describe."""
    values, _ = _compose(str(context.run_config.get("overrides", "")))
    return _load(OmegaConf.to_yaml(OmegaConf.create(values)))


@functools.lru_cache(maxsize=1)
def _load(config: str) -> Population:
    values = OmegaConf.to_container(OmegaConf.create(config))
    assert isinstance(values, dict)
    return prepare_clients(build_scenario({str(key): value for key, value in values.items()}))


_compose = functools.lru_cache(maxsize=1)(compose_overrides)

app = make_client_app(population_of_run)
