"""Fang's attacks, tailored to the trimmed mean (and the median) and to Krum: drive the model backwards past the rule.

Fang, Cao, Jia, Gong, "Local Model Poisoning Attacks to Byzantine-Robust Federated Learning", USENIX Security 2020,
https://arxiv.org/abs/1911.11815
"""

import math
from typing import Annotated, ClassVar

import torch
from annotated_types import Gt
from torch import Tensor

from fedrobust._linalg.gram import inner_products, robust_gram_matrix, squared_distances, squared_norms
from fedrobust._linalg.neighbours import sums_of_nearest
from fedrobust.attacks.base import Knowledge, Level
from fedrobust.attacks.update.alie import mean_and_std
from fedrobust.config.component import Positive, component
from fedrobust.types import Updates, Vector


@component
class FangTrimmedMean:
    """Every attacker draws each coordinate just beyond the benign values, on the side that the model moves away from.

    Formula: where the mean update is positive, uniform in [a/b, a] if a > 0 and in [b·a, a] if not, a the least benign
        value; elsewhere uniform in [c, b·c] if c > 0 and in [c, c/b] if not, c the greatest. From the attackers' own
        updates alone: uniform in [μ - 4σ, μ - 3σ] and in [μ + 3σ, μ + 4σ].
    Source: Fang, Cao, Jia and Gong, USENIX Security 2020, https://arxiv.org/abs/1911.11815
    Departs: the paper bounds the coordinates of models, here it is those of updates; the direction that the model would
        take without attackers is that of the mean, not of the rule.

    Attributes:
        spread: b, how far beyond the benign values with full knowledge.
    """

    spread: Annotated[float, Gt(1)] = 2.0

    needs: ClassVar[Level] = "own"
    uses: ClassVar[Level] = "benign"

    def __call__(self, knowledge: Knowledge) -> Updates:
        """The drawn updates `(m, d)`."""
        points, own = knowledge.reference_updates, knowledge.own_updates
        mean, std = mean_and_std(points)
        if points is own:
            lower, upper = (mean - 4 * std, mean - 3 * std), (mean + 3 * std, mean + 4 * std)
        else:
            low, high, b = points.amin(dim=0), points.amax(dim=0), self.spread
            lower = torch.where(low > 0, low / b, low * b), low
            upper = high, torch.where(high > 0, high * b, high / b)
        start, stop = (torch.where(mean > 0, below, above) for below, above in zip(lower, upper, strict=True))
        drawn = torch.rand(own.shape, generator=knowledge.generator).to(own)
        return start + (stop - start) * drawn


@component
class FangKrum:
    """All attackers send one update straight against the model's direction, as long as Krum would still choose it.

    Formula: -λ·sign(g), g the update that Krum chooses without attackers. λ is halved from its upper bound
        √(minᵢ Σⱼ ‖xᵢ - xⱼ‖² / (n - 2m - 1)) / √d + maxᵢ ‖xᵢ‖ / √d, j over the n - m - 2 benign clients nearest to i,
        until Krum chooses it or λ < 1e-5. From the attackers' own updates alone they stand for the benign ones, g is
        their mean, and the crafted update is added once, twice, ... until Krum chooses it.
    Source: Fang, Cao, Jia and Gong, USENIX Security 2020, https://arxiv.org/abs/1911.11815
    Departs: the paper adds small differences between the attackers' updates, to look less alike; here they are one.
        √d counts the coordinates in which g is not zero. Where clients are too few for Krum it takes one neighbour.

    Attributes:
        min_lambda: the λ at which the search ends.
    """

    min_lambda: Positive = 1e-5

    needs: ClassVar[Level] = "own"
    uses: ClassVar[Level] = "benign"

    def __call__(self, knowledge: Knowledge) -> Updates:
        """The crafted update, m times `(m, d)`."""
        points, m = knowledge.reference_updates, len(knowledge.own_updates)
        distances = squared_distances(robust_gram_matrix(points))
        knows_benign = points is not knowledge.own_updates
        signs = (_krum_choice(points, distances) if knows_benign else points.mean(dim=0)).sign()
        benign = _Benign(distances, squared_norms(points), inner_products(points, signs), float(signs.count_nonzero()))
        factor = 0.0
        if benign.num_signs > 0:
            for num_crafted in (m,) if knows_benign else range(1, m + 1):
                factor, chosen = benign.search(num_crafted, self.min_lambda)
                if chosen:
                    break
        return (-factor * signs).expand(m, -1)


class _Benign:
    """What Krum's scores need to know of benign updates xᵢ and of their products with signs s.

    `distances` `(k, k)`: ‖xᵢ - xⱼ‖²; `norms` `(k,)`: ‖xᵢ‖²; `products` `(k,)`: ⟨xᵢ, s⟩; `num_signs`: ‖s‖².
    """

    def __init__(self, distances: Tensor, norms: Tensor, products: Tensor, num_signs: float) -> None:
        self.distances, self.norms, self.products, self.num_signs = distances, norms, products, num_signs

    def search(self, num_crafted: int, min_lambda: float) -> tuple[float, bool]:
        """λ, and whether Krum chooses -λs among the benign if it is sent `num_crafted` times."""
        factor = self.upper_bound(num_crafted)
        while not (chosen := self.is_chosen(factor, num_crafted)) and factor >= min_lambda:
            factor /= 2
        return factor, chosen

    def upper_bound(self, num_crafted: int) -> float:
        """The λ beyond which Krum cannot choose -λs (the paper's Theorem 1)."""
        num_benign = len(self.norms)
        farthest = math.sqrt(float(self.norms.max()))
        if num_benign < 2:
            return farthest / math.sqrt(self.num_signs)
        least = float(sums_of_nearest(self.distances, max(1, num_benign - 2)).min())
        spread = math.sqrt(least / max(1, num_benign - num_crafted - 1))
        return (spread + farthest) / math.sqrt(self.num_signs)

    def is_chosen(self, factor: float, num_crafted: int) -> bool:
        """Whether the score of -λs, sent `num_crafted` times, is below those of all benign updates."""
        to_benign = (factor**2 * self.num_signs + 2 * factor * self.products + self.norms).clamp_min(0)
        n = num_crafted + len(self.norms)
        table = torch.zeros(n, n, dtype=torch.float64)
        table[:num_crafted, num_crafted:] = to_benign
        table[num_crafted:, :num_crafted] = to_benign[:, None]
        table[num_crafted:, num_crafted:] = self.distances
        scores = sums_of_nearest(table, max(1, n - num_crafted - 2))
        return bool(scores[0] < scores[num_crafted:].min())


def _krum_choice(points: Updates, distances: Tensor) -> Vector:
    """The update that Krum chooses of `points` `(k, d)`."""
    if len(points) < 3:
        return points.mean(dim=0)
    return points[int(sums_of_nearest(distances, len(points) - 2).argmin())]
