"""Multinomial logistic regression: one linear layer on the flattened input."""

import math
from typing import ClassVar

from torch import nn

from fedrobust.config.component import component


@component
class Logistic:
    """Multinomial logistic regression, the convex baseline."""

    has_convolutions: ClassVar[bool] = False

    def build(self, input_shape: tuple[int, ...], num_classes: int) -> nn.Module:
        """A new model for inputs of any shape, with torch's default initialisation."""
        return nn.Sequential(nn.Flatten(), nn.Linear(math.prod(input_shape), num_classes))
