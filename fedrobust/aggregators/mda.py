"""Minimum-diameter averaging (MDA): the mean of the n - f updates that lie closest together.

El-Mhamdi, Guerraoui, Guirguis, Hoang and Rouault, "Genuinely Distributed Byzantine Machine Learning", PODC 2020,
https://arxiv.org/abs/1905.03853
"""

import torch

from fedrobust._linalg.columns import Points
from fedrobust._linalg.gram import robust_gram_matrix, squared_distances
from fedrobust._linalg.minimum_diameter import max_covers, minimum_diameter_subset
from fedrobust.aggregators.base import Aggregate, RoundContext, UnsuitableSizeError, checked, require_majority
from fedrobust.aggregators.shared_average import average_kept
from fedrobust.config.component import AssumedFraction, Count, component
from fedrobust.types import Weights


@component
class MDA:
    """Average the n - f updates whose greatest distance among themselves is smallest.

    Formula: the mean of S = argmin max ‖xᵢ - xⱼ‖ over i, j in S, among the subsets S of n - f updates.
    Cost: one n x n Gram matrix (O(n²d), the data is read once, or twice where the updates lie far from the origin), one
    combination of the kept rows (O(nd)), and an exact search that does not go through all subsets: for each of at most
    n²/2 pairs it may ask whether f clients can hit all longer pairs, which takes about 1.9·1.62^f steps at worst.
    Random updates need a few thousand steps in all at n = 160, f = 32.
    Breakdown point: f attackers of n, n > 2f: whoever is kept is no farther from the kept honest clients than the
    honest ones are from each other. Who is kept does not depend on the server's weights, but the kept are averaged by
    them: where weights are claims, one client that is kept can be the whole answer.
    Assumes: honest updates that lie within a ball which attackers have to enter to be kept.
    Fails when: attackers stay within the honest diameter, as they are then kept and up to f honest clients dropped;
    honest clients differ by their data and those at the rim are always dropped.
    Source: El-Mhamdi, Guerraoui, Guirguis, Hoang and Rouault, "Genuinely Distributed Byzantine Machine Learning",
    PODC 2020, https://arxiv.org/abs/1905.03853
    Departs: several subsets may have the smallest diameter, and the paper takes any; here the second-longest distance
    decides, then the third and so on, then the lower indices. The average carries the server's weights, which do not
    enter the choice.

    Attributes:
        assumed_fraction: what the server believes the fraction of malicious clients to be; f = ⌊εn⌋.
        max_subsets: numbers of clients whose worst case makes one search look at more partial subsets than this are
            refused: it depends on f alone, so no update can make the server hang. The default lets pass f ≤ 32.
    """

    assumed_fraction: AssumedFraction
    max_subsets: Count = 10_000_000

    def check_size(self, n: int) -> int:
        """The number f of n clients that are assumed malicious.

        Raises:
            UnsuitableSizeError: n <= 2f, or a search too long for `max_subsets`.
        """
        f = require_majority("MDA", self.assumed_fraction, n)
        worst = max_covers(f)
        if worst > self.max_subsets:
            raise UnsuitableSizeError(
                f"MDA may have to look at {worst} subsets for n={n}, f={f}, more than max_subsets={self.max_subsets}"
            )
        return f

    def __call__(
        self, updates: Points, weights: Weights | None = None, context: RoundContext | None = None
    ) -> Aggregate:
        """Aggregate `updates` `(n, d)` under `weights` `(n,)`.

        Returns:
            Shares proportional to the server's weights of the kept, as scores the squared distances to the farthest
            kept client, and the kept clients' `diameter`.

        Raises:
            ValueError: updates or weights of the wrong shape, type or range; n <= 2f, or too long a search; no kept
                client has any weight.
        """
        believed = checked(updates, weights, self)
        f = self.check_size(len(updates))
        distances = squared_distances(robust_gram_matrix(updates))
        subset = minimum_diameter_subset(distances, f)
        kept = torch.zeros(len(distances), dtype=torch.bool)
        kept[subset] = True
        to_farthest = distances[:, subset].max(dim=1).values
        diameter = float(to_farthest[subset].max()) ** 0.5
        return average_kept(updates, believed, kept, scores=to_farthest, diagnostics={"diameter": diameter})
