"""Traffic signs: the German Traffic Sign Recognition Benchmark at 32x32 pixels."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fedrobust.config.component import Count, component
from fedrobust.data.examples import Dataset, Examples
from fedrobust.data.files import DataError, find_data_root
from fedrobust.data.splits import channel_statistics, first_of_shuffle

SIZE = 32
NUM_CLASSES = 43
SUBSET_FILE = "gtsrb/gtsrb32_subset.npz"
"""A subset at 32x32, below the data root: arrays x_train, y_train, x_test, y_test."""


@component
class GTSRB:
    """Photographs of traffic signs, 3x32x32, 43 classes (14 is stop, 1 a limit of 30 km/h).

    Read from `gtsrb/gtsrb32_subset.npz` if that is there, else from torchvision's layout, whose images have sizes of
    their own.

    J. Stallkamp, M. Schlipsing, J. Salmen, C. Igel, "Man vs. computer: benchmarking machine learning algorithms for
    traffic sign recognition", Neural Networks 32, 2012, https://doi.org/10.1016/j.neunet.2012.02.016

    Departs: images are resized whole to 32x32, not cropped to the sign. Mean and standard deviation are those of the
    training images loaded.
    """

    num_train: Count | None = None
    """Training examples: the first ones of a fixed shuffle; all, in their own order, if `None`."""
    num_test: Count | None = None
    """Test examples: likewise."""

    def load(self, data_root: Path | None, device: torch.device) -> Dataset:
        """Load the images.

        Raises:
            DataError: the files are absent or damaged.
            ValueError: more examples asked for than there are.
        """
        root = find_data_root(data_root)
        train = self._read(root, "train", self.num_train)
        test = self._read(root, "test", self.num_test)
        mean, std = channel_statistics(train.inputs)
        return Dataset("gtsrb", train, test, NUM_CLASSES, "image", mean, std).to(device)

    def _read(self, root: Path, part: str, limit: int | None) -> Examples:
        path = root / SUBSET_FILE
        images, labels = _read_subset(path, part) if path.is_file() else _read_torchvision(root, part)
        kept = first_of_shuffle("GTSRB", part, len(labels), limit)
        return Examples(images[kept].permute(0, 3, 1, 2).float().div_(255).contiguous(), labels[kept])


def _read_subset(path: Path, part: str) -> tuple[Tensor, Tensor]:
    """Images `(N, 32, 32, 3)` uint8 and labels `(N,)` int64."""
    try:
        with np.load(path) as arrays:
            images, labels = arrays[f"x_{part}"], arrays[f"y_{part}"]
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{path} is damaged ({' '.join(str(error).split())})") from error
    if images.dtype != np.uint8 or images.shape != (len(labels), SIZE, SIZE, 3) or labels.ndim != 1:
        raise DataError(f"{path}: x_{part} must be uint8 (N, {SIZE}, {SIZE}, 3) with a label each, got {images.shape}")
    if len(labels) == 0 or int(labels.max()) >= NUM_CLASSES:
        raise DataError(f"{path}: y_{part} must hold labels below {NUM_CLASSES}")
    return torch.from_numpy(images), torch.from_numpy(labels.astype(np.int64))


def _read_torchvision(root: Path, part: str) -> tuple[Tensor, Tensor]:
    from PIL import Image
    from torchvision import datasets  # takes seconds to import, and the subset does without

    try:
        source = datasets.GTSRB(root, split=part, download=False, transform=_resize)
        pairs = [source[index] for index in range(len(source))]
    except (RuntimeError, OSError, Image.DecompressionBombError) as error:
        reason = " ".join(str(error).split())
        raise DataError(
            f"GTSRB is not there ({reason}). Put gtsrb32_subset.npz (uint8 x_train, x_test of shape (N, 32, 32, 3), "
            f"y_train, y_test) in {root / 'gtsrb'}, or unpack there the archives that torchvision names, so that "
            f"{root / 'gtsrb/GTSRB/Training'}, {root / 'gtsrb/GTSRB/Final_Test/Images'} and "
            f"{root / 'gtsrb/GT-final_test.csv'} exist; or name another data root with the environment variable "
            f"FEDROBUST_DATA or with data_root= (now {root})."
        ) from error
    images = torch.from_numpy(np.stack([image for image, _ in pairs]))
    return images, torch.tensor([label for _, label in pairs])


def _resize(image: object) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    from PIL import Image

    assert isinstance(image, Image.Image)
    return np.asarray(image.convert("RGB").resize((SIZE, SIZE), Image.Resampling.BILINEAR))
