"""Sign flip: send the opposite of what training gave.

Li, Xu, Chen, Giannakis, Ling, "RSA: Byzantine-Robust Stochastic Aggregation Methods for Distributed Learning from
Heterogeneous Datasets", AAAI 2019, https://arxiv.org/abs/1811.03761
"""

from typing import ClassVar

from fedrobust.attacks.base import Knowledge, Level
from fedrobust.config.component import Positive, component
from fedrobust.types import Updates


@component
class SignFlip:
    """Every attacker sends its own update times a negative factor.

    Formula: -s·xₖ.
    Source: Li, Xu, Chen, Giannakis and Ling, AAAI 2019, https://arxiv.org/abs/1811.03761
    Departs: the paper flips models or gradients; here it is the update, client minus global.

    Attributes:
        scale_factor: s; 1 keeps the update's norm.
    """

    scale_factor: Positive = 1.0

    needs: ClassVar[Level] = "own"
    uses: ClassVar[Level] = "own"

    def __call__(self, knowledge: Knowledge) -> Updates:
        """The flipped updates `(m, d)`."""
        return knowledge.own_updates * -self.scale_factor
