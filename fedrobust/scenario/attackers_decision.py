"""Attackers who attack only when needed: whether they do so this round."""

from collections.abc import Callable

import torch

from fedrobust.attacks.data.coalition import members_of
from fedrobust.clients.population import Population
from fedrobust.config.building import ConfigError
from fedrobust.evaluation.attack_success import measure_attack_success
from fedrobust.federation.round import GlobalModel
from fedrobust.parameters import ParameterLayout
from fedrobust.scenario.scenario import Scenario
from fedrobust.training.predictor import Predictor


def attackers_decision(scenario: Scenario, population: Population) -> Callable[[GlobalModel], bool] | None:
    """Whether attackers who attack only when needed do so: they try their trigger on their own examples.

    Raises:
        ConfigError: an attack that wants nothing of its own examples.
    """
    threshold, attack = scenario.attack.schedule.until_success, scenario.attack.goal
    if threshold is None or not population.adversary.malicious:
        return None
    held = torch.cat([population.assignment[client] for client in population.adversary.malicious])
    own, model = population.dataset.train.subset(held), population.model
    # Of test examples that single out what is attacked, attackers hold none.
    singles_out = attack is not None and any(hasattr(one, "target_instances") for one in members_of(attack))
    wanted = None if attack is None or singles_out else attack.wanted_labels(own)
    if attack is None or wanted is None or not bool((wanted != own.labels).any()):
        raise ConfigError(
            "attack.schedule.until_success: must be null for an attack that wants no other class of its own examples, "
            f"got {threshold}"
        )
    schedule, layout = scenario.attack.schedule, ParameterLayout.of(model)

    def decide(state: GlobalModel) -> bool:
        if not schedule.is_attack_round(state.round_number + 1):
            return False
        predictor = Predictor(model, layout, state.vector, state.buffers, population.dataset)
        rate = measure_attack_success(predictor, attack, own).global_trigger
        return rate is None or not rate >= threshold  # nothing to try it on: they attack

    return decide
