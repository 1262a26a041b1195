"""The no-regret filter: multiplicative weights over the points, kept within a capped simplex.

Hopkins, Li and Zhang, "Robust and Heavy-Tailed Mean Estimation Made Simple, via Regret Minimization", NeurIPS 2020,
https://arxiv.org/abs/2007.15839
"""

import torch
from torch import Tensor

from fedrobust._linalg.gram import map_squared_distances
from fedrobust._linalg.spectral import top_direction
from fedrobust._linalg.threads import on_one_thread
from fedrobust.filters.filtering import Filtered, relative_projections
from fedrobust.types import Weights

_PRUNING_FACTOR = 5.0
"""Of 1.3σ, where four fifths of a normal sample in one dimension lie, this is beyond all honest points."""

_NEARLY = 1.1


@on_one_thread
def no_regret_filter(gram: Tensor, *, num_outliers: int, num_iterations: int, step_size: float) -> Filtered:
    """Repeat w ← KL-projection of w(1 - ητ/τ_max) onto {w ∈ Δₙ: wᵢ ≤ 1/(n - 2f)}; the smallest top eigenvalue wins.

    More exactly the first weighting wins whose top eigenvalue is within 10 % of the smallest: from there on the largest
    eigenvalues are nearly equal, each step turns to another of their directions, and rounding errors grow from step to
    step until the last weightings have no digit in common for inputs that differ in the last one.

    τ are the squared projections on the top direction of the covariance under w, τ_max the largest of a point that has
    weight. Far points, see `far_points`, have none from the start, and a point whose weight falls below 1/2n of the cap
    loses it.

    Args:
        gram: `(n, n)` float64, about any centre.
        num_outliers: f, fewer than n/2.
        num_iterations: steps, each with one eigenproblem of size n.
        step_size: η in (0, 1); at 1 a step could leave too few points for the caps.

    Returns:
        The weights relative to the largest, at least n - 2f of them positive; all 1 if f = 0.
    """
    n = len(gram)
    cap = 1 / (n - 2 * num_outliers)
    near = ~far_points(gram, num_outliers)
    everyone = top_direction(gram, torch.ones(n, dtype=torch.float64))
    weights = near.double() / near.sum()
    top = top_direction(gram, weights, near=everyone)
    relative = relative_projections(top, weights)
    candidates = [Filtered(weights, relative, everyone.eigenvalue, top.eigenvalue, 0)]
    for step in range(1, num_iterations + 1 if num_outliers else 1):
        if top.eigenvalue <= 0:
            break
        weights = project_onto_capped_simplex(weights * (1 - step_size * relative), cap)
        weights = project_onto_capped_simplex(weights.where(weights >= cap / (2 * n), 0.0), cap)
        top = top_direction(gram, weights, near=top)
        relative = relative_projections(top, weights)
        scores = candidates[-1].scores + relative
        candidates.append(Filtered(weights, scores, everyone.eigenvalue, top.eigenvalue, step))
    smallest = min(one.eigenvalue for one in candidates)
    best = next(one for one in candidates if one.eigenvalue <= _NEARLY * smallest)
    left = best.weights / best.weights.max()
    return Filtered(left, best.scores, best.first_eigenvalue, best.eigenvalue, best.num_steps)


def far_points(gram: Tensor, num_outliers: int) -> Tensor:
    """Who lies beyond five times the radius of the smallest ball about a point that holds n - f points, `(n,)` bool.

    At most f points do. They would make the steps, relative to the farthest point, too small for all others.
    """
    n = len(gram)
    radii = map_squared_distances(gram, lambda squared: squared.kthvalue(n - num_outliers, dim=1).values)
    centre = int(radii.argmin())
    norms = gram.diagonal()
    distances = (norms[centre] + norms).sub_(gram[centre], alpha=2)
    return distances > _PRUNING_FACTOR**2 * radii[centre]


def project_onto_capped_simplex(weights: Weights, cap: float) -> Weights:
    """The p in {p ≥ 0, Σp = 1, pᵢ ≤ cap} with the smallest relative entropy KL(p‖w): pᵢ = min(cap, m·wᵢ) for some m.

    Args:
        weights: `(n,)` float64, non-negative, positive for at least 1/cap points.
        cap: at least 1/n.
    """
    ordered = weights.sort(descending=True).values
    n = len(ordered)
    # The k largest are capped: m shares out what is left, and is right once the next one stays below the cap.
    rest = ordered.flip(0).cumsum(0).flip(0)
    multipliers = (1 - cap * torch.arange(n, dtype=torch.float64)) / rest
    fits = (multipliers * ordered <= cap * (1 + 1e-12)) & (multipliers > 0)
    if not bool(fits.any()):  # as many points as the simplex needs: all of them are at the cap
        return torch.where(weights > 0, 1.0, 0.0).double() / (weights > 0).sum()
    multiplier = multipliers[int(fits.int().argmax())]
    projected = (weights * multiplier).clamp(max=cap)
    return projected / projected.sum()
