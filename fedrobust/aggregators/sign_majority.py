"""signSGD with majority vote: every client has one vote on the direction of each parameter.

Bernstein, Zhao, Azizzadenesheli and Anandkumar, "signSGD with Majority Vote is Communication Efficient and Fault
Tolerant", ICLR 2019, https://arxiv.org/abs/1810.05291
"""

import torch

from fedrobust._linalg.columns import Points
from fedrobust._linalg.sign_votes import sign_votes
from fedrobust.aggregators.base import Aggregate, RoundContext, checked
from fedrobust.config.component import Positive, component
from fedrobust.types import Weights


@component
class SignMajority:
    """Step by the same amount in every coordinate, in the direction that most clients want.

    Formula: η·sign(Σ sign(xᵢ)), coordinate by coordinate; an exact zero votes for neither side, a tie does not move.
    Cost: O(nd), the data is read once.
    Breakdown point: 1/2 where the honest clients agree on a sign. No attacker can make the step longer than η in any
    coordinate, but a small minority decides the coordinates on which the honest are split. The server's weights are
    ignored, and with them what clients claim.
    Assumes: noise on an honest client's coordinate that is symmetric with one peak (the paper's assumption), so that
    each votes for the right sign more often than not; similar data at all clients.
    Fails when: clients hold different kinds of data, so that the majority's sign is not the mean's (of 1, 1 and -10 it
    takes the plus); η does not shrink as training settles, as the step never gets shorter by itself.
    Source: Bernstein, Zhao, Azizzadenesheli and Anandkumar, "signSGD with Majority Vote is Communication Efficient and
    Fault Tolerant", ICLR 2019, https://arxiv.org/abs/1810.05291
    Departs: votes are the signs of updates, which may come of several local steps, where the paper's clients send signs
    of stochastic gradients, or of their momentum. A tie leaves the parameter where it is. As in the paper every client
    has one vote: the server's weights are checked and ignored.

    Attributes:
        step_size: η, how far every parameter moves, before the server's learning rate.
    """

    step_size: Positive = 0.001

    def __call__(
        self, updates: Points, weights: Weights | None = None, context: RoundContext | None = None
    ) -> Aggregate:
        """Aggregate `updates` `(n, d)`; `weights` `(n,)` are checked and ignored, there are no shares and no scores.

        Raises:
            ValueError: updates or weights of the wrong shape, type or range.
        """
        checked(updates, weights, self)
        update = torch.empty(updates.shape[1], dtype=updates.dtype, device=updates.device)
        num_ties = 0
        for where, votes in sign_votes(updates):
            num_ties += len(votes) - int(votes.count_nonzero())
            update[where] = votes.sign_().mul_(self.step_size)
        return Aggregate(update=update, diagnostics={"tied_fraction": num_ties / len(update)})
