"""MGDA: the convex combination of several gradients that has the least norm, in closed form for two and three.

Désidéri, "Multiple-gradient descent algorithm (MGDA) for multiobjective optimization", Comptes Rendus Mathématique 350,
2012, https://doi.org/10.1016/j.crma.2012.03.014; Sener, Koltun, "Multi-Task Learning as Multi-Objective Optimization",
NeurIPS 2018, https://arxiv.org/abs/1810.04650, for two gradients and the normalisations.
Departs: three gradients are not solved by Frank-Wolfe, but exactly: the least of the three edges and the interior of
their triangle.
"""

from collections.abc import Sequence
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from fedrobust.training.step import Parameters

Normalisation: TypeAlias = Literal["none", "l2", "loss", "loss+"]

_EPSILON = 1e-5
"""Added to what gradients are divided by, as the authors of blind backdoors do in their code."""


def inner_products(gradients: Sequence[Parameters]) -> Tensor:
    """⟨gᵢ, gⱼ⟩ `(k, k)` of k gradients."""
    flat = torch.stack([torch.cat([part.flatten() for part in gradient.values()]) for gradient in gradients])
    return flat @ flat.T


def normalised(products: Tensor, losses: Tensor, normalisation: Normalisation) -> Tensor:
    """Inner products `(k, k)` of the gradients once each is divided by its norm, its loss `(k,)`, or both (`loss+`)."""
    if normalisation == "none":
        return products
    norms = products.diagonal().clamp_min(0).sqrt()
    scales = {"l2": norms, "loss": losses, "loss+": losses * norms}[normalisation] + _EPSILON
    return products / (scales.unsqueeze(0) * scales.unsqueeze(1))


def least_norm_weights(products: Tensor) -> Tensor:
    """α `(k,)` on the simplex that minimises ‖Σ αᵢ gᵢ‖², from the inner products `(k, k)` of two or three gradients.

    Raises:
        ValueError: another number of gradients.
    """
    k = len(products)
    if k == 2:
        return _on_edge(products, 0, 1)
    if k != 3:
        raise ValueError(f"least-norm weights are computed for 2 or 3 gradients, got {k}")
    inside, is_inside = _inside(products)
    candidates = torch.stack([_on_edge(products, 0, 1), _on_edge(products, 0, 2), _on_edge(products, 1, 2), inside])
    squared_norms = ((candidates @ products) * candidates).sum(dim=1)
    squared_norms = torch.where(torch.stack([torch.ones_like(is_inside)] * 3 + [is_inside]), squared_norms, torch.inf)
    best = squared_norms.argmin()
    return candidates.gather(0, best.view(1, 1).expand(1, 3)).squeeze(0)


def weighted_sum(weights: Sequence[float] | Tensor, gradients: Sequence[Parameters]) -> Parameters:
    """Σ αᵢ gᵢ: the gradient of a weighted sum of objectives, of which each was differentiated once."""
    names = gradients[0]
    total = {name: weights[0] * gradients[0][name] for name in names}
    for index in range(1, len(gradients)):
        total = {name: total[name] + weights[index] * gradients[index][name] for name in names}
    return total


def _on_edge(products: Tensor, i: int, j: int) -> Tensor:
    """α with αᵢ = (vⱼⱼ - vᵢⱼ) / (vᵢᵢ + vⱼⱼ - 2vᵢⱼ), clipped to [0, 1], αⱼ = 1 - αᵢ; ½ each for equal gradients."""
    apart = products[i, i] + products[j, j] - 2 * products[i, j]  # ‖gᵢ - gⱼ‖²
    share = torch.where(apart > 0, (products[j, j] - products[i, j]) / apart, 0.5).clamp(0.0, 1.0)
    zero = torch.zeros_like(share)
    parts = [zero] * len(products)
    parts[i], parts[j] = share, 1 - share
    return torch.stack(parts)


def _inside(products: Tensor) -> tuple[Tensor, Tensor]:
    """The least norm on the plane Σα = 1 of three gradients, and whether it lies within their triangle.

    There Gα is constant, so α is proportional to adj(G)·1, whose entries add up to the triangle's squared area (times
    four): none if the gradients lie on a line.
    """
    a, b, c = products.unbind(0)
    adjugate = torch.stack([torch.linalg.cross(b, c), torch.linalg.cross(c, a), torch.linalg.cross(a, b)])
    direction = adjugate.sum(dim=1)
    total = direction.sum()
    alpha = direction / torch.where(total > 0, total, 1.0)
    return alpha, (total > 0) & (alpha >= 0).all()
