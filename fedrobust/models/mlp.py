"""A multilayer perceptron on the flattened input."""

import math
from itertools import pairwise
from typing import ClassVar

from torch import nn

from fedrobust.config.component import Count, component


@component
class MLP:
    """A multilayer perceptron with ReLU between its linear layers."""

    hidden_sizes: tuple[Count, ...] | list[Count] = (128, 64)
    """Units of each hidden layer, from the input on; none makes it logistic regression."""

    has_convolutions: ClassVar[bool] = False

    def build(self, input_shape: tuple[int, ...], num_classes: int) -> nn.Module:
        """A new model for inputs of any shape, with torch's default initialisation."""
        sizes = [math.prod(input_shape), *self.hidden_sizes]
        hidden = [layer for sizes_in_out in pairwise(sizes) for layer in (nn.Linear(*sizes_in_out), nn.ReLU())]
        return nn.Sequential(nn.Flatten(), *hidden, nn.Linear(sizes[-1], num_classes))
