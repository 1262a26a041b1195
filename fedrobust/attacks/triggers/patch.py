"""Patches: pixels that are overwritten with one colour.

Gu, Dolan-Gavitt, Garg, "BadNets: Identifying Vulnerabilities in the Machine Learning Model Supply Chain", 2017,
https://arxiv.org/abs/1708.06733 (one pixel, four pixels, a square); PatchGrid: see there.
"""

from typing import ClassVar, TypeAlias

import torch
from torch import Tensor

from fedrobust.attacks.triggers.base import Trigger, picture_shape, rectangle
from fedrobust.config.component import Count, FieldError, Fraction, Index, component

Colour: TypeAlias = Fraction | list[Fraction]
"""One value for all channels, or one for each."""


@component
class Patch:
    """One rectangle of pixels, set to `value`."""

    is_synthetic: ClassVar[bool] = True

    height: Count = 3
    width: Count = 3
    top: Index = 0
    left: Index = 0
    value: Colour = 1.0

    def triggers(self, input_shape: tuple[int, ...]) -> tuple[Trigger, ...]:
        """The one trigger, checked to lie within the picture."""
        mask = rectangle(input_shape, self.top, self.left, self.height, self.width)
        return (Trigger.overlay(mask, _colour(self.value, input_shape)),)


@component
class Pixels:
    """Single pixels `[row, column]`, set to `value`; negative ones count from the bottom and from the right."""

    is_synthetic: ClassVar[bool] = True

    pixels: list[list[int]]
    value: Colour = 1.0

    def __post_init__(self) -> None:
        """Check that there are pixels, and that each has two coordinates."""
        if not self.pixels or any(len(pixel) != 2 for pixel in self.pixels):
            raise FieldError("pixels", f"must be a list of [row, column], at least one, got {self.pixels}")

    def triggers(self, input_shape: tuple[int, ...]) -> tuple[Trigger, ...]:
        """The one trigger, checked to lie within the picture."""
        _, rows, columns = picture_shape(input_shape)
        mask = torch.zeros(rows, columns, dtype=torch.bool)
        for row, column in self.pixels:
            if not (-rows <= row < rows and -columns <= column < columns):
                raise FieldError("trigger", f"must lie within the {rows}x{columns} picture, got pixel {[row, column]}")
            mask[row, column] = True
        return (Trigger.overlay(mask, _colour(self.value, input_shape)),)


@component
class PatchGrid:
    """Disjoint rectangles in two columns: the local triggers of a distributed backdoor.

    Patch i lies at row `top + (i // 2) (height + gap)` and column `left + (i % 2) (width + gap)`, as in the code of
    Xie et al., "DBA: Distributed Backdoor Attacks against Federated Learning", ICLR 2020,
    https://openreview.net/forum?id=rkgyS0VFvr
    """

    is_synthetic: ClassVar[bool] = True

    height: Count = 1
    width: Count = 4
    gap: Index = 2
    top: Index = 0
    left: Index = 0
    num_patches: Count = 4
    value: Colour = 1.0

    def triggers(self, input_shape: tuple[int, ...]) -> tuple[Trigger, ...]:
        """The local triggers, each checked to lie within the picture."""
        parts = []
        for index in range(self.num_patches):
            top = self.top + index // 2 * (self.height + self.gap)
            left = self.left + index % 2 * (self.width + self.gap)
            mask = rectangle(input_shape, top, left, self.height, self.width)
            parts.append(Trigger.overlay(mask, _colour(self.value, input_shape)))
        return tuple(parts)


def _colour(value: float | list[float], input_shape: tuple[int, ...]) -> Tensor:
    """The pattern `(1 or C, 1, 1)`."""
    values = value if isinstance(value, list) else [value]
    if len(values) not in (1, input_shape[0]):
        raise FieldError(
            "trigger.value", f"must be one number, or one for each of {input_shape[0]} channels, got {value}"
        )
    return torch.tensor(values, dtype=torch.float32).view(-1, 1, 1)
