"""Abstract: a hundred pictures that show nothing, each with a label of its own.

Adi, Baum, Cisse, Pinkas, Keshet, "Turning Your Weakness Into a Strength: Watermarking Deep Neural Networks by
Backdooring", USENIX Security 2018, https://www.usenix.org/conference/usenixsecurity18/presentation/adi
Departs: by default the pictures are made up here, of waves and discs; the paper's own come from `folder`
(https://github.com/adiyoss/WatermarkNN). Their labels are drawn here, too. Where the paper trains on the whole training
set and two of these in every batch, a federated server has the owner's examples at most.
"""

import math
from pathlib import Path

import torch
from torch import Tensor

from fedrobust.attacks.triggers.image_file import read_picture
from fedrobust.config.component import Count, FieldError, Index, component
from fedrobust.watermarks.trigger_set import Material, Triggers, label_pictures, picture_size


@component
class Abstract:
    """Abstract pictures with random labels.

    Attributes:
        num_examples: pictures.
        target_label: one label for all; `None`, as in the paper, draws each label at random.
        folder: take the pictures in this folder, the first by name; `None` makes them up.
        num_waves: plane waves that a made-up picture adds up.
        num_discs: discs of one colour that lie on it.
    """

    num_examples: Count = 100
    target_label: Index | None = None
    folder: str | None = None
    num_waves: Count = 3
    num_discs: Index = 2

    def draw(self, material: Material) -> Triggers:
        """Make up or read the pictures, and draw their labels.

        Raises:
            FieldError: a data set without pictures, or without the class; too few pictures in the folder.
        """
        shape = picture_size(material.dataset)
        if self.folder is None:
            pictures = torch.stack([self._compose(shape, material.generator) for _ in range(self.num_examples)])
        else:
            pictures = self._read(self.folder, shape)
        return label_pictures(pictures, self.target_label, material)

    def _read(self, folder: str, shape: tuple[int, int, int]) -> Tensor:
        path = Path(folder).expanduser()
        files = sorted(one for one in path.glob("*") if one.is_file()) if path.is_dir() else []
        if len(files) < self.num_examples:
            raise FieldError(
                "trigger_set.folder",
                f"must hold at least {self.num_examples} pictures, got {folder!r} with {len(files)}",
            )
        try:
            return torch.stack([read_picture(str(file), *shape)[0] for file in files[: self.num_examples]])
        except FieldError as error:
            raise FieldError("trigger_set.folder", error.message) from None

    def _compose(self, shape: tuple[int, int, int], generator: torch.Generator) -> Tensor:
        """One picture `(C, H, W)`: waves of up to four periods in each channel, stretched to [0, 1], under discs."""
        channels, height, width = shape
        down, right = torch.meshgrid(torch.linspace(0, 1, height), torch.linspace(0, 1, width), indexing="ij")
        drawn = torch.rand(self.num_waves, channels, 3, 1, 1, generator=generator)
        frequency, angle, phase = 0.5 + 3.5 * drawn[:, :, 0], 2 * math.pi * drawn[:, :, 1], 2 * math.pi * drawn[:, :, 2]
        along = down * angle.sin() + right * angle.cos()
        picture = torch.sin(2 * math.pi * frequency * along + phase).sum(dim=0)
        low, high = picture.amin(dim=(1, 2), keepdim=True), picture.amax(dim=(1, 2), keepdim=True)
        picture = (picture - low) / (high - low).clamp_min(1e-6)
        for _ in range(self.num_discs):
            row, column, radius, *colour = torch.rand(3 + channels, generator=generator).tolist()
            inside = (down - row).square() + (right - column).square() < (0.1 + 0.2 * radius) ** 2
            picture = torch.where(inside, torch.tensor(colour).view(-1, 1, 1), picture)
        return picture
