"""FLTrust: the server trains on a few clean examples of its own and trusts whoever points the same way.

Cao et al., "FLTrust: Byzantine-robust Federated Learning via Trust Bootstrapping", NDSS 2021,
https://arxiv.org/abs/2012.13995
"""

from typing import ClassVar

import torch
from torch import Tensor

from fedrobust._linalg.columns import Points, all_finite
from fedrobust._linalg.cosines import cosines_to
from fedrobust._linalg.gram import row_norms, weighted_combination
from fedrobust.aggregators.base import Aggregate, RoundContext, checked, refuse_gradients
from fedrobust.config.component import Count, Trait, component
from fedrobust.types import UnusableUpdatesError, Vector, Weights


@component
class FLTrust:
    """Rescale every update to the norm of the server's own and average by how well it agrees with it in direction.

    The server's own update g₀ comes from training on its clean root data set exactly as the clients train on theirs; it
    is only a yardstick and has no part in the average.

    Formula: tᵢ = max(0, cos(xᵢ, g₀)); answer = Σ tᵢ (‖g₀‖ / ‖xᵢ‖) xᵢ / Σ tᵢ. Whoever is not trusted (tᵢ = 0) has no
        share; if nobody is trusted the answer is the zero update and all shares are zero.

    Cost: O(nd); the updates are read three times, for norms, cosines and the average. Besides, the server trains each
        round on `num_root_examples` examples.

    Breakdown point: none in the number of clients, the paper allows a majority of attackers. However many there are,
        the answer is never longer than g₀ and never turns away from it (its inner product with g₀ is not negative). The
        server's weights are ignored, and with them what clients claim.

    Assumes: a clean root data set that resembles what the clients learn from; and a server update that points the way
        the honest clients' updates do.

    Fails when: the root data set is poisoned, or has a bias towards one class so strong that honest updates look no
        better than malicious ones; when attackers bend their updates as far as the cosine allows; when honest updates
        are nearly orthogonal to g₀ (very heterogeneous clients, or high-dimensional noise), for then trust is noise.

    Source: Cao, Fang, Liu and Gong, "FLTrust: Byzantine-robust Federated Learning via Trust Bootstrapping", NDSS 2021,
        https://arxiv.org/abs/2012.13995

    Departs: the paper's division by Σ tᵢ has no answer when nobody is trusted; here that is the zero update. An update
        of norm zero has no direction and is not trusted. As in the paper, the server's weights are ignored: trust takes
        their place.

    Attributes:
        num_root_examples: the size of the server's root data set, drawn uniformly from the training data of all
            classes; 100 is the paper's. Read by the round that trains on it, not by the rule.
    """

    num_root_examples: Count = 100

    traits: ClassVar[frozenset[Trait]] = frozenset({"needs_root_update"})

    def __call__(
        self, updates: Points, weights: Weights | None = None, context: RoundContext | None = None
    ) -> Aggregate:
        """Aggregate `updates` `(n, d)` by `context.root_update` `(d,)`; `weights` `(n,)` are checked and ignored.

        Returns:
            As shares tᵢ / Σ tⱼ (of rescaled updates: the answer is not the average of the updates under them), as
            scores 1 - cos(xᵢ, g₀) in [0, 2].

        Raises:
            ValueError: updates or weights of the wrong shape, type or range; no root update, or one that does not fit.
        """
        believed = checked(updates, weights, self)
        root = _root_update(context, updates.shape[1])
        refuse_gradients(self, root)
        norms = row_norms(updates)
        root_norm = float(row_norms(root[None]))
        cosines = cosines_to(updates, norms, root)
        trust = cosines.clamp_min(0)
        total = float(trust.sum())
        shares = trust / total if total > 0 else torch.zeros_like(trust)
        rescaling = torch.where(shares > 0, root_norm / norms, 0.0)
        return Aggregate(
            update=weighted_combination(updates, shares * rescaling),
            shares=shares.to(believed.device),
            scores=(1 - cosines).to(believed.device),
            diagnostics={
                "root_norm": root_norm,
                "mean_trust": total / len(updates),
                "num_filtered": float((shares == 0).sum()),
            },
        )


def _root_update(context: RoundContext | None, d: int) -> Vector:
    root: Tensor | None = None if context is None else context.root_update
    if root is None:
        raise ValueError(f"FLTrust needs the server's own update of shape ({d},): give RoundContext(root_update=...)")
    if root.shape != (d,) or not root.is_floating_point():
        raise ValueError(f"root_update must be a floating tensor of shape ({d},), got {root.dtype} {tuple(root.shape)}")
    if not all_finite(root.detach()):
        raise UnusableUpdatesError("root_update must be finite")  # as a client's: a round lost, not the run
    return root
