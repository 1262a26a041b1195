"""Bulyan: select by Krum, again and again, then agree in each coordinate.

El Mhamdi, Guerraoui and Rouault, "The Hidden Vulnerability of Distributed Learning in Byzantium", ICML 2018,
https://arxiv.org/abs/1802.07927
"""

import numpy as np
import torch
from torch import Tensor

from fedrobust._linalg.columns import Points
from fedrobust._linalg.gram import robust_gram_matrix, squared_distances
from fedrobust._linalg.neighbours import nearest
from fedrobust._linalg.order_statistics import mean_nearest_to_median
from fedrobust.aggregators.base import Aggregate, RoundContext, UnsuitableSizeError, checked
from fedrobust.aggregators.krum import krum_scores
from fedrobust.config.component import AssumedFraction, component
from fedrobust.filters.filtering import assumed_count
from fedrobust.types import Weights

_ROWS_AT_ONCE = 64


@component
class Bulyan:
    """Select n - 2f updates by iterated Krum, then average in each coordinate the values nearest to their median.

    A far value in one coordinate hardly shows in a distance over all of them; the second stage removes it.

    Formula: S = ∅; θ = n - 2f times move Krum's choice among the remaining updates to S. Then in each coordinate the
    mean of the β = θ - 2f values of S that are nearest to the median of S.
    Cost: one n x n Gram matrix (O(n²d), the data is read once, or twice where the updates lie far from the origin),
    O(n³) for the selection, and a sort of θ values in each coordinate, O(nd log n), which reads the data once more.
    Breakdown point: it needs n ≥ 4f + 3, f the attackers it is told of, so it stands fewer than a quarter. Up to f
    attackers, each coordinate of the answer is a mean of values close to the median of a majority of honest ones. The
    server's weights are ignored, and with them what clients claim.
    Assumes: honest updates that differ by noise around one mean.
    Fails when: there are more than f attackers, or honest clients differ by their data: 2f of them are never heard, and
    in each coordinate a further 2f are not. Attacks that stay within the honest spread pass, as everywhere.
    Source: El Mhamdi, Guerraoui and Rouault, "The Hidden Vulnerability of Distributed Learning in Byzantium",
    ICML 2018, https://arxiv.org/abs/1802.07927
    Departs: among n' remaining updates Krum counts n' - f - 2 neighbours, at least one: the last two selections see
    n' = 2f + 2 and 2f + 1, fewer than the 2f + 3 of Krum's own theorem. Of equal scores the lower index wins, which
    matters once a single neighbour counts (f ≤ 2), as the two nearest to each other are then equal. The median of an
    even number is the midpoint, of two values as near to it the lower counts first. The server's weights are ignored.

    Attributes:
        assumed_fraction: what the server believes the fraction of malicious clients to be; f = ⌊εn⌋.
    """

    assumed_fraction: AssumedFraction

    def check_size(self, n: int) -> int:
        """The number f of n clients that are assumed malicious.

        Raises:
            UnsuitableSizeError: n < 4f + 3.
        """
        f = assumed_count(self.assumed_fraction, n)
        if n < 4 * f + 3:
            raise UnsuitableSizeError(f"Bulyan needs n >= 4f + 3, got n={n}, f={f}")
        return f

    def __call__(
        self, updates: Points, weights: Weights | None = None, context: RoundContext | None = None
    ) -> Aggregate:
        """Aggregate `updates` `(n, d)`; `weights` `(n,)` are checked and ignored.

        Returns:
            No shares, since each coordinate keeps others, and as scores those of Krum among all n.

        Raises:
            ValueError: updates or weights of the wrong shape, type or range; n < 4f + 3.
        """
        checked(updates, weights, self)
        f = self.check_size(len(updates))
        distances = squared_distances(robust_gram_matrix(updates))
        selected = select_by_krum(distances, f, len(updates) - 2 * f)
        return Aggregate(
            update=mean_nearest_to_median(updates, len(selected) - 2 * f, rows=selected),
            scores=krum_scores(distances, f).to(updates.device),
            diagnostics={"num_selected": float(len(selected))},
        )


def select_by_krum(distances: Tensor, f: int, count: int) -> Tensor:
    """The points that Krum chooses one after the other, each among those not yet chosen, `(count,)` ascending.

    Args:
        distances: squared, `(n, n)`, on the CPU.
        f: malicious points, of which Krum is told.
        count: how many to choose.
    """
    remaining = np.arange(len(distances))
    # Sorted once: to take a point away is to strike it from every row, which keeps the rows sorted.
    order = nearest(distances, len(distances))[:, 1:]
    ordered, others = torch.gather(distances, 1, order).numpy(), order.int().numpy()
    del order  # twice the size of its 32-bit copy
    chosen: list[int] = []
    while len(chosen) < count:
        m = len(remaining)
        best = int(ordered[:m, : max(1, m - f - 2)].sum(axis=1).argmin())
        chosen.append(int(remaining[best]))
        rows = np.delete(np.arange(m), best)
        remaining = remaining[rows]
        # In place, a few rows at a time: they only ever move up and to the left.
        for start in range(0, m - 1, _ROWS_AT_ONCE):
            some = rows[start : start + _ROWS_AT_ONCE]
            left = others[some, : m - 1] != chosen[-1]
            for matrix in (others, ordered):
                matrix[start : start + len(some), : m - 2] = matrix[some, : m - 1][left].reshape(len(some), m - 2)
    return torch.tensor(sorted(chosen))
