"""The robust learning rate: go backwards in the parameters on whose direction too few clients agree.

Ozdayi, Kantarcioglu and Gel, "Defending against Backdoors in Federated Learning with Robust Learning Rate", AAAI 2021,
https://arxiv.org/abs/2007.03767
"""

import torch

from fedrobust._linalg.columns import Points
from fedrobust._linalg.gram import weighted_combination
from fedrobust._linalg.sign_votes import sign_votes
from fedrobust.aggregators.base import Aggregate, RoundContext, UnsuitableSizeError, checked, require_majority
from fedrobust.config.component import AssumedFraction, Count, FieldError, component
from fedrobust.types import Weights


@component
class RobustLearningRate:
    """Average, and turn round each coordinate in which the clients' signs do not clearly agree.

    Formula: with the mean m = Σ wᵢxᵢ, the answer is m where |Σ sign(xᵢ)| ≥ θ and -m elsewhere, each coordinate by
    itself.
    Cost: O(nd), the data is read twice.
    Breakdown point: none for the size of a step, which is the mean's: one attacker can make it as long as it likes,
    wherever θ or more others agree. As to its direction, with θ = 2f + 1 no f attackers decide the sign of the vote in
    a coordinate that is not turned round. The server's weights enter the mean and not the vote: where weights are
    claims, one client can be the whole step where its signs win.
    Assumes: that a backdoor lives in coordinates on which the honest clients do not agree; honest data similar enough
    that they agree elsewhere; bounded norms (the released code can clip them: put a clipping pre-aggregator before it).
    Fails when: honest clients disagree, because their data differ, or because training has settled and their updates
    are noise: then every such coordinate goes uphill; attackers copy the honest signs and lie about sizes.
    Source: Ozdayi, Kantarcioglu and Gel, "Defending against Backdoors in Federated Learning with Robust Learning Rate",
    AAAI 2021, https://arxiv.org/abs/2007.03767 (over their federated averaging)
    Departs: without `threshold` θ = 2f + 1, and without assumed attackers no coordinate is turned round; the paper sets
    θ by hand (4 of 10 clients and 8 of 40 in its released experiments, with 1 and 4 attackers). The paper's optional
    noise is left out. The mean carries the server's weights, the votes do not, as in the paper.

    Attributes:
        assumed_fraction: what the server believes the fraction of malicious clients to be; f = ⌊εn⌋, θ = 2f + 1. Give
            either this or `threshold`.
        threshold: θ, by how many clients one sign must outnumber the other.
    """

    assumed_fraction: AssumedFraction | None = None
    threshold: Count | None = None

    def __post_init__(self) -> None:
        """Refuse both or neither."""
        if (self.assumed_fraction is None) == (self.threshold is None):
            raise FieldError(
                "threshold",
                f"give either threshold or assumed_fraction, got threshold={self.threshold} and "
                f"assumed_fraction={self.assumed_fraction}",
            )

    def check_size(self, n: int) -> int:
        """The number f of n clients that are assumed malicious; that a given threshold θ withstands: ⌊(θ - 1)/2⌋.

        Raises:
            UnsuitableSizeError: n <= 2f, or n below the threshold: everything would be turned round.
        """
        if self.threshold is None:
            return require_majority("RobustLearningRate", self.assumed_fraction or 0.0, n)
        if n < self.threshold:
            raise UnsuitableSizeError(f"RobustLearningRate needs n >= threshold, got n={n}, threshold={self.threshold}")
        return (self.threshold - 1) // 2

    def __call__(
        self, updates: Points, weights: Weights | None = None, context: RoundContext | None = None
    ) -> Aggregate:
        """Aggregate `updates` `(n, d)` under `weights` `(n,)`; there are no shares and no scores.

        Raises:
            ValueError: updates or weights of the wrong shape, type or range; too few updates.
        """
        believed = checked(updates, weights, self)
        f = self.check_size(len(updates))
        threshold = self.threshold or (2 * f + 1 if f > 0 else 0)
        update = weighted_combination(updates, believed)
        num_flipped = 0
        for where, votes in sign_votes(updates):
            undecided = votes.abs_() < threshold
            update[where] *= torch.where(undecided, -1.0, 1.0).to(update)
            num_flipped += int(undecided.sum())
        return Aggregate(
            update=update,
            diagnostics={"threshold": float(threshold), "flipped_fraction": num_flipped / len(update)},
        )
