"""Clipping before the rule: no update is longer than a bound.

Sun, Kairouz, Suresh and McMahan, "Can You Really Backdoor Federated Learning?", 2019,
https://arxiv.org/abs/1911.07963
"""

from fedrobust._linalg.clipping import clip_factors
from fedrobust._linalg.columns import Points
from fedrobust._linalg.gram import row_norms
from fedrobust._linalg.row_scaling import scale_rows
from fedrobust.aggregators.base import RoundContext, checked
from fedrobust.config.component import Positive, component
from fedrobust.preaggregators.base import Preaggregated
from fedrobust.types import Weights


@component
class Clipping:
    """Shorten every update that is longer than a fixed bound to it.

    Formula: yᵢ = min(1, M/‖xᵢ‖)·xᵢ.
    Cost: O(nd), the data is read twice and, if any update is clipped, written once.
    Breakdown point: that of the rule behind it, whose input is now bounded: even the mean moves by at most 2M times the
    attackers' weight.
    Assumes: a bound that honest updates mostly meet.
    Fails when: the bound is so low that honest updates lose their size, or so high that it cuts nothing; honest
    updates shrink during training and the bound does not.
    Source: Sun, Kairouz, Suresh and McMahan, "Can You Really Backdoor Federated Learning?", 2019,
    https://arxiv.org/abs/1911.07963
    Departs: the paper clips before the mean and adds noise; here any rule may follow and there is no noise.

    Attributes:
        max_norm: M, in the units of an update.
    """

    max_norm: Positive

    def __call__(
        self, updates: Points, weights: Weights | None = None, context: RoundContext | None = None
    ) -> Preaggregated:
        """Clip `updates` `(n, d)`; row i is still client i, and `weights` `(n,)` pass through.

        Raises:
            ValueError: updates or weights of the wrong shape, type or range.
        """
        believed = checked(updates, weights, self)
        factors = clip_factors(row_norms(updates), self.max_norm)
        return Preaggregated(
            updates=scale_rows(updates, factors),
            weights=believed,
            diagnostics={"num_clipped": float((factors < 1).sum())},
        )

    def output_size(self, n: int) -> int:
        """As many rows as there are."""
        return n
