"""The soft spectral filter: take weight from whoever lies far out in the direction of largest variance.

Diakonikolas and Kane, "Recent Advances in Algorithmic High-Dimensional Robust Statistics", 2019,
https://arxiv.org/abs/1911.05911 (with a bound on the covariance), and Allouah et al., ICML 2025,
https://arxiv.org/abs/2505.01874 (CAF, without a bound); with the scores of Dong, Hopkins and Li, NeurIPS 2019,
https://arxiv.org/abs/1906.11366.
"""

from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from fedrobust.statistics.filtering import Filtered, relative_projections
from fedrobust.statistics.quantum_entropy import quantum_entropy_direction
from fedrobust.statistics.results import Iteration
from fedrobust.statistics.spectral import Direction, TopDirection, top_direction
from fedrobust.statistics.threads import on_one_thread
from fedrobust.types import Weights

# Copies of one point must leave together, though the rounding of K makes their projections differ a little.
_ROUNDING = 1e-6


@on_one_thread
def soft_filter(
    gram: Tensor, *, max_removed: float, max_eigenvalue: float | None = None, entropy_alpha: float | None = None
) -> Filtered:
    """`soft_filter_along` the directions that a Gram matrix shows.

    Args:
        gram: `(n, n)` float64, about any centre.
        max_removed: the mass, in points, that may be taken away; twice the number of suspected outliers.
        max_eigenvalue: the variance that good points are believed not to exceed in any direction.
        entropy_alpha: if given, τ are the quantum entropy scores with this α instead.
    """
    return soft_filter_along(
        gram_direction(gram, entropy_alpha), len(gram), max_removed=max_removed, max_eigenvalue=max_eigenvalue
    )


def gram_direction(gram: Tensor, entropy_alpha: float | None = None) -> Direction:
    """The direction over a Gram matrix `(n, n)`: the top one, or the quantum entropy scores with this α."""
    if entropy_alpha is None:
        return partial(top_direction, gram)

    def scores(weights: Weights, near: TopDirection | None = None) -> TopDirection:
        return quantum_entropy_direction(gram, weights, entropy_alpha)

    return on_one_thread(scores)


def soft_filter_along(
    direction: Direction, n: int, *, max_removed: float, max_eigenvalue: float | None = None
) -> Filtered:
    """Repeat w ← w(1 - τ/τ_max), τ the squared projections on the top direction of the covariance under w.

    Every step removes a point, so this ends. With `max_eigenvalue` it ends at the first weighting whose top eigenvalue
    is no larger, or before more than `max_removed` is gone, and the last weighting is the answer. Without, steps go on
    while no more than `max_removed` is gone, and the weighting with the smallest top eigenvalue is the answer.

    Args:
        direction: finds τ under a weighting.
        n: the number of points.
        max_removed: the mass, in points, that may be taken away; twice the number of suspected outliers.
        max_eigenvalue: the variance that good points are believed not to exceed in any direction.

    Returns:
        Weights that sum to at least n - `max_removed`; all 1 if nothing was removed.
    """
    weights = torch.ones(n, dtype=torch.float64)
    top = direction(weights)
    relative = relative_projections(top, weights)
    current = best = Filtered(weights, relative, top.eigenvalue, top.eigenvalue, 0)
    iterations: list[Iteration] = []
    while top.eigenvalue > 0 and (max_eigenvalue is None or top.eigenvalue > max_eigenvalue):
        factors = 1 - relative
        before, weights = weights, weights * factors.where(factors > _ROUNDING, 0.0)
        if n - float(weights.sum()) > max_removed + 1e-9:
            break
        removed = float((before - weights).sum())
        iterations.append(Iteration(statistic=top.eigenvalue, threshold=max_eigenvalue, removed=removed))
        top = direction(weights, near=top)
        relative = relative_projections(top, weights)
        current = Filtered(
            weights, current.scores + relative, best.first_eigenvalue, top.eigenvalue, current.num_steps + 1
        )
        if current.eigenvalue < best.eigenvalue:
            best = current
    return replace(best if max_eigenvalue is None else current, iterations=tuple(iterations))
