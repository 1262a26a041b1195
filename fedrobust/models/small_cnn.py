"""A small convolutional network for images of any size: a 3x3 convolution and a pooling a stage, then one hidden layer.

In the manner of Y. LeCun, L. Bottou, Y. Bengio, P. Haffner, "Gradient-based learning applied to document recognition",
Proc. IEEE 86(11), 1998
Departs: 3x3 filters with padding, ReLU, max-pooling.
"""

from itertools import pairwise
from typing import ClassVar

from torch import nn

from fedrobust.config.component import Count, component


@component
class SmallCNN:
    """Convolutions that each halve the image, then a hidden layer; 272,907 parameters for 3x32x32 in 43 classes."""

    channels: tuple[Count, ...] | list[Count] = (16, 32)
    """Channels of each stage."""
    hidden_size: Count = 128
    """Units of the hidden layer: the penultimate features."""

    has_convolutions: ClassVar[bool] = True

    def build(self, input_shape: tuple[int, ...], num_classes: int) -> nn.Module:
        """A new model, with torch's default initialisation.

        Raises:
            ValueError: inputs that are not images, or too small to be halved by every stage.
        """
        smallest = 2 ** len(self.channels)
        if len(input_shape) != 3 or min(input_shape[1:]) < smallest:
            raise ValueError(
                f"SmallCNN of {len(self.channels)} stages takes images (C, H, W) of at least {smallest}x{smallest}, "
                f"got {tuple(input_shape)}"
            )
        layers: list[nn.Module] = []
        for num_in, num_out in pairwise([input_shape[0], *self.channels]):
            layers += [nn.Conv2d(num_in, num_out, kernel_size=3, padding=1), nn.MaxPool2d(2), nn.ReLU()]
        height, width = (side // smallest for side in input_shape[1:])
        num_features = height * width * ([input_shape[0], *self.channels][-1])
        return nn.Sequential(
            *layers, nn.Flatten(), nn.Linear(num_features, self.hidden_size), nn.ReLU(),
            nn.Linear(self.hidden_size, num_classes),
        )  # fmt: skip
