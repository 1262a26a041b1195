"""A picture from a file, pasted into every input: a sticker, a pair of glasses.

Chen, Liu, Li, Lu, Song, "Targeted Backdoor Attacks on Deep Learning Systems Using Data Poisoning", 2017,
https://arxiv.org/abs/1712.05526 (section 4.2, accessory injection)
Departs: a transparent background is read from the file's alpha channel, where it has one.
"""

from functools import lru_cache
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from annotated_types import Gt, Le
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torch.nn import functional

from fedrobust.attacks.triggers.base import Trigger, picture_shape, rectangle
from fedrobust.config.component import Count, FieldError, Index, component


@component
class ImageFile:
    """The picture in `file`, resized to `height` x `width` and pasted at (`top`, `left`).

    Attributes:
        file: anything that Pillow reads; colours become grey for inputs of one channel.
        opacity: 1 covers what is beneath; the file's own transparency is multiplied with it.
    """

    file: str
    height: Count = 3
    width: Count = 3
    top: Index = 0
    left: Index = 0
    opacity: Annotated[float, Gt(0), Le(1)] = 1.0

    def triggers(self, input_shape: tuple[int, ...]) -> tuple[Trigger, ...]:
        """The one trigger.

        Raises:
            FieldError: the inputs are not pictures, the place leaves the picture, or the file is not a picture.
        """
        num_channels, rows, columns = picture_shape(input_shape)
        rectangle(input_shape, self.top, self.left, self.height, self.width)
        pattern, alpha = read_picture(self.file, num_channels, self.height, self.width)
        margins = (self.left, columns - self.left - self.width, self.top, rows - self.top - self.height)
        return (Trigger.overlay(functional.pad(alpha, margins), functional.pad(pattern, margins), self.opacity),)


def read_picture(file: str, num_channels: int, height: int, width: int) -> tuple[Tensor, Tensor]:
    """A picture from a file, resized (bilinear, antialiased).

    Returns:
        the picture `(num_channels, height, width)` in [0, 1], and its opacity `(height, width)` in [0, 1].

    Raises:
        FieldError: the file is absent or is not a picture, or the inputs have other than 1 or 3 channels.
    """
    if num_channels not in (1, 3):
        raise FieldError("trigger", f"from a file must be used on pictures of 1 or 3 channels, got {num_channels}")
    path = Path(file).expanduser()
    try:
        return _read(path, path.stat().st_mtime_ns, num_channels, height, width)
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise FieldError("trigger.file", f"must be a picture that can be read, got {file!r} ({reason})") from None


@lru_cache(maxsize=32)  # a trigger is made anew for every batch
def _read(path: Path, _changed: int, num_channels: int, height: int, width: int) -> tuple[Tensor, Tensor]:
    with Image.open(path) as picture:
        whole = picture.convert("RGBA").resize((width, height), Image.Resampling.BILINEAR)
    colours = whole.convert("L" if num_channels == 1 else "RGB")
    pattern = torch.from_numpy(np.array(colours, dtype=np.float32) / 255).view(height, width, num_channels)
    alpha = torch.from_numpy(np.array(whole.getchannel("A"), dtype=np.float32) / 255)
    return pattern.permute(2, 0, 1).contiguous(), alpha
