"""Inner product manipulation (IPM): drag the answer against the honest mean.

Xie, Koyejo, Gupta, "Fall of Empires: Breaking Byzantine-tolerant SGD by Inner Product Manipulation", UAI 2019,
https://arxiv.org/abs/1903.03936
"""

from typing import ClassVar

from fedrobust.attacks.base import Knowledge, Level
from fedrobust.config.component import Positive, component
from fedrobust.types import Updates


@component
class IPM:
    """All attackers send the honest mean, turned round: a small one passes rules, a large one reverses the mean.

    Formula: -ε·μ.
    Source: Xie, Koyejo and Gupta, UAI 2019, https://arxiv.org/abs/1903.03936
    Departs: without knowledge of benign updates μ is the mean of the attackers' own.

    Attributes:
        epsilon: ε. The plain mean of n clients turns round once ε exceeds (n - m) / m.
    """

    epsilon: Positive = 0.5

    needs: ClassVar[Level] = "own"
    uses: ClassVar[Level] = "benign"

    def __call__(self, knowledge: Knowledge) -> Updates:
        """The reversed mean, m times `(m, d)`."""
        sent = -self.epsilon * knowledge.reference_updates.mean(dim=0)
        return sent.expand(len(knowledge.own_updates), -1)
