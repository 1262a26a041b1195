"""The server's own training, for a rule that needs a root update: a benign client with a clean root data set."""

import dataclasses
from collections.abc import Callable

from fedrobust.attacks.scenario import Adversary, Attack
from fedrobust.clients.population import Population
from fedrobust.config.component import has_trait
from fedrobust.federation.round import Order
from fedrobust.scenario.parts import draw_clean_examples
from fedrobust.scenario.scenario import Scenario
from fedrobust.seeds import derive_seed
from fedrobust.types import Vector


def root_training(scenario: Scenario, population: Population) -> Callable[[Order], Vector] | None:
    """What trains the root update, on examples drawn uniformly from all training examples; `None`: nobody needs it.

    Raises:
        ConfigError: a root data set larger than the training set.
    """
    if not has_trait(scenario.aggregator, "needs_root_update"):
        return None
    wanted = getattr(scenario.aggregator, "num_root_examples", 0)
    drawn = draw_clean_examples(scenario, population.dataset, wanted, "aggregator.num_root_examples", "root")
    server = dataclasses.replace(
        population,
        assignment=(drawn,),
        adversary=Adversary(Attack(num_malicious=0), ()),
        seed=derive_seed(scenario.seed, "root training"),
        auditing=None,  # the root data set is the server's own
    )

    def train(order: Order) -> Vector:
        return server.train(order.round_number, (0,), order.vector, order.buffers).updates[0]

    return train
