"""Model replacement: scale the poisoned update so that the new global model is the attacker's.

Bagdasaryan, Veit, Hua, Estrin, Shmatikov, "How To Backdoor Federated Learning", AISTATS 2020,
https://arxiv.org/abs/1807.00459
Departs: the paper assumes equal weights, s = n/η; here s follows from the weight that the server really gives.
"""

from typing import ClassVar, Literal

from fedrobust.attacks.base import Knowledge, Level
from fedrobust.config.component import Positive, component
from fedrobust.types import Updates


@component
class ModelReplacement:
    """Attacker k of m sends s_k (X - G), with s_k = 1 / (η m w_k): together they put G' at (the mean of their) X.

    Attributes:
        scale_factor: `auto` for s_k above, or one factor for all (the DBA paper's single shots use 100).
        max_norm: train-and-scale: no update is scaled beyond this Euclidean norm, to pass a norm bound.
    """

    scale_factor: Positive | Literal["auto"] = "auto"
    max_norm: Positive | None = None

    needs: ClassVar[Level] = "own"
    uses: ClassVar[Level] = "own"

    def __call__(self, knowledge: Knowledge) -> Updates:
        """The scaled updates `(m, d)`; buffers are never scaled."""
        updates = knowledge.own_updates
        if self.scale_factor == "auto":
            shared = knowledge.own_weights * len(updates) * knowledge.server_learning_rate
            factors = (1 / shared).to(updates)
        else:
            factors = updates.new_full((len(updates),), self.scale_factor)
        if self.max_norm is not None:
            factors = factors.minimum(self.max_norm / updates.norm(dim=1).clamp_min(1e-30))
        return updates * factors.unsqueeze(1)
