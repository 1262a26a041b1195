"""The no-regret filter: multiplicative weights against the direction of largest variance.

Hopkins, Li and Zhang, "Robust and Heavy-Tailed Mean Estimation Made Simple, via Regret Minimization", NeurIPS 2020,
https://arxiv.org/abs/2007.15839
"""

from typing import Annotated

from annotated_types import Gt, Le

from fedrobust._linalg.columns import Points
from fedrobust._linalg.gram import robust_gram_matrix
from fedrobust.aggregators.base import Aggregate, RoundContext, checked, require_majority
from fedrobust.aggregators.shared_average import average_kept
from fedrobust.config.component import AssumedFraction, Count, component
from fedrobust.filters.no_regret import no_regret_filter
from fedrobust.types import Weights


@component
class NoRegretFilter:
    """Shrink weights by 1 - ητ/τ_max, never letting one client have more than its cap; the calmest weighting wins.

    The weights play against the directions: each step the opponent shows the direction of largest variance, and the
    multiplicative weights update makes sure that over many steps no fixed weighting within the caps, that of the honest
    clients included, would have seen much less variance.

    Formula: w ← argmin KL(p ‖ w·(1 - ητ/τ_max)) over the p with Σ pᵢ = 1 and 0 ≤ pᵢ ≤ 1/(n - 2f), where
        τᵢ = ⟨xᵢ - μ_w, v⟩² for the top eigenvector v of Σ_w; the answer is Σ wᵢxᵢ for the first step's w
        whose Σ_w has a top eigenvalue within 10 % of the smallest.
    Cost: n²d for the Gram matrix and nd for the answer, two reads of the updates in all (once more for each new centre
        where they lie far from the origin); `num_iterations` top eigenpairs of size n: a tenth of a second for a
        hundred clients, about one second for a thousand.
    Breakdown point: f = ⌊εn⌋ < n/2 is what the rule accepts. The paper's bound, an error of the order √ε times the
        honest clients' largest standard deviation, holds below an ε smaller than that. Who is kept does not depend on
        the server's weights, but the kept are averaged by them: where weights are claims, one client that is kept can
        be the whole answer.
    Assumes: honest updates whose variance is bounded in every direction, by a bound that need not be known; at most a
        fraction ε of clients are malicious.
    Fails when: the attackers stay within the honest clients' own spread, or are more than 2f: the caps keep n - 2f
        clients in, whoever they are; or `num_iterations` is too small for the number of directions in which they point.
        It is slower than the spectral filter, which removes a client a step.
    Source: Hopkins, Li and Zhang, "Robust and Heavy-Tailed Mean Estimation Made Simple, via Regret Minimization",
        NeurIPS 2020, https://arxiv.org/abs/2007.15839; Zhu, Jiao and Steinhardt, "Robust Estimation via Generalized
        Quasi-Gradients", Information and Inference, 2022, https://arxiv.org/abs/2005.14073 (explicit low-regret filter)
    Departs: a step is relative to the τ_max of the moment, where the first paper divides by one bound on all τ; public
        code of the second's does as here, with η = 1/2. The cap is 1/(n - 2f), the budget of the other filters here,
        where both papers' set of weights has 1/((1 - ε)n), that is 1/(n - f); that set lies within this one, so the
        comparison with the honest clients' uniform weights holds, but up to 2f clients may be gone. Far points are
        pruned about the smallest ball around a client that holds n - f clients, at five times its radius, so that no
        scale need be known. A weight below 1/2n of the cap becomes zero. The first weighting within 10 % of the
        smallest top eigenvalue is taken, not the smallest: later ones differ by rounding errors. The average also
        carries the server's weights.

    Attributes:
        assumed_fraction: what the server believes the fraction of malicious clients to be; f = ⌊εn⌋.
        num_iterations: steps; the weighting of each is a candidate, and so is the one before the first.
        step_size: η, the part of its weight that the farthest client loses in a step.
    """

    assumed_fraction: AssumedFraction
    num_iterations: Count = 50
    step_size: Annotated[float, Gt(0), Le(0.5)] = 0.5

    def check_size(self, n: int) -> int:
        """The number f of n clients that are assumed malicious.

        Raises:
            UnsuitableSizeError: n <= 2f.
        """
        return require_majority("NoRegretFilter", self.assumed_fraction, n)

    def __call__(
        self, updates: Points, weights: Weights | None = None, context: RoundContext | None = None
    ) -> Aggregate:
        """Aggregate `updates` `(n, d)` under `weights` `(n,)`.

        Returns:
            Shares proportional to filter weight times server weight, and as scores the sum over the steps up to the
            best of τ relative to the largest, 1 a step once a client has no weight.

        Raises:
            ValueError: updates or weights of the wrong shape, type or range; n <= 2f; every client of
                positive weight filtered.
        """
        believed = checked(updates, weights, self)
        f = self.check_size(len(updates))
        filtered = no_regret_filter(
            robust_gram_matrix(updates),
            num_outliers=f,
            num_iterations=self.num_iterations,
            step_size=self.step_size,
        )
        return average_kept(
            updates, believed, filtered.weights, scores=filtered.scores, diagnostics=filtered.diagnostics()
        )
