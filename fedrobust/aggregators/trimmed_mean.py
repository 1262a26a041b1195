"""The coordinate-wise trimmed mean.

Yin et al., "Byzantine-Robust Distributed Learning: Towards Optimal Statistical Rates", ICML 2018,
https://arxiv.org/abs/1803.01498
"""

from typing import ClassVar

from fedrobust._linalg.columns import Points
from fedrobust._linalg.order_statistics import mean_of_order_statistics
from fedrobust.aggregators.base import Aggregate, RoundContext, UnsuitableSizeError, checked, require_majority
from fedrobust.config.component import AssumedFraction, FieldError, Index, Trait, component
from fedrobust.types import Weights


@component
class TrimmedMean:
    """In each coordinate drop the f smallest and the f largest values and average the rest.

    Formula: the mean of the order statistics f + 1, ..., n - f of each coordinate.
    Cost: O(n log² n · d) time by sorting networks, one pass over the updates.
    Breakdown point: f malicious clients, n > 2f. The server's weights are ignored, and with them what clients claim.
    Assumes: at most f malicious clients.
    Fails when: more are malicious than assumed; d is large: its bias under attack grows as the square root of d.
    Source: Yin et al., ICML 2018, https://arxiv.org/abs/1803.01498 (option II)
    Departs: nothing. The server's weights are ignored: every client counts once.

    Attributes:
        assumed_fraction: what the server believes the fraction of malicious clients to be; f = ⌊εn⌋ on each side.
        num_trimmed: f itself; if given, the fraction is not looked at.
    """

    assumed_fraction: AssumedFraction | None = None
    num_trimmed: Index | None = None

    traits: ClassVar[frozenset[Trait]] = frozenset({"is_differentiable"})

    def __post_init__(self) -> None:
        """Check that one of the two is given."""
        if self.assumed_fraction is None and self.num_trimmed is None:
            raise FieldError("assumed_fraction", "must be given, or num_trimmed")

    def check_size(self, n: int) -> int:
        """How many of n values are dropped on each side.

        Raises:
            UnsuitableSizeError: n <= 2f.
        """
        if self.num_trimmed is not None:
            if n <= 2 * self.num_trimmed:
                raise UnsuitableSizeError(
                    f"TrimmedMean needs n > 2 num_trimmed, got n={n}, num_trimmed={self.num_trimmed}"
                )
            return self.num_trimmed
        return require_majority("TrimmedMean", self.assumed_fraction or 0.0, n)

    def __call__(
        self, updates: Points, weights: Weights | None = None, context: RoundContext | None = None
    ) -> Aggregate:
        """Aggregate `updates` `(n, d)`; `weights` `(n,)` are checked and ignored, there are no shares and no scores.

        Differentiable in the updates: in each coordinate the values that count share the gradient.

        Raises:
            ValueError: updates or weights of the wrong shape, type or range; n <= 2f.
        """
        checked(updates, weights, self)
        f = self.check_size(len(updates))
        return Aggregate(
            update=mean_of_order_statistics(updates, f, len(updates) - f),
            diagnostics={"num_trimmed_per_side": float(f)},
        )
