"""A scenario, from a resolved config to what an engine can play."""

from fedrobust.scenario.parts import draw_mark, load_dataset
from fedrobust.scenario.preparation import Prepared, prepare, prepare_clients
from fedrobust.scenario.scenario import Scenario, build_scenario

__all__ = ["Prepared", "Scenario", "build_scenario", "draw_mark", "load_dataset", "prepare", "prepare_clients"]
