"""Gaussian noise in place of an update.

Blanchard, El Mhamdi, Guerraoui, Stainer, "Machine Learning with Adversaries: Byzantine Tolerant Gradient Descent",
NeurIPS 2017, https://arxiv.org/abs/1703.02757
"""

from typing import ClassVar

import torch

from fedrobust._linalg.gaussian_noise import add_gaussian_noise
from fedrobust.attacks.base import Knowledge, Level
from fedrobust.config.component import Positive, component
from fedrobust.types import Updates


@component
class Gaussian:
    """Every attacker draws its update anew, from N(0, σ²) in each coordinate.

    Formula: xₖ ~ N(0, σ²I).
    Source: Blanchard, El Mhamdi, Guerraoui and Stainer, NeurIPS 2017, https://arxiv.org/abs/1703.02757
    Departs: nothing; the paper's experiments use σ = 200.

    Attributes:
        std: σ, in the units of an update's coordinate.
    """

    std: Positive = 1.0

    needs: ClassVar[Level] = "own"
    uses: ClassVar[Level] = "own"

    def __call__(self, knowledge: Knowledge) -> Updates:
        """The noise `(m, d)`, the same on every device."""
        noise = torch.zeros_like(knowledge.own_updates)
        for row in noise:
            add_gaussian_noise(row, self.std, knowledge.generator)
        return noise
