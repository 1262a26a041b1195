"""Random crops and flips, drawn apart from being applied, so that one draw serves any device and any batching."""

import torch
from torch import Tensor
from torch.nn import functional

from fedrobust.config.component import Count, component


@component
class RandomCropFlip:
    """Pad an image with zeros, crop it back to its size at a random place, and mirror it left to right half the time.

    K. He, X. Zhang, S. Ren, J. Sun, "Deep residual learning for image recognition", CVPR 2016, section 4.2,
    https://arxiv.org/abs/1512.03385

    Departs: the padding is black (zero before normalisation), not the mean pixel.
    """

    padding: Count = 4
    """Pixels added on every side before the crop."""

    def draw(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Draw `(*shape, 3)` int64: flip in {0, 1}, then the crop's top and left corner in `0 .. 2 * padding`.

        The draws lie on the generator's device.
        """
        flips = torch.randint(2, (*shape, 1), generator=generator, device=generator.device)
        corners = torch.randint(2 * self.padding + 1, (*shape, 2), generator=generator, device=generator.device)
        return torch.cat([flips, corners], dim=-1)

    def apply(self, inputs: Tensor, draws: Tensor) -> Tensor:
        """Crop and flip `inputs` `(M, C, H, W)` as `draws` `(M, 3)` say; a new tensor of the same shape.

        Raises:
            ValueError: inputs that are not images, or not one draw an image.
        """
        if inputs.ndim != 4 or draws.shape != (inputs.shape[0], 3):
            raise ValueError(
                f"expected images (M, C, H, W) and draws (M, 3), got {tuple(inputs.shape)} and {tuple(draws.shape)}"
            )
        _, num_channels, height, width = inputs.shape
        flip, top, left = draws.to(inputs.device).unsqueeze(2).unbind(1)  # each (M, 1)
        rows = top + torch.arange(height, device=inputs.device)  # (M, H)
        columns = torch.arange(width, device=inputs.device)
        columns = left + torch.where(flip.bool(), columns.flip(0), columns)  # (M, W)
        padded = functional.pad(inputs, (self.padding,) * 4)
        images = torch.arange(inputs.shape[0], device=inputs.device)[:, None, None, None]
        channels = torch.arange(num_channels, device=inputs.device)[None, :, None, None]
        return padded[images, channels, rows[:, None, :, None], columns[:, None, None, :]]
