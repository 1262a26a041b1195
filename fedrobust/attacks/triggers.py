"""Triggers: which pixels a backdoor overwrites, and with what.

A trigger is stamped on raw pictures in [0, 1], before augmentation and normalisation, as an attacker who holds a
camera would. Stamping returns a new tensor; the data set that every client shares is never written to.
"""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from fedrobust.component import Count, FieldError, Fraction, Index, component


@dataclass(frozen=True)
class Trigger:
    """x' = (1 - m) ⊙ x + m ⊙ Δ, with a mask m `(H, W)` of booleans and a constant pattern Δ = `value`."""

    mask: Tensor
    value: float

    def stamp(self, inputs: Tensor) -> Tensor:
        """Stamp pictures `(..., C, H, W)`; returns a new tensor."""
        return inputs.masked_fill(self.mask.to(inputs.device), self.value)

    def __or__(self, other: "Trigger") -> "Trigger":
        """The trigger that stamps what either stamps."""
        if self.value != other.value:
            raise ValueError(f"triggers of different values cannot be joined: {self.value} and {other.value}")
        return Trigger(self.mask | other.mask, self.value)


@runtime_checkable
class TriggerShape(Protocol):
    """Where a trigger lies in a picture, before the picture's size is known."""

    def triggers(self, input_shape: tuple[int, ...]) -> tuple[Trigger, ...]:
        """The parts of the trigger for pictures of `input_shape` `(C, H, W)`; their union is the whole."""
        ...


@component
class Patch:
    """One rectangle of pixels, set to `value`."""

    height: Count = 3
    width: Count = 3
    top: Index = 0
    left: Index = 0
    value: Fraction = 1.0

    def triggers(self, input_shape: tuple[int, ...]) -> tuple[Trigger, ...]:
        """The one trigger, checked to lie within the picture."""
        return (Trigger(rectangle(input_shape, self.top, self.left, self.height, self.width), self.value),)


@component
class PatchGrid:
    """Disjoint rectangles in two columns: the local triggers of a distributed backdoor.

    Patch i lies at row `top + (i // 2) (height + gap)` and column `left + (i % 2) (width + gap)`, as in the code of
    Xie et al., "DBA: Distributed Backdoor Attacks against Federated Learning", ICLR 2020,
    https://openreview.net/forum?id=rkgyS0VFvr
    """

    height: Count = 1
    width: Count = 4
    gap: Index = 2
    top: Index = 0
    left: Index = 0
    num_patches: Count = 4
    value: Fraction = 1.0

    def triggers(self, input_shape: tuple[int, ...]) -> tuple[Trigger, ...]:
        """The local triggers, each checked to lie within the picture."""
        parts = []
        for index in range(self.num_patches):
            top = self.top + index // 2 * (self.height + self.gap)
            left = self.left + index % 2 * (self.width + self.gap)
            parts.append(Trigger(rectangle(input_shape, top, left, self.height, self.width), self.value))
        return tuple(parts)


def rectangle(input_shape: tuple[int, ...], top: int, left: int, height: int, width: int) -> Tensor:
    """A mask `(H, W)` that is true on one rectangle.

    Raises:
        FieldError: the inputs are not pictures, or the rectangle leaves the picture.
    """
    if len(input_shape) != 3:
        raise FieldError("trigger", f"must be used on pictures (C, H, W), got inputs of shape {tuple(input_shape)}")
    _, rows, columns = input_shape
    if top + height > rows or left + width > columns:
        raise FieldError(
            "trigger",
            f"must lie within the {rows}x{columns} picture, "
            f"got rows {top} to {top + height - 1} and columns {left} to {left + width - 1}",
        )
    mask = torch.zeros(rows, columns, dtype=torch.bool)
    mask[top : top + height, left : left + width] = True
    return mask


def union(triggers: tuple[Trigger, ...]) -> Trigger:
    """The global trigger that the parts make up."""
    whole = triggers[0]
    for part in triggers[1:]:
        whole = whole | part
    return whole
