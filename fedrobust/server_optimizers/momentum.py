"""Server momentum (FedAvgM).

Hsu, Qi and Brown, "Measuring the Effects of Non-Identical Data Distribution for Federated Visual Classification", 2019,
https://arxiv.org/abs/1909.06335
"""

from typing import Annotated

from annotated_types import Ge, Lt

from fedrobust.aggregators.base import State
from fedrobust.config.component import component
from fedrobust.server_optimizers.base import remembered
from fedrobust.types import Vector


@component
class ServerMomentum:
    """Step by the sum of all answers so far, older ones fading.

    Answers that agree over the rounds add up to 1/(1 - β) times their size: lower the server's learning rate when β is
    raised.

    Formula: v ← β·v + Δ; step = v.
    Cost: O(d), and d numbers of memory from round to round.
    Assumes: answers that point in a common direction over about 1/(1 - β) rounds; noise and the clients' differences
        average out over them.
    Fails when: the learning rate is not lowered with a large β, as the steps then are up to 1/(1 - β) times as long;
        the rule lets an attack of one round pass, which then moves the model in every later round too, by 1/(1 - β)
        times the answer in all.
    Source: Hsu, Qi and Brown, "Measuring the Effects of Non-Identical Data Distribution for Federated Visual
    Classification", 2019, https://arxiv.org/abs/1909.06335 (FedAvgM)
    Departs: nothing; this is the update rule of its text, without Nesterov's look ahead.

    Attributes:
        beta: β, what is left of the momentum from one round to the next.
    """

    beta: Annotated[float, Ge(0), Lt(1)] = 0.9

    def __call__(self, update: Vector, state: State) -> tuple[Vector, State]:
        """The momentum `(d,)` after this `update` `(d,)`; the state holds it as `momentum`.

        Raises:
            ValueError: a remembered momentum of another length.
        """
        momentum = self.beta * remembered(state, "momentum", update)
        momentum += update
        return momentum.to(update.dtype), {"momentum": momentum}
