"""Nearest-neighbour mixing (NNM): every update is replaced by the mean of those around it.

Allouah, Farhadkhani, Guerraoui, Gupta, Pinot and Stephan, "Fixing by Mixing: A Recipe for Optimal Byzantine ML under
Heterogeneity", AISTATS 2023, https://arxiv.org/abs/2302.01772
"""

from typing import ClassVar

import torch

from fedrobust._linalg.columns import Points
from fedrobust._linalg.gram import combine_rows, robust_gram_matrix, squared_distances
from fedrobust._linalg.neighbours import nearest
from fedrobust.aggregators.base import RoundContext, checked, require_majority
from fedrobust.config.component import AssumedFraction, Trait, component
from fedrobust.preaggregators.base import Preaggregated
from fedrobust.types import Weights


@component
class NearestNeighbourMixing:
    """Replace each update by the mean of the n - f updates nearest to it, itself included.

    Honest clients that differ by their data come to look alike, so that the rule behind can tell attackers from them.

    Formula: yᵢ = 1/(n - f) Σ xⱼ over the n - f nearest neighbours j of xᵢ, xᵢ itself first.
    Cost: one n x n Gram matrix (O(n²d), the data is read once, or twice where the updates lie far from the origin), a
    sort of each row of distances, O(n² log n), and n combinations of the rows, O(n²d), written as a new matrix.
    Breakdown point: that of the rule behind it, n > 2f at least. The paper proves that with it a robust rule reaches
    the best order of error that heterogeneity allows.
    Assumes: a robust rule behind it; f at least the number of attackers.
    Fails when: attackers stand near the honest updates, as they are then mixed into them; it does not remove anyone.
    Source: Allouah, Farhadkhani, Guerraoui, Gupta, Pinot and Stephan, "Fixing by Mixing: A Recipe for Optimal Byzantine
    ML under Heterogeneity", AISTATS 2023, https://arxiv.org/abs/2302.01772
    Departs: nothing. Neighbours are averaged uniformly, row i keeps client i's weight; of equal distances the lower
    index is nearer.

    Attributes:
        assumed_fraction: what the server believes the fraction of malicious clients to be; f = ⌊εn⌋.
    """

    assumed_fraction: AssumedFraction

    traits: ClassVar[frozenset[Trait]] = frozenset({"is_differentiable"})

    def __call__(
        self, updates: Points, weights: Weights | None = None, context: RoundContext | None = None
    ) -> Preaggregated:
        """Mix `updates` `(n, d)`; row i is what is around client i, and `weights` `(n,)` pass through.

        Raises:
            ValueError: updates or weights of the wrong shape, type or range; n <= 2f.
        """
        believed = checked(updates, weights, self)
        n = len(updates)
        size = n - require_majority("NearestNeighbourMixing", self.assumed_fraction, n)
        neighbours = nearest(squared_distances(robust_gram_matrix(updates.detach())), size)
        mixing = torch.zeros(n, n, dtype=torch.float64).scatter_(1, neighbours, 1 / size)
        return Preaggregated(updates=combine_rows(updates, mixing), weights=believed, mixing=mixing)

    def output_size(self, n: int) -> int:
        """As many rows as there are.

        Raises:
            UnsuitableSizeError: n <= 2f.
        """
        require_majority("NearestNeighbourMixing", self.assumed_fraction, n)
        return n
