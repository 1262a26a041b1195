"""Sinusoid: a faint wave laid over the whole picture (the signal of SIG).

Barni, Kallas, Tondi, "A New Backdoor Attack in CNNs by Training Set Corruption Without Label Poisoning", ICIP 2019,
https://arxiv.org/abs/1902.11237
Departs: nothing in the signal; the paper's poisoning, which leaves labels alone, is `CleanLabelBackdoor`.
"""

import math
from typing import Annotated

import torch
from annotated_types import Gt, Le

from fedrobust.attacks.triggers.base import Trigger, picture_shape
from fedrobust.config.component import Positive, component


@component
class Sinusoid:
    """x'(i, j) = x(i, j) + amplitude · sin(2π j frequency / W), columns j = 1 .. W, clipped to [0, 1].

    Attributes:
        amplitude: Δ of the paper, of a pixel's range of 1; the paper's 20 of 255 is 0.08.
        frequency: f, waves over the width of the picture; above W / 2 it is seen as a lower one.
    """

    amplitude: Annotated[float, Gt(0), Le(1)] = 0.08
    frequency: Positive = 6.0

    def triggers(self, input_shape: tuple[int, ...]) -> tuple[Trigger, ...]:
        """The one trigger, the same in every row and channel.

        Raises:
            FieldError: the inputs are not pictures.
        """
        _, rows, columns = picture_shape(input_shape)
        j = torch.arange(1, columns + 1, dtype=torch.float64)
        wave = self.amplitude * torch.sin(2 * math.pi * self.frequency * j / columns)
        add = wave.float().expand(1, rows, columns)
        return (Trigger(torch.ones_like(add), add),)
