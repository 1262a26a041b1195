"""The clients of a scenario in a process of their own: a Ray actor, or a SuperNode."""

import functools

from omegaconf import OmegaConf

from fedrobust.clients.population import Population
from fedrobust.scenario.preparation import prepare_clients
from fedrobust.scenario.scenario import build_scenario


def population_of_config(config: str, context: object = None) -> Population:
    """The clients of the scenario that `config` (YAML, resolved) describes; loaded once a process.

    Args:
        config: of the scenario.
        context: Flower's, which a ClientApp gives; not read.
    """
    return _load(config)


@functools.lru_cache(maxsize=1)
def _load(config: str) -> Population:
    values = OmegaConf.to_container(OmegaConf.create(config))
    assert isinstance(values, dict)
    return prepare_clients(build_scenario({str(key): value for key, value in values.items()}))
