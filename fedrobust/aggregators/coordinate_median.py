"""The coordinate-wise median.

Yin et al., "Byzantine-Robust Distributed Learning: Towards Optimal Statistical Rates", ICML 2018,
https://arxiv.org/abs/1803.01498
"""

from typing import ClassVar

from fedrobust._linalg.columns import Points
from fedrobust._linalg.order_statistics import mean_of_order_statistics
from fedrobust.aggregators.base import Aggregate, RoundContext, checked
from fedrobust.config.component import Trait, component
from fedrobust.types import Weights


@component
class CoordinateMedian:
    """Take the median of each coordinate; for an even number of clients the midpoint of the two middle values.

    Formula: the median of x₁ⱼ, ..., xₙⱼ for each coordinate j.
    Cost: O(n log² n · d) time by sorting networks, one pass over the updates.
    Breakdown point: 1/2 in each coordinate. The server's weights are ignored, and with them what clients claim.
    Assumes: more honest than malicious clients, and honest coordinates that are spread about their mean alike.
    Fails when: d is large: its bias under attack grows as the square root of d; clients are heterogeneous, where the
        median of a coordinate is not its mean even without an attack.
    Source: Yin et al., ICML 2018, https://arxiv.org/abs/1803.01498 (option I)
    Departs: nothing. The server's weights are ignored: every client counts once.
    """

    traits: ClassVar[frozenset[Trait]] = frozenset({"is_differentiable"})

    def __call__(
        self, updates: Points, weights: Weights | None = None, context: RoundContext | None = None
    ) -> Aggregate:
        """Aggregate `updates` `(n, d)`; `weights` `(n,)` are checked and ignored, there are no shares and no scores.

        Differentiable in the updates: in each coordinate the values that count share the gradient.

        Raises:
            ValueError: updates or weights of the wrong shape, type or range.
        """
        checked(updates, weights, self)
        n = len(updates)
        return Aggregate(update=mean_of_order_statistics(updates, (n - 1) // 2, n // 2 + 1))
