"""Norm clipping: no client's update counts for more than a bound.

Sun, Kairouz, Suresh and McMahan, "Can You Really Backdoor Federated Learning?", 2019,
https://arxiv.org/abs/1911.07963
"""

from fedrobust._linalg.clipping import clip_factors, midpoint_median
from fedrobust._linalg.columns import Points
from fedrobust._linalg.gaussian_noise import add_gaussian_noise
from fedrobust._linalg.gram import row_norms, weighted_combination
from fedrobust.aggregators.base import Aggregate, RoundContext, checked
from fedrobust.config.component import NonNegative, Positive, component
from fedrobust.types import Weights


@component
class NormClipping:
    """Shorten every update to a bound on its norm, average, and add a little noise if asked to.

    Formula: Σ wᵢ·min(1, M/‖xᵢ‖)·xᵢ + N(0, σ²I).
    Cost: O(nd), the data is read twice.
    Breakdown point: attackers of total weight ε add at most ε·M to the answer, in any direction they like; they are
    never excluded. With M the median norm, M itself is bounded while attackers are fewer than half. In clients, this
    holds for uniform weights: where weights are claims, one client can hold more than half and be the whole answer.
    Assumes: attackers need long updates, as model replacement does; a bound that honest updates mostly meet.
    Fails when: attackers stay below the bound and repeat themselves over many rounds, or are many; the bound is so low
    that honest updates lose their size, or so high that it cuts nothing.
    Source: Sun, Kairouz, Suresh and McMahan, "Can You Really Backdoor Federated Learning?", 2019,
    https://arxiv.org/abs/1911.07963
    Departs: without `max_norm` the bound is the median norm of the round (every client counts once), where the paper
    fixes it. The noise is the paper's weak differential privacy: too little for a privacy guarantee.

    Attributes:
        max_norm: M, in the units of an update; `None` for the median of the round's norms.
        noise_std: σ, the standard deviation of the noise on each coordinate of the average, in the units of an update.
    """

    max_norm: Positive | None = None
    noise_std: NonNegative = 0.0

    def __call__(
        self, updates: Points, weights: Weights | None = None, context: RoundContext | None = None
    ) -> Aggregate:
        """Aggregate `updates` `(n, d)` under `weights` `(n,)`; the context gives the noise.

        Returns:
            As shares the server's weights, for nobody is dropped, and as scores the norms.

        Raises:
            ValueError: updates or weights of the wrong shape, type or range.
        """
        believed = checked(updates, weights, self)
        norms = row_norms(updates)
        bound = midpoint_median(norms) if self.max_norm is None else self.max_norm
        factors = clip_factors(norms, bound)
        update = weighted_combination(updates, believed * factors.to(believed.device))
        add_gaussian_noise(update, self.noise_std, (context or RoundContext()).generator("norm_clipping"))
        return Aggregate(
            update=update,
            shares=believed,
            scores=norms.to(believed.device),
            diagnostics={"bound": bound, "num_clipped": float((factors < 1).sum())},
        )
