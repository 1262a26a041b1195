"""The hard spectral filter: drop the points farthest out in the direction of largest variance, round by round.

Diakonikolas et al., "Sever: A Robust Meta-Algorithm for Stochastic Optimization", ICML 2019,
https://arxiv.org/abs/1803.02815 (the filter of its experiments, and the randomised one of its analysis).
"""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from fedrobust._linalg.spectral import top_direction
from fedrobust._linalg.threads import on_one_thread
from fedrobust.filters.filtering import AS_FAR, Filtered, relative_projections
from fedrobust.filters.shrinking_sample import ShrinkingSample

_LARGE = 150
_MANY_ROUNDS = 15
"""From this size and number of rounds on, one full decomposition pays."""


@on_one_thread
def hard_filter(gram: Tensor, drops: Sequence[int]) -> Filtered:
    """Each round centre on the points that are left and drop those with the largest squared top projections.

    Args:
        gram: `(n, n)` float64, about any centre.
        drops: how many points to drop, round by round, fewer than n in all; of equal projections the first is dropped.
            Rounds that find all remaining points equal drop nothing.

    Raises:
        ValueError: drops that leave no point.
    """
    if sum(drops) >= len(gram):
        raise ValueError(f"cannot drop {sum(drops)} of {len(gram)} points")
    rounds = iter(drops)
    return _drop_rounds(gram, lambda eigenvalue, relative: next(rounds, 0), shrinks_slowly=len(drops) >= _MANY_ROUNDS)


@on_one_thread
def randomised_hard_filter(
    gram: Tensor, *, max_dropped: int, max_eigenvalue: float | None, generator: torch.Generator
) -> Filtered:
    """Each round draw T uniformly from (0, τ_max] and drop all with τ ≥ T, τ the squared top projections.

    So a point is dropped with probability τ/τ_max, and the farthest one always.

    Args:
        gram: `(n, n)` float64, about any centre.
        max_dropped: points that may be dropped before the last round, fewer than n; a round that would drop more drops
            the farthest, and those that lie as far out as the last of these, up to half of the points left.
        max_eigenvalue: the variance in any direction at which to stop; `None`: go on until `max_dropped` are gone.
        generator: one uniform number a round.

    Raises:
        ValueError: a `max_dropped` that leaves no point.
    """
    if max_dropped >= len(gram):
        raise ValueError(f"cannot drop {max_dropped} of {len(gram)} points")
    num_left = max_dropped

    def how_many(eigenvalue: float, relative: Tensor) -> int:
        nonlocal num_left
        if num_left == 0 or (max_eigenvalue is not None and eigenvalue <= max_eigenvalue):
            return 0
        threshold = 1 - float(torch.rand((), generator=generator, dtype=torch.float64))
        drop = int((relative >= threshold).sum())
        if drop > num_left:  # points that are alike leave together, however unlucky the threshold
            last = float(relative.sort(descending=True).values[num_left - 1])
            alike = int((relative >= max(AS_FAR * last, threshold)).sum())
            drop = max(num_left, min(alike, int((relative >= 0).sum()) // 2))
        num_left = max(num_left - drop, 0)
        return drop

    return _drop_rounds(gram, how_many)


def _drop_rounds(gram: Tensor, how_many: Callable[[float, Tensor], int], *, shrinks_slowly: bool = False) -> Filtered:
    """Drop points until `how_many`, which sees the top eigenvalue and the points' τ/τ_max (-1: gone), says none."""
    n = len(gram)
    direction = ShrinkingSample(gram) if shrinks_slowly and n > _LARGE else partial(top_direction, gram)
    weights = torch.ones(n, dtype=torch.float64)
    top = direction(weights)
    scores = relative = relative_projections(top, weights)
    first_eigenvalue = top.eigenvalue
    num_steps = 0
    while top.eigenvalue > 0:
        present = relative.where(weights > 0, -1.0)
        drop = how_many(top.eigenvalue, present)
        if drop == 0:
            break
        ranked = present.sort(descending=True, stable=True).indices
        weights = weights.index_fill(0, ranked[:drop], 0.0)
        top = direction(weights, near=top)
        relative = relative_projections(top, weights)
        scores = scores + relative
        num_steps += 1
    return Filtered(weights, scores, first_eigenvalue, top.eigenvalue, num_steps)
