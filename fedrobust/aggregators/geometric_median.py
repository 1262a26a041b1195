"""The geometric median, smoothed: robust federated aggregation (RFA).

Pillutla, Kakade and Harchaoui, "Robust Aggregation for Federated Learning", IEEE Transactions on Signal Processing,
2022, https://arxiv.org/abs/1912.13445
"""

from fedrobust._linalg.columns import Points
from fedrobust._linalg.gram import weighted_combination
from fedrobust._linalg.weiszfeld import geometric_median_weights
from fedrobust.aggregators.base import Aggregate, RoundContext, checked
from fedrobust.config.component import Count, Positive, component
from fedrobust.types import Weights


@component
class GeometricMedian:
    """Answer with the point whose summed distance to the updates is smallest.

    Every client pulls with the same force, however far away it is, so it is the direction of an outlier that counts.

    Formula: argmin over z of Σ αᵢ‖xᵢ - z‖, α the server's weights; iterated from the weighted mean as
    z ← Σ wᵢxᵢ / Σ wᵢ with wᵢ = αᵢ / max(ν, ‖xᵢ - z‖), ν the part `smoothing` of the weighted median of the ‖xᵢ - z‖.
    Cost: one n x n Gram matrix (O(n²d), the data is read once, or twice where the updates lie far from the origin),
    O(n²) for each iteration and one combination of the rows (O(nd)). On a CPU the iterations over 384 and more clients
    first read the data itself, O(nd) each, and the matrix is built only if it takes more than n/48 of them.
    Breakdown point: 1/2 of the server's weight: attackers of less cannot move the answer arbitrarily far. In clients,
    this holds for uniform weights: where weights are claims, one client can hold more than half and be the whole
    answer.
    Assumes: honest updates that spread alike in opposite directions, or little.
    Fails when: attackers agree on a direction: then they pull together, each as hard as an honest client, and the bias
    is the larger the more honest clients differ; in high dimensions honest noise is orthogonal to that direction and
    does not pull back.
    Source: Pillutla, Kakade and Harchaoui, "Robust Aggregation for Federated Learning", IEEE Transactions on Signal
    Processing, 2022, https://arxiv.org/abs/1912.13445
    Departs: the paper lets the clients compute the weights under secure aggregation, with a budget of a few iterations;
    here the server iterates to convergence. The paper's ν is a distance, 1e-6 whatever the updates' size, so that it is
    the mean of updates that are smaller; here it is relative. The paper's tolerance is relative to the objective; here
    it is relative to the weighted median distance, since one far attacker inflates the objective until honest distances
    do not count.

    Attributes:
        smoothing: ν over the weighted median distance to z: within ν a client pulls less; the objective differs from
            the one without by at most ν/2.
        tolerance: stop when an iteration's guaranteed decrease of the objective is this part of the weighted median
            distance to z. The answer's own error is of the order of the square root, and more where z lies next to a
            client, as the iteration is slow there.
        max_iterations: stop at the latest after so many.
    """

    smoothing: Positive = 1e-6
    tolerance: Positive = 1e-12
    max_iterations: Count = 1000

    def __call__(
        self, updates: Points, weights: Weights | None = None, context: RoundContext | None = None
    ) -> Aggregate:
        """Aggregate `updates` `(n, d)` under `weights` `(n,)`.

        Returns:
            As shares the coefficients of the updates in the median, as scores the distances to it; nobody is dropped.
            `objective` is the (smoothed) weighted mean distance, after `num_iterations`; `is_converged` is 0 where
            these were too few.

        Raises:
            ValueError: updates or weights of the wrong shape, type or range.
        """
        believed = checked(updates, weights, self)
        median = geometric_median_weights(
            updates,
            believed,
            smoothing=self.smoothing,
            tolerance=self.tolerance,
            max_iterations=self.max_iterations,
        )
        shares = median.weights.to(believed.device)
        return Aggregate(
            update=weighted_combination(updates, shares),
            shares=shares,
            scores=median.distances.to(believed.device),
            diagnostics={
                "num_iterations": float(median.num_iterations),
                "is_converged": float(median.is_converged),
                "objective": median.objective,
            },
        )
