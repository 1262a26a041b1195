"""Sever's randomised filter as an aggregation rule: the farther out in the top direction, the likelier to be dropped.

Diakonikolas et al., "Sever: A Robust Meta-Algorithm for Stochastic Optimization", ICML 2019,
https://arxiv.org/abs/1803.02815
"""

from fedrobust._linalg.columns import Points
from fedrobust._linalg.gram import robust_gram_matrix
from fedrobust.aggregators.base import Aggregate, RoundContext, checked, require_majority
from fedrobust.aggregators.shared_average import average_kept
from fedrobust.config.component import AssumedFraction, Positive, component
from fedrobust.filters.hard_filter import randomised_hard_filter
from fedrobust.types import Weights


@component
class RandomisedSever:
    """Drop everyone beyond a random threshold on the squared projections on the top direction, and average the rest.

    Formula: with τᵢ = ⟨xᵢ - μ, v⟩², μ and v mean and top eigenvector of the covariance of the clients that are left,
        draw T uniformly from (0, max τ] and drop all with τᵢ ≥ T; repeat while the mean of τ exceeds
        `stopping_factor`·σ², or, without `sigma`, until 2f clients are gone.
    Cost: n²d for the Gram matrix and nd for the answer, two reads of the updates in all (once more for each new centre
        where they lie far from the origin); one top eigenpair of size n a round, at most 2f rounds.
    Breakdown point: f = ⌊εn⌋ < n/2 is what the rule accepts. The paper's bound, an error of the order √ε·σ, holds in
        probability and below an ε smaller than that. Who is kept does not depend on the server's weights, but the kept
        are averaged by them: where weights are claims, one client that is kept can be the whole answer.
    Assumes: honest updates whose variance is at most σ² in every direction; at most a fraction ε of clients are
        malicious.
    Fails when: the attackers stay within the honest clients' own spread. Without `sigma` 2f clients are dropped however
        harmless they are, and which honest ones is chance.
    Source: Diakonikolas et al., "Sever: A Robust Meta-Algorithm for Stochastic Optimization", ICML 2019,
        https://arxiv.org/abs/1803.02815 (the filter of its analysis)
    Departs: client updates stand for per-sample gradients; nobody is dropped once 2f clients are; of a last round that
        exceeds 2f the farthest go, and those alike, so that an unlucky threshold does not take the federation; the top
        eigenpair is exact.

    Attributes:
        assumed_fraction: what the server believes the fraction of malicious clients to be; f = ⌊εn⌋.
        sigma: the honest updates' largest standard deviation in any direction, in the units of an update; `None` if
            unknown.
        stopping_factor: how many σ² the top eigenvalue, which is the mean of τ, may have; read only with `sigma`.
    """

    assumed_fraction: AssumedFraction
    sigma: Positive | None = None
    stopping_factor: Positive = 6.0

    def check_size(self, n: int) -> int:
        """The number f of n clients that are assumed malicious.

        Raises:
            UnsuitableSizeError: n <= 2f.
        """
        return require_majority("RandomisedSever", self.assumed_fraction, n)

    def __call__(
        self, updates: Points, weights: Weights | None = None, context: RoundContext | None = None
    ) -> Aggregate:
        """Aggregate `updates` `(n, d)` under `weights` `(n,)`; the thresholds depend on the context's seed and round.

        Returns:
            Shares proportional to the server's weights of the kept, and as scores the sum over the rounds of the
            squared projection on the top direction relative to the largest, 1 a round once a client is dropped.

        Raises:
            ValueError: updates or weights of the wrong shape, type or range; n <= 2f; every client of
                positive weight dropped.
        """
        believed = checked(updates, weights, self)
        f = self.check_size(len(updates))
        filtered = randomised_hard_filter(
            robust_gram_matrix(updates),
            max_dropped=2 * f,
            max_eigenvalue=None if self.sigma is None else self.stopping_factor * self.sigma**2,
            generator=(context or RoundContext()).generator("sever"),
        )
        return average_kept(
            updates, believed, filtered.weights, scores=filtered.scores, diagnostics=filtered.diagnostics()
        )
