"""The weighted mean: federated averaging, optimal without attackers and at the mercy of a single one.

McMahan et al., "Communication-Efficient Learning of Deep Networks from Decentralized Data", AISTATS 2017,
https://arxiv.org/abs/1602.05629
"""

from typing import ClassVar

from fedrobust._linalg.columns import Points
from fedrobust._linalg.gram import weighted_combination
from fedrobust.aggregators.base import Aggregate, RoundContext, checked
from fedrobust.config.component import Trait, component
from fedrobust.types import Weights


@component
class Mean:
    """Average the updates by the server's weights.

    Formula: Σ wᵢxᵢ, w the server's weights.
    Cost: O(nd) time, one pass over the updates.
    Breakdown point: 0: one client can move the answer anywhere, by its update or, where the server weighs by claimed
        examples, by its claim. Weights are claims by default, since the mean trusts clients in any case.
    Assumes: no malicious client.
    Fails when: there is one.
    Source: McMahan et al., AISTATS 2017, https://arxiv.org/abs/1602.05629
    Departs: nothing.
    """

    traits: ClassVar[frozenset[Trait]] = frozenset({"trusts_claims", "is_differentiable"})

    def __call__(
        self, updates: Points, weights: Weights | None = None, context: RoundContext | None = None
    ) -> Aggregate:
        """Aggregate `updates` `(n, d)` under `weights` `(n,)`; the shares are the normalised weights.

        Differentiable in both.

        Raises:
            ValueError: updates or weights of the wrong shape, type or range.
        """
        shares = checked(updates, weights, self)
        return Aggregate(update=weighted_combination(updates, shares), shares=shares)
