"""Adaptive robust clipping (ARC): the bound on the updates' length comes from the updates.

Allouah, Guerraoui, Gupta, Jellouli, Rizk and Stephan, "Adaptive Gradient Clipping for Robust Federated Learning",
ICLR 2025, https://arxiv.org/abs/2405.14432
"""

from fedrobust._linalg.clipping import clip_factors
from fedrobust._linalg.columns import Points
from fedrobust._linalg.gram import row_norms
from fedrobust._linalg.row_scaling import scale_rows
from fedrobust.aggregators.base import RoundContext, checked, require_majority
from fedrobust.config.component import AssumedFraction, component
from fedrobust.preaggregators.base import Preaggregated
from fedrobust.types import Weights


@component
class AdaptiveClipping:
    """Shorten the longest updates, twice as many as the attackers roughly, to the length of the next one.

    Formula: yᵢ = min(1, M/‖xᵢ‖)·xᵢ, M the (k + 1)-th largest norm, k = ⌊2(f/n)(n - f)⌋.
    Cost: O(nd), the data is read twice and, if any update is clipped, written once.
    Breakdown point: that of the rule behind it. As k ≥ f for n ≥ 2f, M is at most the longest honest norm, so no
    attacker's update is longer than an honest one.
    Assumes: a robust rule behind it; honest updates of similar length.
    Fails when: attackers' updates are no longer than honest ones, which then lose length and attackers none; a few
    honest clients have much to say, as theirs are the longest updates.
    Source: Allouah, Guerraoui, Gupta, Jellouli, Rizk and Stephan, "Adaptive Gradient Clipping for Robust Federated
    Learning", ICLR 2025, https://arxiv.org/abs/2405.14432
    Departs: nothing. The server's weights do not enter the bound.

    Attributes:
        assumed_fraction: what the server believes the fraction of malicious clients to be; f = ⌊εn⌋.
    """

    assumed_fraction: AssumedFraction

    def __call__(
        self, updates: Points, weights: Weights | None = None, context: RoundContext | None = None
    ) -> Preaggregated:
        """Clip `updates` `(n, d)`; row i is still client i, and `weights` `(n,)` pass through.

        Raises:
            ValueError: updates or weights of the wrong shape, type or range; n <= 2f.
        """
        believed = checked(updates, weights, self)
        n = self.output_size(len(updates))
        f = require_majority("AdaptiveClipping", self.assumed_fraction, n)
        norms = row_norms(updates)
        bound = float(norms.sort(descending=True).values[2 * f * (n - f) // n])
        factors = clip_factors(norms, bound)
        return Preaggregated(
            updates=scale_rows(updates, factors),
            weights=believed,
            diagnostics={"bound": bound, "num_clipped": float((factors < 1).sum())},
        )

    def output_size(self, n: int) -> int:
        """As many rows as there are.

        Raises:
            UnsuitableSizeError: n <= 2f.
        """
        require_majority("AdaptiveClipping", self.assumed_fraction, n)
        return n
