"""Scalers: how large pictures are made as small as a model takes them.

Each is a function of a library, as it is called in practice: OpenCV and Pillow scale bytes, torchvision and
`torch.nn.functional.interpolate` scale floating-point tensors. Those that look at every pixel antialias: `area`, `box`,
and all of Pillow's but nearest, whose kernels grow with the ratio. The others read a few pixels and skip the rest.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from fedrobust.config.component import FieldError

ScalerName: TypeAlias = Literal[
    "opencv_nearest",
    "opencv_linear",
    "opencv_cubic",
    "opencv_area",
    "pillow_nearest",
    "pillow_box",
    "pillow_bilinear",
    "pillow_bicubic",
    "pillow_lanczos",
    "torchvision_bilinear",
    "torchvision_bilinear_plain",
    "interpolate_nearest",
    "interpolate_bilinear",
    "interpolate_bicubic",
    "interpolate_area",
    "interpolate_bilinear_antialias",
]
"""`torchvision_bilinear` antialiases, as by default; `_plain` does not. `interpolate_bilinear` does not, by default."""

SCALERS: tuple[ScalerName, ...] = get_args(ScalerName)

Plane: TypeAlias = npt.NDArray[np.float64]
_Bytes: TypeAlias = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Scaler:
    """One library's function, to one size.

    Attributes:
        name: which.
        size: height and width of what comes out.
    """

    name: ScalerName
    size: tuple[int, int]

    def __call__(self, pictures: Tensor) -> Tensor:
        """Scale pictures `(N, C, H, W)` in [0, 1]; bytes are rounded where the library scales bytes.

        Raises:
            ValueError: a gradient is asked of a library that has none.
        """
        if self.scales_bytes:
            if pictures.requires_grad:
                raise ValueError(f"{self.name} has no gradient; torchvision_* and interpolate_* have")
            pixels = to_bytes(pictures)
            scaled = np.stack([_scale_plane(self.name, one, self.size) for one in pixels])
            return torch.from_numpy(scaled).to(pictures).div_(255).permute(0, 3, 1, 2).contiguous()
        return _scale_tensor(self.name, pictures, self.size)

    @property
    def scales_bytes(self) -> bool:
        """Whether bytes come out, rounded and kept in range."""
        return self.name.startswith(("opencv", "pillow"))

    def matrices(self, height: int, width: int) -> tuple[Plane, Plane]:
        """C_L `(h, height)` and C_R `(width, w)`: scaling a picture X gives C_L X C_R.

        They are what the library itself makes of 255 I, in floating point, with sums of one. Of bytes, it would round
        small weights away and cut negative ones off.
        """
        return _weights(self.name, height, self.size[0]), _weights(self.name, width, self.size[1]).T


def to_bytes(pictures: Tensor) -> _Bytes:
    """Pictures `(N, C, H, W)` in [0, 1] as bytes `(N, H, W, C)`."""
    return pictures.detach().mul(255).round().clamp(0, 255).to("cpu", torch.uint8).permute(0, 2, 3, 1).numpy()


@cache
def _weights(name: ScalerName, large: int, small: int) -> Plane:
    identity = 255 * np.eye(large, dtype=np.float32)
    if name.startswith(("opencv", "pillow")):
        scaled = _scale_plane(name, identity, (small, large))
    else:
        scaled = _scale_tensor(name, torch.from_numpy(identity)[None, None], (small, large))[0, 0].numpy()
    weights = scaled.astype(np.float64)
    weights /= weights.sum(axis=1, keepdims=True)
    weights.flags.writeable = False  # it is kept
    return weights


def _scale_plane(name: ScalerName, pixels: npt.NDArray[Any], size: tuple[int, int]) -> npt.NDArray[Any]:
    """Pixels `(H, W)` or `(H, W, C)`, uint8 or (without channels) float32, by OpenCV or Pillow."""
    library, _, kind = name.partition("_")
    if library == "opencv":
        resize, flags = _opencv()
        scaled = resize(np.ascontiguousarray(pixels), (size[1], size[0]), interpolation=flags[kind])
        return scaled.reshape(*size, *pixels.shape[2:])  # OpenCV drops a single channel
    picture = Image.fromarray(pixels.squeeze(2) if pixels.ndim == 3 and pixels.shape[2] == 1 else pixels)
    scaled = np.array(picture.resize((size[1], size[0]), Image.Resampling[kind.upper()]))
    return scaled.reshape(*size, *pixels.shape[2:])


def _scale_tensor(name: ScalerName, pictures: Tensor, size: tuple[int, int]) -> Tensor:
    library, _, kind = name.partition("_")
    if library == "torchvision":
        from torchvision.transforms.v2 import functional as transforms  # takes seconds to import

        scaled: Tensor = transforms.resize(pictures, list(size), antialias=kind == "bilinear")
        return scaled
    mode, antialias = kind.removesuffix("_antialias"), kind.endswith("_antialias")
    return functional.interpolate(pictures, size=size, mode=mode, antialias=antialias)


def check_scaler(name: ScalerName) -> None:
    """Check that its library is there.

    Raises:
        FieldError: it is not.
    """
    if name.startswith("opencv"):
        _opencv()


def _opencv() -> tuple[Callable[..., npt.NDArray[Any]], dict[str, int]]:
    try:
        import cv2
    except ModuleNotFoundError as error:
        raise FieldError("scaler", 'needs OpenCV: pip install "fedrobust[scaling]"') from error
    flags = {
        "nearest": cv2.INTER_NEAREST,
        "linear": cv2.INTER_LINEAR,
        "cubic": cv2.INTER_CUBIC,
        "area": cv2.INTER_AREA,
    }
    return cv2.resize, flags
