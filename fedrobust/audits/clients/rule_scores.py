"""How suspicious the server's own rule finds each client, on a scale that is the same in every round.

Conover and Iman, "Rank Transformations as a Bridge Between Parametric and Nonparametric Statistics", The American
Statistician 1981, https://doi.org/10.1080/00031305.1981.10479327
Departs: nothing. Scores themselves have another scale in every round and under every rule, so ranks are averaged.
"""

import torch
from scipy.stats import rankdata
from torch import Tensor

from fedrobust.aggregators.base import Aggregate
from fedrobust.config.component import component
from fedrobust.types import Updates


@component
class RuleScores:
    """Rank clients by the scores of the server's own rule: (rank - 1/2) / n among n; equal scores share a rank.

    So a benign client among benign ones has 1/2 in the mean over rounds. A rule without scores is read by its shares:
    who is left out has a higher rank than who is kept. With only one client there is nothing to compare: 1/2.
    """

    def suspicion(self, updates: Updates, aggregate: Aggregate) -> Tensor:
        """As `ClientAudit.suspicion`.

        Raises:
            ValueError: the rule gives neither scores nor shares.
        """
        if aggregate.scores is not None:
            scores = aggregate.scores.double().cpu()
        elif aggregate.shares is not None:
            scores = (aggregate.shares <= 0).double().cpu()
        else:
            raise ValueError("RuleScores reads the rule's scores or shares, and a coordinate-wise rule gives neither")
        return (torch.from_numpy(rankdata(scores.numpy())) - 0.5) / len(scores)
