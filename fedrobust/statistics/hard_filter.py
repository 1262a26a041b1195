"""The hard spectral filter: drop the points farthest out in the direction of largest variance, round by round.

Diakonikolas et al., "Sever: A Robust Meta-Algorithm for Stochastic Optimization", ICML 2019,
https://arxiv.org/abs/1803.02815 (the filter of its experiments).
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from fedrobust.statistics.filtering import Filtered, relative_projections
from fedrobust.statistics.spectral import top_direction


def hard_filter(gram: Tensor, drops: Sequence[int]) -> Filtered:
    """Each round centre on the points that are left and drop those with the largest squared top projections.

    Args:
        gram: `(n, n)` float64, about any centre.
        drops: how many points to drop, round by round, fewer than n in all; of equal projections the first is dropped.
            Rounds that find all remaining points equal drop nothing.

    Raises:
        ValueError: drops that leave no point.
    """
    n = len(gram)
    if sum(drops) >= n:
        raise ValueError(f"cannot drop {sum(drops)} of {n} points")
    weights = torch.ones(n, dtype=torch.float64)
    top = top_direction(gram, weights)
    scores = relative = relative_projections(top, weights)
    first_eigenvalue = top.eigenvalue
    num_steps = 0
    for drop in drops:
        if top.eigenvalue <= 0:
            break
        ranked = relative.where(weights > 0, -1.0).sort(descending=True, stable=True).indices
        weights = weights.index_fill(0, ranked[:drop], 0.0)
        top = top_direction(gram, weights, near=top)
        relative = relative_projections(top, weights)
        scores = scores + relative
        num_steps += 1
    return Filtered(weights, scores, first_eigenvalue, top.eigenvalue, num_steps)
