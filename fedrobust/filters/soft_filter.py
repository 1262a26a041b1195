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

from fedrobust._linalg.spectral import Direction, TopDirection, top_direction
from fedrobust._linalg.threads import on_one_thread
from fedrobust.filters.filtering import AS_FAR, Filtered, relative_projections
from fedrobust.filters.quantum_entropy import quantum_entropy_direction
from fedrobust.filters.results import Iteration
from fedrobust.notices import notice
from fedrobust.types import Weights

# Copies of one point must leave together, though the rounding of K makes their projections differ a little.
_ROUNDING = 1e-6

_SHARP = 0.5
"""A fall of the top eigenvalue to this part of it in one step is taken to show that outliers left."""

_DECISIVE = 0.1
"""To this part of it outliers alone make it fall; of twenty honest clients the last step may halve it."""


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

    def scores(weights: Weights, near: TopDirection | None = None, enough: float | None = None) -> TopDirection:
        return quantum_entropy_direction(gram, weights, entropy_alpha)

    return on_one_thread(scores)


def soft_filter_along(
    direction: Direction, n: int, *, max_removed: float, max_eigenvalue: float | None = None
) -> Filtered:
    """Repeat w ← w(1 - τ/τ_max), τ the squared projections on the top direction of the covariance under w.

    Every step removes a point, so this ends: at the first weighting from which more than `max_removed` is gone, or, as
    long as a step halves the top eigenvalue, later. What lies beyond the budget is looked at like
    everything else. Points that are alike leave in one step, and so where they are all of the budget the step that
    exceeds it is the one that helps; what it leaves of them the next steps take.

    The weighting with the smallest top eigenvalue is the answer. With `max_eigenvalue` the loop ends before, at the
    first weighting whose top eigenvalue is no larger, and that one is the answer.

    Two steps are not taken: any if nothing may be removed, and one that exceeds the budget where most of the weight
    left lies equally far out. Malicious points are the fewer, so such a step takes honest points, two groups of them on
    either side, say, and might leave the malicious ones alone, whose variance is then the smallest of all.

    Args:
        direction: finds τ under a weighting.
        n: the number of points.
        max_removed: the mass, in points, that may be taken away before the last step; twice the number of suspected
            outliers.
        max_eigenvalue: the variance that good points are believed not to exceed in any direction.

    Returns:
        The weights, all 1 if nothing was removed, and by how much they exceed the budget.
    """
    weights = torch.ones(n, dtype=torch.float64)
    top = direction(weights)
    relative = relative_projections(top, weights)
    current = best = Filtered(weights, relative, top.eigenvalue, top.eigenvalue, 0)
    iterations: list[Iteration] = []
    left, beyond, falls = float(n), 0.0, True
    num_refused = num_alike = 0
    while max_removed > 0 and (beyond <= _ROUNDING or falls) and not _is_calm(top.eigenvalue, max_eigenvalue):
        factors = 1 - relative
        after = weights * factors.where(factors > _ROUNDING, 0.0)
        before, left = left, float(after.sum())
        beyond = n - left - max_removed
        if beyond > _ROUNDING and float(weights[relative >= AS_FAR].sum()) > before / 2:
            num_refused = 1
            break
        if beyond > _ROUNDING:
            num_alike = max(num_alike, int((relative.where(weights > 0, 0.0) >= AS_FAR).sum()))
        weights = after
        iterations.append(Iteration(statistic=top.eigenvalue, threshold=max_eigenvalue, removed=before - left))
        previous = top.eigenvalue
        # Beyond the budget a weighting must have less variance than any so far; how much more it has does not matter.
        enough = max(best.eigenvalue, _SHARP * previous) if beyond > _ROUNDING else None
        top = direction(weights, near=top, enough=enough)
        falls = top.eigenvalue < _SHARP * previous
        relative = relative_projections(top, weights)
        current = Filtered(
            weights, current.scores + relative, best.first_eigenvalue, top.eigenvalue, current.num_steps + 1
        )
        if beyond > _ROUNDING:
            lowest = best.eigenvalue if best.lowest_within_budget is None else best.lowest_within_budget
            current = replace(current, removed_beyond_budget=beyond, lowest_within_budget=lowest, num_alike=num_alike)
        if current.eigenvalue < best.eigenvalue:
            best = current
    answer = current if _is_calm(current.eigenvalue, max_eigenvalue) else best
    return replace(answer, iterations=tuple(iterations), num_refused=num_refused)


def _is_calm(eigenvalue: float, max_eigenvalue: float | None) -> bool:
    return eigenvalue <= (max_eigenvalue or 0.0)


def tell_of_budget(method: str, filtered: Filtered, max_removed: float) -> None:
    """One notice where the step that ended `method` decided the answer, or was refused.

    Decided: its top eigenvalue is less than a tenth of any within the budget, and more than f points that are alike
    left in it. Any other step is in the diagnostics alone.
    """
    n = len(filtered.weights)
    if filtered.num_refused:
        notice(
            f"{method}: the last step was not taken, since most of {n} points are equally far out along the top "
            "direction: two groups of honest ones, or nearly half are malicious"
        )
        return
    lowest, num_alike = filtered.lowest_within_budget, filtered.num_alike
    if lowest is not None and filtered.eigenvalue < _DECISIVE * lowest and num_alike > max_removed / 2:
        notice(
            f"{method}: {num_alike} of {n} points that are alike left together, beyond the budget of {max_removed:g}; "
            f"more seem to be malicious than the {max_removed / 2:g} assumed"
        )
