"""Blend: mix every picture with one fixed picture, faintly.

Chen, Liu, Li, Lu, Song, "Targeted Backdoor Attacks on Deep Learning Systems Using Data Poisoning", 2017,
https://arxiv.org/abs/1712.05526 (section 4.2, blended injection)
Departs: one opacity for poisoning and for testing; the paper also poisons faintly and tests strongly.
"""

from typing import Annotated

import torch
from annotated_types import Gt, Le

from fedrobust.attacks.triggers.base import Trigger, picture_shape
from fedrobust.attacks.triggers.image_file import read_picture
from fedrobust.config.component import Index, component
from fedrobust.seeds import torch_generator


@component
class Blend:
    """x' = (1 - opacity) x + opacity Δ, with Δ noise or a picture.

    Attributes:
        opacity: α of the paper, in (0, 1]; the paper uses 0.02 to 0.2.
        file: a picture, resized to the whole of the inputs; `None` for uniform noise.
        seed: of the noise: all attackers blend in the same, and so does the test.
    """

    opacity: Annotated[float, Gt(0), Le(1)] = 0.2
    file: str | None = None
    seed: Index = 0

    def triggers(self, input_shape: tuple[int, ...]) -> tuple[Trigger, ...]:
        """The one trigger, as large as the picture.

        Raises:
            FieldError: the inputs are not pictures, or the file is not one.
        """
        shape = picture_shape(input_shape)
        whole = torch.ones(shape[1:], dtype=torch.bool)
        if self.file is not None:
            pattern, alpha = read_picture(self.file, shape[0], shape[1], shape[2])
            return (Trigger.overlay(alpha, pattern, self.opacity),)
        noise = torch.rand(shape, generator=torch_generator(self.seed, "blend"))
        return (Trigger.overlay(whole, noise, self.opacity),)
