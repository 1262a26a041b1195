"""Projected gradient descent (PGD): a poisoned update that keeps within a norm, to pass a norm bound.

Sun, Kairouz, Suresh, McMahan, "Can You Really Backdoor Federated Learning?", 2019, https://arxiv.org/abs/1911.07963;
Wang, Sreenivasan, Rajput, Vishwakarma, Agarwal, Sohn, Lee, Papailiopoulos, "Attack of the Tails: Yes, You Really Can
Backdoor Federated Learning", NeurIPS 2020, https://arxiv.org/abs/2007.05084
"""

from typing import Literal

from fedrobust.attacks.base import Knowledge, Level
from fedrobust.attacks.update.model_replacement import ModelReplacement
from fedrobust.config.component import Positive, component
from fedrobust.types import Updates


@component
class ProjectedGradient:
    """Every attacker scales its update and projects it onto the ball of a given norm.

    Formula: min(1, R/‖s·xₖ‖)·s·xₖ.
    Source: Wang et al., NeurIPS 2020, https://arxiv.org/abs/2007.05084, and Sun et al., 2019,
        https://arxiv.org/abs/1911.07963
    Departs: Wang et al. project during local training, too; here the trained update is projected once, as Sun et al.
        do. Without a norm R is the mean norm of the benign updates.

    Attributes:
        scale_factor: s; `auto` for model replacement's.
        max_norm: R, Euclidean; `None` for the mean benign norm, which attackers must then know.
    """

    scale_factor: Positive | Literal["auto"] = 1.0
    max_norm: Positive | None = None

    @property
    def needs(self) -> Level:
        """With a norm of their own attackers need to know nothing else."""
        return "own" if self.max_norm is not None else "benign"

    @property
    def uses(self) -> Level:
        """What it needs."""
        return self.needs

    def __call__(self, knowledge: Knowledge) -> Updates:
        """The projected updates `(m, d)`."""
        bound = self.max_norm
        if bound is None:
            bound = max(1e-30, float(knowledge.reference_updates.norm(dim=1).mean()))
        return ModelReplacement(scale_factor=self.scale_factor, max_norm=bound)(knowledge)
