"""SignGuard: filter by norm and by how many coordinates go up, stand still and go down.

Xu, Huang, Song and Lan, "Byzantine-robust Federated Learning through Collaborative Malicious Gradient Filtering", ICDCS
2022, https://arxiv.org/abs/2109.05872
"""

import math
from typing import Annotated

import torch
from annotated_types import Ge, Gt, Le
from torch import Tensor

from fedrobust._linalg.clipping import clip_factors, midpoint_median
from fedrobust._linalg.columns import Points, column_chunks
from fedrobust._linalg.cosines import cosines_to
from fedrobust._linalg.gram import row_norms, weighted_combination
from fedrobust._linalg.largest_cluster import largest_cluster
from fedrobust.aggregators.base import Aggregate, RoundContext, State, checked
from fedrobust.config.component import Fraction, component
from fedrobust.types import UnusableUpdatesError, Weights

_DRAWN_AT_ONCE = 1 << 13


@component
class SignGuard:
    """Keep the clients whose norm is ordinary and whose signs are distributed like most others', clip and average them.

    Formula: M the median norm. S₁ = {i: L·M ≤ ‖xᵢ‖ ≤ R·M}. S₂ = the largest MeanShift cluster of the clients' fractions
    of positive, zero and negative coordinates. The answer is the average of min(1, M/‖xᵢ‖)·xᵢ over S₁ ∩ S₂.
    Cost: O(nd), the data is read three times (four with `similarity`), and MeanShift on n points in 3 or 4 dimensions,
    O(n²) for each of its iterations.
    Breakdown point: fewer than half for the norms (the answer is never longer than M); for the clusters the paper gives
    none: the honest must form the largest. Who is kept does not depend on the server's weights, but the kept are
    averaged by them: where weights are claims, one client that is kept can be the whole answer.
    Assumes: attackers whose updates have another share of positive coordinates than honest ones, as the Little is
    Enough attack has, or another norm; a majority of honest clients with similar statistics.
    Fails when: the attack keeps norm and sign statistics (a permutation of an honest update's coordinates does); signs
    are balanced, so that a flipped update has the statistics of an honest one; honest clients fall into several groups.
    Source: Xu, Huang, Song and Lan, "Byzantine-robust Federated Learning through Collaborative Malicious Gradient
    Filtering", ICDCS 2022, https://arxiv.org/abs/2109.05872 (SignGuard, and SignGuard-Sim with `similarity`)
    Departs: the average carries the server's weights. Coordinates are drawn one from each of ⌈φd⌉ equal stretches, not
    φd of all. Fractions are not divided by the largest among the clients as the released code does. The similarity is
    the cosine with the last answer, as it is; in the first round there is none. Fewer than four clients, or clients
    with the same statistics, are one cluster. If no client passes both filters, those that pass the norm filter are
    averaged, and if none does, the cluster.

    Attributes:
        lower_bound: L, relative to the median norm.
        upper_bound: R, relative to the median norm.
        coordinate_fraction: φ, the fraction of the coordinates whose signs are counted.
        similarity: also cluster by the cosine with the last answer.
    """

    lower_bound: Fraction = 0.1
    upper_bound: Annotated[float, Ge(1)] = 3.0
    coordinate_fraction: Annotated[float, Gt(0), Le(1)] = 0.1
    similarity: bool = False

    def __call__(
        self, updates: Points, weights: Weights | None = None, context: RoundContext | None = None
    ) -> Aggregate:
        """Aggregate `updates` `(n, d)` under `weights` `(n,)`; the context gives randomness and the last answer.

        Returns:
            Shares proportional to the server's weights of the kept, and as scores how many of the two filters reject a
            client.

        Raises:
            ValueError: updates or weights of the wrong shape, type or range; every client of positive weight filtered.
        """
        believed = checked(updates, weights, self)
        context = context or RoundContext()
        norms = row_norms(updates)
        median = midpoint_median(norms)
        ordinary = (norms >= self.lower_bound * median) & (norms <= self.upper_bound * median)
        alike = largest_cluster(self._features(updates, norms, context))
        kept = next(chosen for chosen in (ordinary & alike, ordinary, alike) if bool(chosen.any()))

        shares = believed * kept.to(believed.device)
        if float(shares.sum()) == 0.0:
            raise UnusableUpdatesError("every client of positive weight was filtered")
        shares = shares / shares.sum()
        factors = clip_factors(norms, median).to(believed.device)
        update = weighted_combination(updates, shares * factors)
        state: State = {"last_answer": update} if self.similarity else {}
        return Aggregate(
            update=update,
            shares=shares,
            scores=((~ordinary).double() + (~alike).double()).to(believed.device),
            diagnostics={
                "bound": median,
                "num_filtered": float((~kept).sum()),
                "num_filtered_by_norm": float((~ordinary).sum()),
                "num_filtered_by_sign": float((~alike).sum()),
            },
            state=state,
        )

    def _features(self, updates: Points, norms: Tensor, context: RoundContext) -> Tensor:
        """What the clients are clustered by, `(n, 3)` or `(n, 4)` float64."""
        d = updates.shape[1]
        count = math.ceil(self.coordinate_fraction * d)
        features = sign_fractions(updates, draw_coordinates(d, count, context.generator("sign_guard")))
        last = context.state.get("last_answer")
        if not self.similarity or last is None:
            return features
        return torch.cat([features, cosines_to(updates, norms, last)[:, None]], dim=1)


def draw_coordinates(d: int, count: int, generator: torch.Generator) -> Tensor:
    """Ascending indices `(count,)` int64, one uniformly from each of `count` equal stretches of 0, ..., d - 1.

    So memory is that of the answer, where a draw from all d coordinates needs a permutation of them.
    """
    indices = torch.empty(count, dtype=torch.int64)
    for start in range(0, count, _DRAWN_AT_ONCE):
        chosen = indices[start : start + _DRAWN_AT_ONCE]
        bounds = torch.arange(start, start + len(chosen) + 1) * d // count
        places = torch.rand(len(chosen), generator=generator) * (bounds[1:] - bounds[:-1])
        torch.minimum(bounds[:-1] + places.long(), bounds[1:] - 1, out=chosen)
    return indices


def sign_fractions(updates: Points, indices: Tensor) -> Tensor:
    """Each row's fractions above, at and below zero, `(n, 3)` float64, in the columns of ascending `indices` `(k,)`."""
    counts = torch.zeros(2, len(updates), dtype=torch.float64)
    for where, chunk in column_chunks(updates):
        first, last = torch.searchsorted(indices, torch.tensor([where.start, where.stop])).tolist()
        drawn = chunk[:, (indices[first:last] - where.start).to(chunk.device)]
        counts += torch.stack([(drawn > 0).sum(dim=1), (drawn < 0).sum(dim=1)]).cpu()
    above, below = counts / len(indices)
    return torch.stack([above, 1 - above - below, below], dim=1)
