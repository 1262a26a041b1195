"""What a frequency detector is trained to tell from clean pictures: perturbations that no attack in particular makes.

Zeng, Park, Mao, Jia, "Rethinking the Backdoor Attacks' Triggers: A Frequency Perspective", ICCV 2021,
https://arxiv.org/abs/2104.03413 (section 4) and its code, https://github.com/YiZeng623/frequency-backdoor
Departs: the shadow is a half-plane, darkened, where the code has a random polygon; patches lie anywhere along an edge
as well as in the corners, at the distances from it that the code uses.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

_PATCH_SIDES = (2, 7)
"""The least and the largest side of a patch on pictures of 32 x 32, in pixels; larger pictures get larger ones."""

_MAX_MARGIN = 5
"""Between a patch and the nearest edges, likewise."""

_NOISE_MEAN, _NOISE_VARIANCE = 25.0, (10.0, 70.0)
"""Of additive noise, in grey levels of 0 to 255."""

_BLENDED = 0.3
"""How much of another picture is added."""


def perturb(pictures: Tensor, generator: torch.Generator) -> Tensor:
    """One perturbation on each of the pictures `(N, C, H, W)`, in [0, 1], of the five kinds; a new tensor."""
    kinds = torch.randint(len(_KINDS), (len(pictures),), generator=generator)
    perturbed = pictures.clone()
    for kind, make in enumerate(_KINDS):
        rows = (kinds == kind).nonzero().squeeze(1)
        if len(rows):
            perturbed[rows] = make(pictures[rows], pictures, generator).clamp(0, 1)
    return perturbed


def white_patch(pictures: Tensor, others: Tensor, generator: torch.Generator) -> Tensor:
    """A white rectangle near a corner."""
    return torch.where(_patches(pictures, generator), torch.ones_like(pictures), pictures)


def random_patch(pictures: Tensor, others: Tensor, generator: torch.Generator) -> Tensor:
    """A rectangle of random colours near a corner."""
    colours = torch.rand(pictures.shape, generator=generator)
    return torch.where(_patches(pictures, generator), colours, pictures)


def noise(pictures: Tensor, others: Tensor, generator: torch.Generator) -> Tensor:
    """Brighter, with Gaussian noise in every pixel."""
    variances = torch.empty(len(pictures), 1, 1, 1).uniform_(*_NOISE_VARIANCE, generator=generator)
    drawn = torch.randn(pictures.shape, generator=generator) * variances.sqrt() + _NOISE_MEAN
    return pictures + drawn / 255


def shadow(pictures: Tensor, others: Tensor, generator: torch.Generator) -> Tensor:
    """A half-plane at half the brightness: of random direction, through a random point of the middle half."""
    n, _, height, width = pictures.shape
    angles = 2 * math.pi * torch.rand(n, 1, 1, generator=generator)
    at = 0.25 + 0.5 * torch.rand(2, n, 1, 1, generator=generator)
    rows, columns = torch.arange(height).view(1, -1, 1) / height, torch.arange(width).view(1, 1, -1) / width
    is_dark = (rows - at[0]) * angles.sin() + (columns - at[1]) * angles.cos() > 0
    return torch.where(is_dark.unsqueeze(1), 0.5 * pictures, pictures)


def blend(pictures: Tensor, others: Tensor, generator: torch.Generator) -> Tensor:
    """0.3 of another picture added."""
    drawn = torch.randint(len(others), (len(pictures),), generator=generator)
    return pictures + _BLENDED * others[drawn]


_KINDS: tuple[Callable[[Tensor, Tensor, torch.Generator], Tensor], ...] = (
    white_patch,
    random_patch,
    noise,
    shadow,
    blend,
)


def _patches(pictures: Tensor, generator: torch.Generator) -> Tensor:
    """One rectangle a picture, `(N, 1, H, W)` booleans."""
    n, _, height, width = pictures.shape
    within = []
    for side in (height, width):
        scale = side / 32
        least, largest = (max(1, min(side, round(scale * one))) for one in _PATCH_SIDES)
        lengths = torch.randint(least, largest + 1, (n, 1), generator=generator)
        margins = torch.randint(0, round(scale * _MAX_MARGIN) + 1, (n, 1), generator=generator)
        starts = torch.minimum(margins, side - lengths)
        from_end = torch.rand(n, 1, generator=generator) < 0.5
        starts = torch.where(from_end, side - lengths - starts, starts)
        position = torch.arange(side).view(1, -1)
        within.append((position >= starts) & (position < starts + lengths))
    return (within[0].unsqueeze(2) & within[1].unsqueeze(1)).unsqueeze(1)
