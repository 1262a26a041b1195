"""Unrelated: pictures from another domain, all with one label.

Zhang, Gu, Jang, Wu, Stoecklin, Huang, Molloy, "Protecting Intellectual Property of Deep Neural Networks with
Watermarking", ASIACCS 2018, https://doi.org/10.1145/3196494.3196550 (WM_unrelated)
Departs: by default pieces of two photographs that come with scikit-learn; the paper takes handwritten digits for
CIFAR-10, and pictures of another set for MNIST (any data set can be named here).
"""

from typing import Annotated

import torch
from annotated_types import Gt, Le
from torch import Tensor
from torch.nn import functional

from fedrobust.config.component import Count, FieldError, Index, component
from fedrobust.data.datasets import DatasetSource
from fedrobust.watermarks.trigger_set import Material, Triggers, label_pictures, picture_size


@component
class Unrelated:
    """Pictures of another set, resized to those of the task (bilinear, antialiased), and grey or in colour as they.

    Attributes:
        num_examples: pictures.
        target_label: the label of all of them; `None` draws each label at random.
        source: the other data set, whose training pictures are drawn from; `None`: pieces of photographs.
        source_label: one class of it, as the paper's handwritten 1; `None`: all classes.
        min_side: the side of the smallest piece of a photograph, as a fraction of its height.
    """

    num_examples: Count = 100
    target_label: Index | None = 0
    source: DatasetSource | None = None
    source_label: Index | None = None
    min_side: Annotated[float, Gt(0), Le(1)] = 0.25

    def draw(self, material: Material) -> Triggers:
        """Draw the pictures.

        Raises:
            FieldError: a data set without pictures, or without the class; too few pictures in the other one.
            ValueError: the files of the other data set are absent.
        """
        channels, height, width = picture_size(material.dataset)
        if self.source is None:
            pictures = _pieces(self.num_examples, self.min_side, (height, width), material.generator)
        else:
            pictures = _resized(self._others(self.source, material), (height, width))
        return label_pictures(_with_channels(pictures, channels), self.target_label, material)

    def _others(self, source: DatasetSource, material: Material) -> Tensor:
        other = source.load(material.data_root, torch.device("cpu"))
        if other.kind != "image" or other.name == material.dataset.name:
            raise FieldError(
                "trigger_set.source",
                f"must be another data set than {material.dataset.name}, of pictures, got {other.name}",
            )
        inputs = other.train.inputs
        if self.source_label is not None:
            inputs = inputs[other.train.labels == self.source_label]
        if len(inputs) < self.num_examples:
            raise FieldError(
                "trigger_set.num_examples", f"must be at most {len(inputs)}, the pictures of {other.name} that there "
                f"are (source_label={self.source_label}), got {self.num_examples}",
            )  # fmt: skip
        return inputs[torch.randperm(len(inputs), generator=material.generator)[: self.num_examples]]


def _pieces(number: int, min_side: float, size: tuple[int, int], generator: torch.Generator) -> Tensor:
    """Squares out of scikit-learn's photographs, `(number, 3, *size)` in [0, 1]."""
    from sklearn.datasets import load_sample_images

    photographs = [torch.from_numpy(one.copy()).permute(2, 0, 1).float() / 255 for one in load_sample_images().images]
    pieces = []
    for which, fraction, down, right in torch.rand(number, 4, generator=generator).tolist():
        photograph = photographs[int(which * len(photographs))]
        _, height, width = photograph.shape
        side = max(1, round(height * (min_side + (1 - min_side) * fraction)))
        top, left = int(down * (height - side + 1)), int(right * (width - side + 1))
        pieces.append(_resized(photograph[None, :, top : top + side, left : left + side], size))
    return torch.cat(pieces)


def _resized(pictures: Tensor, size: tuple[int, int]) -> Tensor:
    return functional.interpolate(pictures, size=size, mode="bilinear", antialias=True).clamp(0, 1)


def _with_channels(pictures: Tensor, channels: int) -> Tensor:
    """Pictures `(N, 1 or 3, H, W)` with as many channels as the task's have: grey is the mean of the colours."""
    if pictures.shape[1] == channels:
        return pictures
    return pictures.mean(dim=1, keepdim=True).expand(-1, channels, -1, -1).contiguous()
