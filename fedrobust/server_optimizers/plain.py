"""The rule's answer as it is: federated averaging's server.

McMahan et al., "Communication-Efficient Learning of Deep Networks from Decentralized Data", AISTATS 2017,
https://arxiv.org/abs/1602.05629
"""

from fedrobust.aggregators.base import State
from fedrobust.config.component import component
from fedrobust.types import Vector


@component
class PlainStep:
    """Step by the rule's answer.

    Formula: step = Δ.
    Cost: nothing, and no memory.
    Assumes: answers that are steps of the right length: the mean of updates of clients that start from the model.
    Fails when: the answers of successive rounds contradict each other, as they do with few and heterogeneous clients a
        round: nothing evens them out.
    Source: McMahan et al., "Communication-Efficient Learning of Deep Networks from Decentralized Data", AISTATS 2017,
    https://arxiv.org/abs/1602.05629
    Departs: nothing.
    """

    def __call__(self, update: Vector, state: State) -> tuple[Vector, State]:
        """The `update` `(d,)` itself, and nothing to remember."""
        return update, {}
