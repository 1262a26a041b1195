"""Zero: hand the global model back untrained, as a free-rider does.

Fraboni, Vidal, Lorenzi, "Free-rider Attacks on Model Aggregation in Federated Learning", AISTATS 2021,
https://arxiv.org/abs/2006.11901
"""

from typing import ClassVar

import torch

from fedrobust.attacks.base import Knowledge, Level
from fedrobust.config.component import component
from fedrobust.types import Updates


@component
class Zero:
    """Every attacker sends an update of zeros: the mean shrinks, and clients that differ count for less.

    Formula: xₖ = 0.
    Source: Fraboni, Vidal and Lorenzi, AISTATS 2021, https://arxiv.org/abs/2006.11901 (plain free-riding)
    Departs: nothing; the paper's disguised free-riders add noise to it (see Gaussian).
    """

    needs: ClassVar[Level] = "own"
    uses: ClassVar[Level] = "own"

    def __call__(self, knowledge: Knowledge) -> Updates:
        """Zeros `(m, d)`."""
        return torch.zeros_like(knowledge.own_updates)
