"""Sever's filter as an aggregation rule: drop, round by round, whoever lies farthest out in the top direction.

Diakonikolas et al., "Sever: A Robust Meta-Algorithm for Stochastic Optimization", ICML 2019,
https://arxiv.org/abs/1803.02815
"""

from itertools import pairwise

from fedrobust._linalg.columns import Points
from fedrobust._linalg.gram import robust_gram_matrix
from fedrobust.aggregators.base import Aggregate, RoundContext, checked, require_majority
from fedrobust.aggregators.shared_average import average_kept
from fedrobust.config.component import AssumedFraction, Count, component
from fedrobust.filters.hard_filter import hard_filter
from fedrobust.types import Weights


@component
class Sever:
    """Drop the clients with the largest squared projections on the top direction of those left, and average the rest.

    Formula: drop argmax ⟨xᵢ - μ, v⟩², where μ and v are mean and top eigenvector of the covariance of the clients that
        are left, round by round; the answer is the mean of the rest.
    Cost: n²d for the Gram matrix and nd for the answer, two reads of the updates in all (once more for each new centre
        where they lie far from the origin); one top eigenpair of size n a round: milliseconds each for a hundred
        clients, a second or two for all 300 rounds of a thousand clients at ε = 0.2.
    Breakdown point: f = ⌊εn⌋ < n/2 is what the rule accepts. The paper gives none for this deterministic filter. Who is
        kept does not depend on the server's weights, but the kept are averaged by them: where weights are claims, one
        client that is kept can be the whole answer.
    Assumes: honest updates whose variance is bounded in every direction; at most a fraction ε of clients are malicious.
    Fails when: the attackers stay within the honest clients' own spread, or are more than ⌈3f/2⌉. With `num_rounds` the
        attackers point in more directions, or lie at more scales, than there are rounds.
    Source: Diakonikolas et al., "Sever: A Robust Meta-Algorithm for Stochastic Optimization", ICML 2019,
        https://arxiv.org/abs/1803.02815 (the filter of its experiments)
    Departs: client updates stand for per-sample gradients. A round of the paper's experiments drops the top ε/2
        quantile, three rounds 1.5ε; here the count is exact, ⌈rf/2⌉ clients after r rounds, since a quantile of ten
        clients rounds to none or to twice as many. Without `num_rounds` the same ⌈3f/2⌉ clients are dropped one a
        round: a round sees one direction only, and attackers who point in many directions outlast three.

    Attributes:
        assumed_fraction: what the server believes the fraction of malicious clients to be; f = ⌊εn⌋. At most 2f
            clients are dropped.
        num_rounds: the paper's rounds of f/2 clients each; `None` for one client a round.
    """

    assumed_fraction: AssumedFraction
    num_rounds: Count | None = None

    def check_size(self, n: int) -> int:
        """The number f of n clients that are assumed malicious.

        Raises:
            UnsuitableSizeError: n <= 2f.
        """
        return require_majority("Sever", self.assumed_fraction, n)

    def __call__(
        self, updates: Points, weights: Weights | None = None, context: RoundContext | None = None
    ) -> Aggregate:
        """Aggregate `updates` `(n, d)` under `weights` `(n,)`.

        Returns:
            Shares proportional to the server's weights of the kept, and as scores the sum over the rounds of the
            squared projection on the top direction relative to the largest, 1 a round once a client is dropped.

        Raises:
            ValueError: updates or weights of the wrong shape, type or range; n <= 2f; every client of
                positive weight dropped.
        """
        believed = checked(updates, weights, self)
        f = self.check_size(len(updates))
        filtered = hard_filter(robust_gram_matrix(updates), self.drops(f))
        return average_kept(
            updates, believed, filtered.weights, scores=filtered.scores, diagnostics=filtered.diagnostics()
        )

    def drops(self, f: int) -> list[int]:
        """How many clients each round drops when `f` are assumed malicious."""
        if self.num_rounds is None:
            return [1] * -(-3 * f // 2)
        totals = [min(-(-r * f // 2), 2 * f) for r in range(self.num_rounds + 1)]
        return [after - before for before, after in pairwise(totals) if after > before]
