"""The small convolutional network of the DBA paper, for 28x28 grey images.

C. Xie, K. Huang, P.-Y. Chen, B. Li, "DBA: Distributed backdoor attacks against federated learning", ICLR 2020,
https://openreview.net/forum?id=rkgyS0VFvr; its code, https://github.com/AI-secure/DBA
Departs: logits instead of log-probabilities; pooling before ReLU, which is the same function at a quarter of the cost.
"""

from typing import ClassVar

from torch import nn

from fedrobust.config.component import component


@component
class DBACNN:
    """Two 5x5 convolutions (20 and 50 channels), each pooled 2x2, then 500 hidden units: 431,080 parameters."""

    has_convolutions: ClassVar[bool] = True

    def build(self, input_shape: tuple[int, ...], num_classes: int) -> nn.Module:
        """A new model, with torch's default initialisation as in the paper's code.

        Raises:
            ValueError: inputs of another shape than (1, 28, 28).
        """
        if tuple(input_shape) != (1, 28, 28):
            raise ValueError(f"DBACNN takes inputs of shape (1, 28, 28), got {tuple(input_shape)}")
        return nn.Sequential(
            nn.Conv2d(1, 20, kernel_size=5),  # 28 -> 24
            nn.MaxPool2d(2),
            nn.ReLU(),
            nn.Conv2d(20, 50, kernel_size=5),  # 12 -> 8
            nn.MaxPool2d(2),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(50 * 4 * 4, 500),
            nn.ReLU(),
            nn.Linear(500, num_classes),
        )
