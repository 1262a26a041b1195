"""ResNet-18 for small images.

K. He, X. Zhang, S. Ren, J. Sun, "Deep residual learning for image recognition", CVPR 2016,
https://arxiv.org/abs/1512.03385
Departs: a 3x3 stem without max-pooling and 1x1 projections where the size changes, as is usual for CIFAR; group
normalisation by default, because batch statistics of clients with different classes do not average well (K. Hsieh et
al., "The non-IID data quagmire of decentralized machine learning", ICML 2020, https://arxiv.org/abs/1910.00189).
"""

from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from fedrobust.config.component import Count, FieldError, component


@component
class ResNet18:
    """Four stages of two residual blocks, with 1, 2, 4 and 8 times `width` channels; halved in size between stages."""

    norm: Literal["group", "batch"] = "group"
    """Group normalisation, or batch normalisation, with which clients cannot be trained together."""
    width: Count = 64
    """Channels of the first stage."""
    num_groups: Count = 32
    """Groups of the group normalisation; must divide `width`. Batch normalisation does not read it."""

    has_convolutions: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.norm == "group" and self.width % self.num_groups:
            raise FieldError("num_groups", f"must divide width={self.width}, got {self.num_groups}")

    def build(self, input_shape: tuple[int, ...], num_classes: int) -> nn.Module:
        """A new model, with torch's default initialisation.

        Raises:
            ValueError: inputs that are not images (C, H, W) of at least 8x8.
        """
        if len(input_shape) != 3 or min(input_shape[1:]) < 8:
            raise ValueError(f"ResNet18 takes images (C, H, W) of at least 8x8, got {tuple(input_shape)}")
        layers: list[nn.Module] = [
            nn.Conv2d(input_shape[0], self.width, kernel_size=3, padding=1, bias=False),
            self._norm(self.width),
            nn.ReLU(),
        ]
        num_in = self.width
        for stage in range(4):
            num_out = self.width * 2**stage
            layers += [self._block(num_in, num_out, stride=2 if stage else 1), self._block(num_out, num_out, stride=1)]
            num_in = num_out
        return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(num_in, num_classes))

    def _block(self, num_in: int, num_out: int, stride: int) -> nn.Module:
        body = nn.Sequential(
            nn.Conv2d(num_in, num_out, kernel_size=3, stride=stride, padding=1, bias=False),
            self._norm(num_out),
            nn.ReLU(),
            nn.Conv2d(num_out, num_out, kernel_size=3, padding=1, bias=False),
            self._norm(num_out),
        )
        if stride == 1 and num_in == num_out:
            return _Residual(body, nn.Identity())
        projection = nn.Conv2d(num_in, num_out, kernel_size=1, stride=stride, bias=False)
        return _Residual(body, nn.Sequential(projection, self._norm(num_out)))

    def _norm(self, num_channels: int) -> nn.Module:
        return nn.GroupNorm(self.num_groups, num_channels) if self.norm == "group" else nn.BatchNorm2d(num_channels)


class _Residual(nn.Module):
    """ReLU(body(x) + shortcut(x))."""

    def __init__(self, body: nn.Module, shortcut: nn.Module) -> None:
        super().__init__()
        self.body = body
        self.shortcut = shortcut

    def forward(self, inputs: Tensor) -> Tensor:
        return torch.relu(self.body(inputs) + self.shortcut(inputs))
