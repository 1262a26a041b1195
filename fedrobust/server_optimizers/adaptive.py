"""Adaptive server optimisers: Adam and Yogi on the rule's answers (FedAdam, FedYogi).

Reddi et al., "Adaptive Federated Optimization", ICLR 2021, https://arxiv.org/abs/2003.00295
"""

from typing import Annotated

from annotated_types import Ge, Lt

from fedrobust.aggregators.base import State
from fedrobust.config.component import Positive, component
from fedrobust.server_optimizers.base import remembered
from fedrobust.types import Vector

_Decay = Annotated[float, Ge(0), Lt(1)]


@component
class ServerAdam:
    """Step by the average answer, divided in each parameter by the typical size of its answers.

    Every parameter moves by about as much, so the server's learning rate is a step size: 0.01 to 0.1, not 1.

    Formula: m ← β₁·m + (1 - β₁)·Δ; v ← β₂·v + (1 - β₂)·Δ²; step = m/(√v + τ), from m = 0 and v = τ².
    Cost: O(d), and 2d numbers of memory from round to round.
    Assumes: parameters whose answers are of very different sizes, as those of embeddings and rare features are; a τ
        near the size below which an answer is noise.
    Fails when: the learning rate is left at 1; clients differ much, so that the answers of a parameter change sign and
        it still moves as far as any other; an attacker pushes parameters that hardly move otherwise: divided by their
        typical size, small answers there make steps as long as all others.
    Source: Reddi et al., "Adaptive Federated Optimization", ICLR 2021, https://arxiv.org/abs/2003.00295 (FedAdam)
    Departs: nothing; as there, averages are not corrected for their start, and v starts at τ².

    Attributes:
        beta1: β₁, the weight of the past in the average answer.
        beta2: β₂, the weight of the past in the average square.
        tau: τ, in the units of an update: parameters whose answers are much smaller than it move little.
    """

    beta1: _Decay = 0.9
    beta2: _Decay = 0.99
    tau: Positive = 0.001

    def __call__(self, update: Vector, state: State) -> tuple[Vector, State]:
        """The step `(d,)` for this `update` `(d,)`; the state holds m and v as `first` and `second`.

        Raises:
            ValueError: remembered averages of another length.
        """
        first = _average(update, state, self.beta1)
        second = self.beta2 * remembered(state, "second", update, self.tau**2)
        second += (1 - self.beta2) * update.to(second.dtype).square()
        return _step(first, second, self.tau).to(update.dtype), {"first": first, "second": second}


@component
class ServerYogi:
    """As Adam, but the typical size of a parameter's answers changes by no more than the latest square at a time.

    So a few small answers in a row do not make the next large one count for much.

    Formula: m ← β₁·m + (1 - β₁)·Δ; v ← v - (1 - β₂)·Δ²·sign(v - Δ²); step = m/(√v + τ), from m = 0 and v = τ².
    Cost: O(d), and 2d numbers of memory from round to round.
    Assumes: what Adam assumes, where the answers of a parameter are sparse: large in few rounds, small in most.
    Fails when: where Adam does; and v is slow to grow: after a sudden rise of the answers steps are long for about
        1/(1 - β₂) rounds.
    Source: Reddi et al., "Adaptive Federated Optimization", ICLR 2021, https://arxiv.org/abs/2003.00295 (FedYogi)
    Departs: nothing; as there, averages are not corrected for their start, and v starts at τ².

    Attributes:
        beta1: β₁, the weight of the past in the average answer.
        beta2: 1 - β₂ is the part of the latest square by which v moves.
        tau: τ, in the units of an update: parameters whose answers are much smaller than it move little.
    """

    beta1: _Decay = 0.9
    beta2: _Decay = 0.99
    tau: Positive = 0.001

    def __call__(self, update: Vector, state: State) -> tuple[Vector, State]:
        """The step `(d,)` for this `update` `(d,)`; the state holds m and v as `first` and `second`.

        Raises:
            ValueError: remembered averages of another length.
        """
        first = _average(update, state, self.beta1)
        before = remembered(state, "second", update, self.tau**2)
        square = update.to(before.dtype).square()
        second = before - (1 - self.beta2) * square * (before - square).sign()
        return _step(first, second, self.tau).to(update.dtype), {"first": first, "second": second}


def _average(update: Vector, state: State, beta: float) -> Vector:
    average = beta * remembered(state, "first", update)
    average += (1 - beta) * update.to(average.dtype)
    return average


def _step(first: Vector, second: Vector, tau: float) -> Vector:
    return first / (second.sqrt() + tau)
