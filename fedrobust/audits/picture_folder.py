"""Pictures in a folder, a subfolder for each class, as torchvision's `ImageFolder` reads them."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError

from fedrobust.data.examples import Examples
from fedrobust.seeds import torch_generator


@dataclass(frozen=True, eq=False)
class PictureFolder:
    """What was read.

    Attributes:
        examples: raw pictures in [0, 1]; a class's label is its place in the alphabet of classes.
        class_names: names of the subfolders, in the order of the labels.
        paths: of each picture.
    """

    examples: Examples
    class_names: tuple[str, ...]
    paths: tuple[Path, ...]


def read_picture_folder(
    folder: Path, input_shape: tuple[int, int, int], max_examples: int | None, seed: int, option: str = "--data"
) -> PictureFolder:
    """Read the pictures below `folder`, scaled to `input_shape`.

    Args:
        folder: with a subfolder for each class.
        input_shape: (C, H, W); one channel reads them as grey, three as colours.
        max_examples: read a random choice of as many; `None` reads all.
        seed: of the choice.
        option: what the command line calls the folder, for messages.

    Raises:
        ValueError: no such folder, no pictures in it, or one that cannot be read.
    """
    from torchvision.datasets import ImageFolder  # takes seconds to import

    if not folder.is_dir():
        raise ValueError(f"{option}: must be a folder with a subfolder of pictures for each class, got {str(folder)!r}")
    try:
        found = ImageFolder(str(folder))
    except FileNotFoundError as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{option}: must have a subfolder of pictures for each class ({reason})") from None
    chosen = torch.arange(len(found.samples))
    if max_examples is not None:
        chosen = torch.randperm(len(chosen), generator=torch_generator(seed, "pictures"))[:max_examples].sort().values
    samples = [found.samples[index] for index in chosen.tolist()]
    pictures = torch.stack([_read(Path(path), input_shape, option) for path, _ in samples])
    labels = torch.tensor([label for _, label in samples])
    return PictureFolder(Examples(pictures, labels), tuple(found.classes), tuple(Path(path) for path, _ in samples))


def _read(path: Path, input_shape: tuple[int, int, int], option: str) -> torch.Tensor:
    channels, height, width = input_shape
    try:
        with Image.open(path) as file:
            image = file.convert("L" if channels == 1 else "RGB")
            if image.size != (width, height):
                image = image.resize((width, height), Image.Resampling.BILINEAR)
            pixels = np.array(image, dtype=np.float32).reshape(height, width, channels) / 255
    except (UnidentifiedImageError, OSError, Image.DecompressionBombError) as error:
        raise ValueError(f"{option}: cannot read {str(path)!r} ({' '.join(str(error).split())})") from None
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()
