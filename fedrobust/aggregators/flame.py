"""FLAME: keep the majority that points one way, clip it to the median norm, drown what is left in noise.

Nguyen et al., "FLAME: Taming Backdoors in Federated Learning", USENIX Security 2022, https://arxiv.org/abs/2101.02281
"""

import torch
from scipy.cluster.hierarchy import cophenet, linkage
from scipy.spatial.distance import squareform
from torch import Tensor

from fedrobust._linalg.columns import Points
from fedrobust._linalg.cosines import measure_directions
from fedrobust._linalg.gaussian_noise import add_gaussian_noise
from fedrobust._linalg.gram import weighted_combination
from fedrobust.aggregators.base import Aggregate, RoundContext, checked
from fedrobust.config.component import NonNegative, component
from fedrobust.types import UnusableUpdatesError, Weights

_ROWS_AT_ONCE = 64


@component
class Flame:
    """Keep the cluster of more than half of the clients, clip its updates to the median norm, average, add noise.

    The cluster is HDBSCAN's, on cosine distances, with at least ⌊n/2⌋ + 1 clients and min_samples = 1. Two clusters of
    that size do not fit, so HDBSCAN finds one, and here it is found directly: clients are joined in the order of their
    distances (single linkage) until more than half are connected, and those are kept.

    Formula: S = median of ‖x₁‖, ..., ‖xₙ‖; answer = Σ sᵢ min(1, S / ‖xᵢ‖) xᵢ + λS·N(0, I), with shares sᵢ equal (times
        the server's weights) over the kept clients.

    Cost: O(n²d) for the Gram matrix, O(nd) for the average, O(n²) for the clusters; the updates are read twice.

    Breakdown point: attackers must be fewer than half, or they can be the cluster. Then the median norm is between
        honest norms, and no client moves the answer by more than its share of S. Who is kept does not depend on the
        server's weights, but the kept are averaged by them: where weights are claims, one client that is kept can be
        the whole answer, but for the noise.

    Assumes: fewer than half of the clients malicious, and honest updates whose directions are closer to each other's
        than to the attackers'.

    Fails when: honest clients are so heterogeneous that they form no cluster, for the kept are then any chain of
        neighbours and almost half of the honest are lost; when attackers keep a small angle to the honest and stay
        within S; when λ is large enough to hurt the model, since the noise has norm λS√d.

    Source: Nguyen, Rieger, Chen, Yalame, Möllering, Fereidooni, Marchal, Miettinen, Mirhoseini, Zeitouni, Koushanfar,
        Sadeghi and Schneider, "FLAME: Taming Backdoors in Federated Learning", USENIX Security 2022,
        https://arxiv.org/abs/2101.02281

    Departs: cosines are those of the updates, as in most implementations, where the paper's algorithm takes the local
        models': models differ from each other by far less than from the origin, so that angles between them say little.
        The server's weights enter the average, where the paper counts all alike. λ is given, not derived from a
        privacy budget, for which the paper has λ = √(2 ln(1.25/δ))/ε; the default is that of public code. An update of
        norm zero is at cosine distance 1 from every other.

    Attributes:
        noise_factor: λ, the noise's standard deviation in each coordinate relative to S; 0 for no noise.
    """

    noise_factor: NonNegative = 0.001

    def __call__(
        self, updates: Points, weights: Weights | None = None, context: RoundContext | None = None
    ) -> Aggregate:
        """Aggregate `updates` `(n, d)` under `weights` `(n,)`, with noise by `context.seed` and the round.

        Returns:
            Shares proportional to the kept clients' server weights (of clipped updates: the answer is not the average
            of the updates under them), and as scores the cosine distance at which a client joins the kept ones.

        Raises:
            ValueError: updates or weights of the wrong shape, type or range; every client of positive weight filtered.
        """
        believed = checked(updates, weights, self)
        directions = measure_directions(updates)
        kept, scores = _majority_cluster(directions.distances)
        shares = believed * kept.to(believed.device)
        if float(shares.sum()) == 0.0:
            raise UnusableUpdatesError("every client of positive weight was filtered")
        shares = shares / shares.sum()
        bound = float(directions.norms.quantile(0.5))  # the midpoint, for even n
        is_clipped = directions.norms > bound
        factors = torch.where(is_clipped, bound / directions.norms, 1.0)
        update = weighted_combination(updates, shares * factors.to(shares.device))
        generator = (context or RoundContext()).generator("Flame")
        add_gaussian_noise(update, self.noise_factor * bound, generator, torch.float32)
        return Aggregate(
            update=update,
            shares=shares,
            scores=scores.to(shares.device),
            diagnostics={
                "median_norm": bound,
                "num_clipped": float((is_clipped & kept).sum()),
                "num_filtered": float((~kept).sum()),
            },
        )


def _majority_cluster(distances: Tensor) -> tuple[Tensor, Tensor]:
    """Who is connected to more than half of all at the smallest distance where anybody is, and who joins them when.

    Args:
        distances: `(n, n)` float64.

    Returns:
        `(n,)` boolean, and `(n,)` float64: the largest step on the way to the cluster, the cluster's own at least.
    """
    joined = _single_linkage(distances)
    half = len(joined) // 2 + 1
    # A few rows at a time: it copies what it looks at, and as many 64-bit indices.
    level, member = torch.cat([rows.kthvalue(half, dim=1).values for rows in joined.split(_ROWS_AT_ONCE)]).min(dim=0)
    reach = joined[member]
    return reach <= level, reach.clamp_min(float(level))


def _single_linkage(distances: Tensor) -> Tensor:
    """The distance `(n, n)` up to which clients must be joined for i and j to be connected."""
    if len(distances) == 1:
        return distances
    tree = linkage(squareform(distances.numpy(), checks=False), method="single")
    return torch.from_numpy(squareform(cophenet(tree)))
