"""The coordinate-wise trimmed mean.

Yin et al., "Byzantine-Robust Distributed Learning: Towards Optimal Statistical Rates", ICML 2018,
https://arxiv.org/abs/1803.01498
"""

from fedrobust.aggregators.base import Aggregate, assumed_count, checked
from fedrobust.component import AssumedFraction, component
from fedrobust.statistics.order_statistics import mean_of_order_statistics
from fedrobust.types import Updates, Weights


@component
class TrimmedMean:
    """In each coordinate drop the f smallest and the f largest values and average the rest.

    Yin et al., ICML 2018, https://arxiv.org/abs/1803.01498 (option II)
    Departs: nothing. The server's weights are ignored: every client counts once.

    Attributes:
        assumed_fraction: what the server believes the fraction of malicious clients to be; f = ⌊εn⌋ on each side.
    """

    assumed_fraction: AssumedFraction

    def __call__(self, updates: Updates, weights: Weights | None = None) -> Aggregate:
        """Aggregate `updates` `(n, d)`; `weights` `(n,)` are checked and ignored, there are no shares and no scores.

        Raises:
            ValueError: updates or weights of the wrong shape, type or range; n <= 2f.
        """
        checked(updates, weights)
        n = len(updates)
        f = assumed_count(self.assumed_fraction, n)
        if n <= 2 * f:
            raise ValueError(f"TrimmedMean needs n > 2f, got n={n}, f={f}")
        return Aggregate(
            update=mean_of_order_statistics(updates, f, n - f), diagnostics={"num_trimmed_per_side": float(f)}
        )
