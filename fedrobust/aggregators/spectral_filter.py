"""The spectral filter: find the direction in which the updates vary most and trust less whoever lies far out along it.

Allouah et al., "Towards Trustworthy Federated Learning with Untrusted Participants", ICML 2025,
https://arxiv.org/abs/2505.01874 (`sigma=None`: CAF, the covariance-agnostic filter), and Diakonikolas and Kane, "Recent
Advances in Algorithmic High-Dimensional Robust Statistics", 2019, https://arxiv.org/abs/1911.05911 (`sigma` given).
"""

from typing import ClassVar, Literal

from fedrobust._linalg.columns import Points
from fedrobust._linalg.gram import robust_gram_matrix
from fedrobust.aggregators.base import Aggregate, RoundContext, checked, require_majority
from fedrobust.aggregators.shared_average import average_kept
from fedrobust.config.component import AssumedFraction, NonNegative, Positive, Trait, component
from fedrobust.filters.soft_filter import soft_filter, tell_of_budget
from fedrobust.types import Weights


@component
class SpectralFilter:
    """Scale weights by 1 - τ/τ_max, τ the squared projections on the top direction, then average under what is left.

    Without `sigma` this goes on until more than 2f clients' worth of weight is gone, and on from there as long as a
    step halves the top eigenvalue of the covariance; of all weightings, the last one included, that with the smallest
    top eigenvalue wins. With `sigma` it ends as soon as that eigenvalue is at most `stopping_factor`·σ². With
    `direction="quantum_entropy"` every direction of large variance adds to τ, and attackers who point in many
    directions leave together instead of one direction a step.

    Formula: w ← w·(1 - τ/τ_max), with τᵢ = ⟨xᵢ - μ_w, v⟩² for the top eigenvector v of Σ_w, or
        τᵢ = Σⱼ pⱼ⟨xᵢ - μ_w, vⱼ⟩² with pⱼ ∝ exp(αλⱼ/λ₁) over all eigenvectors; the answer is Σ wᵢxᵢ / Σ wᵢ.
    Cost: n²d for the Gram matrix and nd for the answer, two reads of the updates in all (once more for each new centre
        where they lie far from the origin); each step, at most 2f of them in practice, one eigenpair of an n x n
        matrix, or all of them for quantum entropy.
    Breakdown point: f = ⌊εn⌋ < n/2 is what the rule accepts. The papers' bounds, an error of the order √ε times the
        honest clients' largest standard deviation, hold below an ε smaller than that. Who is kept does not depend on
        the server's weights, but the kept are averaged by them: where weights are claims, one client that is kept can
        be the whole answer.
    Assumes: honest updates whose variance is bounded in every direction, by σ² if `sigma` is given; at most a fraction
        ε of clients are malicious.
    Fails when: the attackers stay within the honest clients' own spread. No filter sees such a shift: a bias of the
        order of the square root of ε times the honest top eigenvalue remains, which is large where clients are
        heterogeneous; nearest-neighbour mixing, bucketing or client momentum lower it. An ε of less than half the truth
        may leave attackers in who differ from one another; those who are alike leave together. A σ that is too small
        removes honest clients up to that budget. At f = 0 the rule is the mean, and says so.
    Source: Allouah et al., ICML 2025, https://arxiv.org/abs/2505.01874; Diakonikolas and Kane, 2019,
        https://arxiv.org/abs/1911.05911; Dong, Hopkins and Li, NeurIPS 2019, https://arxiv.org/abs/1906.11366
    Departs: the filter counts every client once, the average it returns also carries the server's weights; the
        weighting that the last step leads to, beyond 2f, is looked at like every other, where public code takes that
        step without a look; steps go on as long as they halve the top eigenvalue; a step beyond 2f in which most of the
        clients left lie equally far out is not taken; with `sigma` the calmest weighting is the answer where the budget
        ends the loop; quantum entropy scores are used in the soft filter and computed exactly, where their paper
        sketches the matrix exponential.

    Attributes:
        assumed_fraction: what the server believes the fraction of malicious clients to be; f = ⌊εn⌋.
        sigma: the honest updates' largest standard deviation in any direction, in the units of an update; `None` if
            unknown.
        stopping_factor: how many σ² the top eigenvalue may have; read only with `sigma`. Above the default a step takes
            more from the malicious than from the honest at ε = 0.1.
        direction: what τ measures, the top direction alone or all directions by their quantum entropy weights.
        entropy_alpha: α, how much the directions of large variance are preferred; read only with quantum entropy.
    """

    assumed_fraction: AssumedFraction
    sigma: Positive | None = None
    stopping_factor: Positive = 6.0
    direction: Literal["top", "quantum_entropy"] = "top"
    entropy_alpha: NonNegative = 4.0

    traits: ClassVar[frozenset[Trait]] = frozenset({"is_differentiable"})

    def check_size(self, n: int) -> int:
        """The number f of n clients that are assumed malicious.

        Raises:
            UnsuitableSizeError: n <= 2f.
        """
        return require_majority("SpectralFilter", self.assumed_fraction, n)

    def __call__(
        self, updates: Points, weights: Weights | None = None, context: RoundContext | None = None
    ) -> Aggregate:
        """Aggregate `updates` `(n, d)` under `weights` `(n,)`.

        Differentiable with the filter's weights held: the gradient of Σ wᵢxᵢ / Σ wᵢ, w taken as constants.

        Returns:
            Shares proportional to filter weight times server weight, and as scores the sum over the steps of τ relative
            to the largest, 1 a step once a client is filtered.

        Raises:
            ValueError: updates or weights of the wrong shape, type or range; n <= 2f; every client of
                positive weight filtered.
        """
        believed = checked(updates, weights, self)
        f = self.check_size(len(updates))
        filtered = soft_filter(
            robust_gram_matrix(updates.detach()),
            max_removed=2 * f,
            max_eigenvalue=None if self.sigma is None else self.stopping_factor * self.sigma**2,
            entropy_alpha=self.entropy_alpha if self.direction == "quantum_entropy" else None,
        )
        tell_of_budget("SpectralFilter", filtered, 2 * f)
        return average_kept(
            updates, believed, filtered.weights, scores=filtered.scores, diagnostics=filtered.diagnostics()
        )
