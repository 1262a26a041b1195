"""Dog against fish: photographs in two classes."""

from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from annotated_types import Ge
from PIL import Image, UnidentifiedImageError

from fedrobust.config.component import FieldError, component
from fedrobust.data.examples import Dataset, Examples
from fedrobust.data.files import DataError, find_data_root
from fedrobust.data.scalers import Scaler, ScalerName, check_scaler
from fedrobust.data.splits import channel_statistics

CLASSES = ("dog", "fish")


@component
class DogFish:
    """Photographs of dogs (0) and fish (1) from ImageNet, 3 x size x size.

    The task of P. W. Koh, P. Liang, "Understanding black-box predictions via influence functions", ICML 2017,
    https://arxiv.org/abs/1703.04730, and of Shafahi et al., "Poison Frogs!", NeurIPS 2018,
    https://arxiv.org/abs/1804.00792

    Departs: whatever photographs lie in `dogfish/{train,val}/{dog,fish}` below the data root; the papers take 900 + 900
    to train and 300 + 300 to test, at 299x299. Mean and standard deviation are those of the training images, as models
    see them.
    """

    size: Annotated[int, Ge(8)] = 64
    """Height and width of the photographs that models see."""
    scaler: ScalerName | None = None
    """Scale large photographs on their way into the model, by this scaler; `None` scales them when they are loaded."""
    raw_size: Annotated[int, Ge(8)] = 224
    """Height and width of the large photographs; read where there is a scaler."""

    def __post_init__(self) -> None:
        """Check that the scaler is there, and makes pictures smaller."""
        if self.scaler is None:
            return
        check_scaler(self.scaler)
        if self.raw_size < self.size:
            raise FieldError("raw_size", f"must be at least size={self.size}, got {self.raw_size}")

    def load(self, data_root: Path | None, device: torch.device) -> Dataset:
        """Load the photographs, in the order of their names, whole (bilinear, antialiased).

        Raises:
            DataError: a folder is absent or empty, or a file is not a picture.
        """
        folder = find_data_root(data_root) / "dogfish"
        train, test = self._read(folder / "train"), self._read(folder / "val")
        scaler = None if self.scaler is None else Scaler(self.scaler, (self.size, self.size))
        mean, std = channel_statistics(train.inputs if scaler is None else scaler(train.inputs))
        return Dataset("dogfish", train, test, len(CLASSES), "image", mean, std, scaler=scaler).to(device)

    def _read(self, folder: Path) -> Examples:
        files = [sorted(path for path in (folder / name).glob("*") if path.is_file()) for name in CLASSES]
        for name, of_class in zip(CLASSES, files, strict=True):
            if not of_class:
                raise DataError(
                    f"dogfish has no pictures in {folder / name}. Put photographs of dogs and fish in train/dog, "
                    f"train/fish, val/dog and val/fish of {folder.parent}, or name another data root with the "
                    f"environment variable FEDROBUST_DATA or with data_root= (now {folder.parent.parent})."
                )
        pixels = np.stack([self._picture(path) for of_class in files for path in of_class])
        inputs = torch.from_numpy(pixels).permute(0, 3, 1, 2).float().div_(255).contiguous()
        return Examples(inputs, torch.arange(len(CLASSES)).repeat_interleave(torch.tensor([len(one) for one in files])))

    def _picture(self, path: Path) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
        side = self.size if self.scaler is None else self.raw_size
        try:
            with Image.open(path) as picture:
                return np.array(picture.convert("RGB").resize((side, side), Image.Resampling.BILINEAR))
        except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
            raise DataError(f"{path} is not a picture that can be read ({error})") from error
