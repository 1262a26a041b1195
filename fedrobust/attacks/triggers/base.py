"""What a trigger is: an affine map of every pixel, stamped on raw pictures.

A trigger is stamped on raw pictures in [0, 1], before augmentation and normalisation, as an attacker who holds a
camera would. Stamping returns a new tensor; the data set that every client shares is never written to.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from operator import or_
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from fedrobust.config.component import FieldError


class Stamp(Protocol):
    """Whatever an attacker does to inputs to make the model go wrong."""

    def stamp(self, inputs: Tensor) -> Tensor:
        """The inputs `(..., *input_shape)` as the attacker shows them; a new tensor, same type and device."""
        ...


@dataclass(frozen=True, eq=False)
class Trigger:
    """x' = keep ⊙ x + add, clipped to [0, 1].

    A mask m and a pattern Δ stamped with opacity γ have keep = 1 - γm and add = γm ⊙ Δ (`overlay`); a signal v that is
    added has keep = 1 and add = v.

    Attributes:
        keep: `(1, H, W)` or `(C, H, W)`, how much of a pixel is left, in [0, 1].
        add: likewise, what is added to it.
    """

    keep: Tensor
    add: Tensor

    @classmethod
    def overlay(cls, mask: Tensor, pattern: Tensor, opacity: float = 1.0) -> "Trigger":
        """The trigger of a mask `(H, W)` of booleans (or opacities), a pattern `(C, H, W)` and an opacity."""
        covered = opacity * mask.to(pattern.dtype).expand(1, *mask.shape)
        return cls(1.0 - covered, covered * pattern)

    @property
    def mask(self) -> Tensor:
        """`(H, W)` booleans: the pixels that the trigger may change."""
        return ((self.keep != 1.0) | (self.add != 0.0)).any(dim=0)

    def stamp(self, inputs: Tensor) -> Tensor:
        """Stamp pictures `(..., C, H, W)`; returns a new tensor."""
        return torch.addcmul(self.add.to(inputs), self.keep.to(inputs), inputs).clamp(0.0, 1.0)

    def __or__(self, other: "Trigger") -> "Trigger":
        """The trigger that stamps `other` on what this one has stamped; where they are disjoint, order is irrelevant.

        Clipping comes after both.
        """
        return Trigger(other.keep * self.keep, other.keep * self.add + other.add)


@runtime_checkable
class TriggerShape(Protocol):
    """What a trigger looks like and where it lies in a picture, before the picture's size is known.

    One that sets some pixels to colours of its own and leaves all others as they were declares `is_synthetic = True`: a
    model that never saw it has little reason to go wrong by it. Where nothing is declared, only a benign twin can tell.
    """

    def triggers(self, input_shape: tuple[int, ...]) -> tuple[Trigger, ...]:
        """The parts of the trigger for pictures of `input_shape` `(C, H, W)`; their union is the whole."""
        ...


def is_synthetic(shape: TriggerShape) -> bool:
    """Whether `shape` declares that its trigger sets some pixels and leaves all others as they were.

    Raises:
        FieldError: it declares something else than true or false.
    """
    return declared(shape, "is_synthetic", "trigger")


def declared(component: object, trait: str, field: str = "") -> bool:
    """What `component`, which `field` holds, declares as its `trait`; false where it declares nothing.

    Raises:
        FieldError: something else than true or false.
    """
    value = getattr(component, trait, False)
    if not isinstance(value, bool):
        name = f"{field}.{trait}" if field else trait
        raise FieldError(name, f"must be true or false, got {value!r} of {type(component).__name__}")
    return value


def union(triggers: Sequence[Trigger]) -> Trigger:
    """The global trigger that the parts make up."""
    return reduce(or_, triggers)


def check_disjoint(triggers: Sequence[Trigger]) -> None:
    """Check that no pixel belongs to two triggers.

    Raises:
        FieldError: some do.
    """
    covered = torch.stack([trigger.mask for trigger in triggers]).sum(dim=0)
    if bool((covered > 1).any()):
        raise FieldError("trigger", f"must have disjoint parts, got {int((covered > 1).sum())} pixels in several")


def picture_shape(input_shape: tuple[int, ...]) -> tuple[int, int, int]:
    """(C, H, W).

    Raises:
        FieldError: the inputs are not pictures.
    """
    if len(input_shape) != 3:
        raise FieldError("trigger", f"must be used on pictures (C, H, W), got inputs of shape {tuple(input_shape)}")
    num_channels, height, width = input_shape
    return num_channels, height, width


def rectangle(input_shape: tuple[int, ...], top: int, left: int, height: int, width: int) -> Tensor:
    """A mask `(H, W)` that is true on one rectangle.

    Raises:
        FieldError: the inputs are not pictures, or the rectangle leaves the picture.
    """
    _, rows, columns = picture_shape(input_shape)
    if top + height > rows or left + width > columns:
        raise FieldError(
            "trigger",
            f"must lie within the {rows}x{columns} picture, "
            f"got rows {top} to {top + height - 1} and columns {left} to {left + width - 1}",
        )
    mask = torch.zeros(rows, columns, dtype=torch.bool)
    mask[top : top + height, left : left + width] = True
    return mask
