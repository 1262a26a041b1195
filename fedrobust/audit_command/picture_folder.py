"""Pictures in a folder, a subfolder for each class, as torchvision's `ImageFolder` reads them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from fedrobust.data.examples import Examples
from fedrobust.seeds import torch_generator

_DEEPEST = 65_535
_HIGHEST_LABEL = 100_000
"""Of a subfolder that is called by a label: above it, a number is a date, or somebody's id."""
_AS_SHOWN = 1
"""The EXIF orientation of a picture that is stored as it is shown."""


@dataclass(frozen=True, eq=False)
class PictureFolder:
    """What was read.

    Attributes:
        examples: raw pictures in [0, 1]. A class's label is the integer that its subfolder is called by, or its place
            among the classes that were named, or else in the alphabet of subfolders.
        class_names: of the labels, in their order.
        paths: of each picture.
    """

    examples: Examples
    class_names: tuple[str, ...]
    paths: tuple[Path, ...]


def read_picture_folder(
    folder: Path,
    input_shape: tuple[int, int, int],
    max_examples: int | None,
    seed: int,
    option: str = "--data",
    classes: Sequence[str] | None = None,
) -> PictureFolder:
    """Read the pictures below `folder`, scaled to `input_shape`.

    Args:
        folder: with a subfolder for each class.
        input_shape: (C, H, W); one channel reads them as grey, three as colours.
        max_examples: read a random choice of as many; `None` reads all.
        seed: of the choice.
        option: what the command line calls the folder, for messages.
        classes: the subfolders' names in the order of the labels; one that is missing has no pictures.

    Raises:
        ValueError: no such folder, no pictures in it, or one that cannot be read.
    """
    from torchvision.datasets import ImageFolder  # takes seconds to import

    if not folder.is_dir():
        raise ValueError(f"{option}: must be a folder with a subfolder of pictures for each class, got {str(folder)!r}")
    try:
        found = ImageFolder(str(folder), allow_empty=True)
    except FileNotFoundError as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{option}: must have a subfolder of pictures for each class ({reason})") from None
    chosen = torch.arange(len(found.samples))
    if max_examples is not None:
        chosen = torch.randperm(len(chosen), generator=torch_generator(seed, "pictures"))[:max_examples].sort().values
    if not len(chosen):
        raise ValueError(
            f"{option}: must have a subfolder of pictures for each class, and {str(folder)!r} has no picture"
        )
    names = _class_names(found.classes, classes, option)
    samples = [found.samples[index] for index in chosen.tolist()]
    pictures = torch.stack([_read(Path(path), input_shape, option) for path, _ in samples])
    labels = torch.tensor([names.index(found.classes[place]) for _, place in samples])
    return PictureFolder(Examples(pictures, labels), names, tuple(Path(path) for path, _ in samples))


def _class_names(found: Sequence[str], classes: Sequence[str] | None, option: str) -> tuple[str, ...]:
    """The name of each label, given the subfolders that there are."""
    if classes is not None:
        if strange := sorted(set(found) - set(classes)):
            raise ValueError(f"{option}: has subfolders that --classes does not name: {', '.join(strange)}")
        return tuple(classes)
    if not all(is_label(name) for name in found):
        return tuple(found)
    highest = max(map(int, found))
    if highest > _HIGHEST_LABEL:
        raise ValueError(f"{option}: subfolder {highest} is no label; --classes gives the names in their order")
    return tuple(str(label) for label in range(highest + 1))


def is_label(name: str) -> bool:
    """Whether a subfolder is called by the number of its label, as 7 and not as 07."""
    return name.isdecimal() and name == str(int(name))


def _read(path: Path, input_shape: tuple[int, int, int], option: str) -> torch.Tensor:
    channels, height, width = input_shape
    try:
        with Image.open(path) as file:
            if getattr(file, "n_frames", 1) > 1:
                raise ValueError(f"it has {file.n_frames} frames; a picture has one")  # type: ignore[attr-defined]
            turned = file.getexif().get(ExifTags.Base.Orientation, _AS_SHOWN) != _AS_SHOWN
            planes = _planes(ImageOps.exif_transpose(file) if turned else file, channels)
    except (UnidentifiedImageError, OSError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"{option}: cannot read {str(path)!r} ({' '.join(str(error).split())})") from None
    if planes[0].size != (width, height):
        planes = [plane.resize((width, height), Image.Resampling.BILINEAR) for plane in planes]
    pixels = np.stack([np.asarray(plane, dtype=np.float32) for plane in planes]) / 255
    return torch.from_numpy(pixels).expand(channels, -1, -1).contiguous()


def _planes(image: Image.Image, channels: int) -> list[Image.Image]:
    """The channels of a picture, of 8 bits or floats from 0 to 255; one for all if it is grey and of more bits.

    Raises:
        ValueError: it has more than pixels on a scale that is known.
    """
    mode = image.mode
    if mode.startswith("I"):  # 16 bits, which `convert` would cut at 255
        deep = np.asarray(image, dtype=np.float64)
        if deep.min() < 0 or deep.max() > _DEEPEST:
            raise ValueError(f"its numbers lie in {deep.min():g}..{deep.max():g}; pictures have 8 or 16 bits")
        if 0 < deep.max() < _DEEPEST / 8:
            raise ValueError(
                f"its numbers go up to {deep.max():g} of {_DEEPEST} in 16 bits: it holds fewer bits, or is nearly black"
            )
        return [Image.fromarray((deep * (255 / _DEEPEST)).astype(np.float32))]
    if mode == "F":
        raise ValueError("it holds floating point numbers, whose scale is not known; pictures have 8 or 16 bits")
    if "A" in image.getbands() or "transparency" in image.info:
        alpha = np.asarray(image.convert("RGBA").getchannel("A"))
        if alpha.min() < 255:
            raise ValueError("it is transparent in places, and what shows there is not known")
    return list(image.convert("L" if channels == 1 else "RGB").split())
