"""A little is enough (ALIE): shift every coordinate by less than honest clients differ.

Baruch, Baruch, Goldberg, "A Little Is Enough: Circumventing Defenses For Distributed Learning", NeurIPS 2019,
https://arxiv.org/abs/1902.06156
"""

from typing import ClassVar

from scipy.stats import norm
from torch import Tensor

from fedrobust.attacks.base import Knowledge, Level
from fedrobust.config.component import NonNegative, component
from fedrobust.types import Updates, Vector


@component
class ALIE:
    """All attackers send the mean minus z standard deviations, z such that they are nearer to it than enough others.

    Formula: μ - zσ per coordinate, with z = Φ⁻¹((n - m - s) / (n - m)) and s = ⌊n/2 + 1⌋ - m, the benign clients that
        attackers need on their side for a majority.
    Source: Baruch, Baruch and Goldberg, NeurIPS 2019, https://arxiv.org/abs/1902.06156
    Departs: μ and σ are those of the benign updates where these are granted; the paper estimates them from the
        attackers' own. Where few clients leave no room for a shift z is 0, and attackers who are the majority go by
        s = 1.

    Attributes:
        z: standard deviations, in place of the formula.
    """

    z: NonNegative | None = None

    needs: ClassVar[Level] = "own"
    uses: ClassVar[Level] = "benign"

    def __call__(self, knowledge: Knowledge) -> Updates:
        """The shifted mean, m times `(m, d)`."""
        m = len(knowledge.own_updates)
        z = largest_shift(knowledge.num_clients, m) if self.z is None else self.z
        mean, std = mean_and_std(knowledge.reference_updates)
        return (mean - z * std).expand(m, -1)


def largest_shift(n: int, m: int) -> float:
    """The formula's z for n clients of which m are malicious, at least 0."""
    if m >= n:
        return 0.0
    supporters = max(1, n // 2 + 1 - m)
    return max(0.0, float(norm.ppf(max(0, n - m - supporters) / (n - m))))


def mean_and_std(updates: Updates) -> tuple[Vector, Tensor]:
    """Mean and standard deviation (over n, not n - 1) of each coordinate of `updates` `(n, d)`."""
    return updates.mean(dim=0), updates.std(dim=0, correction=0)
