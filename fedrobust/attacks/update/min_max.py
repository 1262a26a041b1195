"""Min-Max and Min-Sum: as far from the mean as distances between benign updates can hide.

Shejwalkar, Houmansadr, "Manipulating the Byzantine: Optimizing Model Poisoning Attacks and Defenses for Federated
Learning", NDSS 2021, https://www.ndss-symposium.org/wp-content/uploads/ndss2021_6C-3_24498_paper.pdf
"""

import math
from typing import ClassVar, Literal

import torch
from torch import Tensor

from fedrobust._linalg.gram import inner_products, recentre, robust_gram_matrix, squared_distances
from fedrobust.attacks.base import Knowledge, Level
from fedrobust.attacks.update.alie import mean_and_std
from fedrobust.config.component import component
from fedrobust.types import Updates, Vector

Perturbation = Literal["std", "unit", "sign"]


@component
class MinMax:
    """All attackers send the mean moved so far that none of the benign is farther from them than from each other.

    Formula: μ + γp with the largest γ for which maxᵢ ‖μ + γp - xᵢ‖ ≤ maxᵢⱼ ‖xᵢ - xⱼ‖; p = -σ, -μ/‖μ‖ or -sign(μ).
    Source: Shejwalkar and Houmansadr, NDSS 2021,
        https://www.ndss-symposium.org/wp-content/uploads/ndss2021_6C-3_24498_paper.pdf
    Departs: γ is the least root of n quadratic equations instead of the limit of the paper's halving search.

    Attributes:
        perturbation: p: `std`, against the standard deviation of each coordinate; `unit`, against the mean; `sign`,
            against its signs.
    """

    perturbation: Perturbation = "std"

    needs: ClassVar[Level] = "own"
    uses: ClassVar[Level] = "benign"

    def __call__(self, knowledge: Knowledge) -> Updates:
        """The moved mean, m times `(m, d)`."""
        points = knowledge.reference_updates
        mean, direction = _mean_and_direction(points, self.perturbation)
        gram = robust_gram_matrix(points)
        limit = float(squared_distances(gram).max())
        # ‖μ - xᵢ + γp‖² = from_mean + 2γ·along + γ²·square, for each i.
        from_mean = _squared_distances_to_mean(gram)
        along = float(mean.double() @ direction.double()) - inner_products(points, direction)
        square = float(direction.double().square().sum())
        if square == 0:
            return mean.expand(len(knowledge.own_updates), -1)
        roots = (-along + (along.square() + square * (limit - from_mean)).clamp_min(0).sqrt()) / square
        gamma = max(0.0, float(roots.min()))
        return (mean + gamma * direction).expand(len(knowledge.own_updates), -1)


@component
class MinSum:
    """All attackers send the mean moved so far that they are no more outlying, in total, than a benign client.

    Formula: μ + γp with the largest γ for which Σᵢ ‖μ + γp - xᵢ‖² ≤ maxᵢ Σⱼ ‖xᵢ - xⱼ‖²; p = -σ, -μ/‖μ‖ or -sign(μ).
        That is ‖γp‖ = maxᵢ ‖xᵢ - μ‖.
    Source: Shejwalkar and Houmansadr, NDSS 2021,
        https://www.ndss-symposium.org/wp-content/uploads/ndss2021_6C-3_24498_paper.pdf
    Departs: γ follows from the closed form instead of the paper's halving search. The bound is the paper's, maxᵢ; the
        authors' code, https://github.com/vrt1shjwlkr/NDSS21-Model-Poisoning, takes minᵢ. Figures made with that code
        are those of `bound: min`, a weaker attack: its γ is smaller by the ratio of the largest to the smallest
        ‖xᵢ - μ‖ (about 2 in the first round of the default scenario, 5 to 7 in its last).

    Attributes:
        perturbation: p: `std`, against the standard deviation of each coordinate; `unit`, against the mean; `sign`,
            against its signs.
        bound: `max`, as outlying as the most outlying benign client (the paper); `min`, as the least (the authors'
            code).
    """

    perturbation: Perturbation = "std"
    bound: Literal["max", "min"] = "max"

    needs: ClassVar[Level] = "own"
    uses: ClassVar[Level] = "benign"

    def __call__(self, knowledge: Knowledge) -> Updates:
        """The moved mean, m times `(m, d)`."""
        points = knowledge.reference_updates
        mean, direction = _mean_and_direction(points, self.perturbation)
        # Σⱼ ‖y - xⱼ‖² = Σⱼ ‖μ - xⱼ‖² + n·‖y - μ‖² for every y: both sides of the constraint share the first term.
        from_mean = _squared_distances_to_mean(robust_gram_matrix(points))
        square = float(direction.double().square().sum())
        limit = float(from_mean.max() if self.bound == "max" else from_mean.min())
        gamma = math.sqrt(limit / square) if square > 0 else 0.0
        return (mean + gamma * direction).expand(len(knowledge.own_updates), -1)


def _mean_and_direction(points: Updates, perturbation: Perturbation) -> tuple[Vector, Vector]:
    """μ and p, each `(d,)`."""
    mean, std = mean_and_std(points)
    if perturbation == "std":
        return mean, -std
    if perturbation == "sign":
        return mean, -mean.sign()
    return mean, -mean / mean.norm().clamp_min(1e-30)


def _squared_distances_to_mean(gram: Tensor) -> Tensor:
    """‖xᵢ - μ‖², `(n,)` float64, from a Gram matrix `(n, n)` about any centre."""
    uniform = torch.full((len(gram),), 1 / len(gram), dtype=torch.float64)
    return recentre(gram, uniform).diagonal().clamp_min(0)
