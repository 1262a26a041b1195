"""How much the server believes of what clients claim: from claimed numbers of examples to weights.

Nothing binds a claim to data. Under `num_examples` a client that claims a million times what others do is the whole
answer of every rule that averages whom it keeps.
"""

from typing import Literal, TypeAlias

import torch
from torch import Tensor

from fedrobust.aggregators.base import Aggregator
from fedrobust.config.component import has_trait
from fedrobust.preaggregators import Pipeline
from fedrobust.types import Weights

Weighting: TypeAlias = Literal["uniform", "capped", "num_examples"]
"""Equal weights; claims up to a multiple of their median; claims as they are."""

GivenWeighting: TypeAlias = Literal["auto", "uniform", "capped", "num_examples"]
"""`auto`: `num_examples` for the plain mean, which nobody takes for robust, `uniform` for every other rule."""

DEFAULT_MAX_CLAIM_RATIO = 2.0


def weighting_for(rule: Aggregator, given: GivenWeighting) -> Weighting:
    """What `given` comes to under `rule`: a rule's trait `trusts_claims` counts unless something precedes the rule."""
    if given != "auto":
        return given
    if isinstance(rule, Pipeline):
        rule = rule if rule.preaggregators else rule.aggregator
    return "num_examples" if has_trait(rule, "trusts_claims") else "uniform"


def claimed_weights(num_examples: Tensor, weighting: Weighting, max_claim_ratio: float) -> Weights:
    """The weights `(n,)` float64, summing to 1, of clients that claim `num_examples` `(n,)`, all positive.

    Args:
        num_examples: as claimed; any real dtype.
        weighting: `uniform`, `capped` or `num_examples`.
        max_claim_ratio: no claim counts for more than this times the median claim; read only with `capped`. As long as
            fewer than half of the clients lie, an honest client's claim bounds the median.

    Example:
        >>> claimed_weights(torch.tensor([10, 10, 10, 10**9]), "capped", 2.0)
        tensor([0.2000, 0.2000, 0.2000, 0.4000], dtype=torch.float64)
    """
    claims = num_examples.double()  # before the sum: claims may overflow an integer
    if weighting == "uniform":
        claims = torch.ones_like(claims)
    elif weighting == "capped":
        claims = claims.clamp(max=max_claim_ratio * float(claims.median()))
    claims = claims / claims.max()  # the sum of claims may overflow, too
    return claims / claims.sum()
