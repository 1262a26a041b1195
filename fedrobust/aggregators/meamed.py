"""Meamed, the mean around the median.

Xie, Koyejo, Gupta, "Generalized Byzantine-tolerant SGD", 2018, https://arxiv.org/abs/1802.10116
"""

from fedrobust._linalg.columns import Points
from fedrobust._linalg.order_statistics import mean_nearest_to_median
from fedrobust.aggregators.base import Aggregate, RoundContext, checked, require_majority
from fedrobust.config.component import AssumedFraction, component
from fedrobust.types import Weights


@component
class Meamed:
    """In each coordinate average the n - f values nearest to the median.

    Formula: the mean of the n - f values xᵢ with the smallest |xᵢ - median|, coordinate by coordinate.
    Cost: O(n log² n · d) time, one pass over the updates.
    Breakdown point: n > 2f: with f malicious values the median stays within the honest range. The server's weights are
        ignored, and with them what clients claim.
    Assumes: at most f malicious clients, and honest coordinates that lie near their median.
    Fails when: clients are heterogeneous, so that honest values are as far from the median as malicious ones; a shift
        that is small in every coordinate adds up over d of them.
    Source: Xie, Koyejo, Gupta, 2018, https://arxiv.org/abs/1802.10116
    Departs: of two values equally near to the median the lower one counts first. The server's weights are ignored.

    Attributes:
        assumed_fraction: what the server believes the fraction of malicious clients to be; f = ⌊εn⌋.
    """

    assumed_fraction: AssumedFraction

    def check_size(self, n: int) -> int:
        """The number f of n clients that are assumed malicious.

        Raises:
            UnsuitableSizeError: n <= 2f.
        """
        return require_majority("Meamed", self.assumed_fraction, n)

    def __call__(
        self, updates: Points, weights: Weights | None = None, context: RoundContext | None = None
    ) -> Aggregate:
        """Aggregate `updates` `(n, d)`; `weights` `(n,)` are checked and ignored, there are no shares and no scores.

        Raises:
            ValueError: updates or weights of the wrong shape, type or range; n <= 2f.
        """
        checked(updates, weights, self)
        n = len(updates)
        return Aggregate(update=mean_nearest_to_median(updates, n - self.check_size(n)))
