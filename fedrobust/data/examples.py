"""What a data set is once it is loaded: labelled examples, and the numbers that normalise them."""

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from fedrobust.data.augmentation import RandomCropFlip
from fedrobust.data.scalers import Scaler


@dataclass(frozen=True, eq=False)
class Examples:
    """Labelled examples.

    Attributes:
        inputs: `(N, C, H, W)` float32 raw images in [0, 1], `(N, F)` float32 raw features, or `(N, L)` float32 word
            numbers.
        labels: `(N,)` int64.

    Raises:
        ValueError: inputs and labels of different lengths, or of other types than these.
    """

    inputs: Tensor
    labels: Tensor

    def __post_init__(self) -> None:
        if self.labels.shape != self.inputs.shape[:1] or self.labels.ndim != 1:
            raise ValueError(
                f"examples need inputs (N, ...) and labels (N,), got {tuple(self.inputs.shape)} "
                f"and {tuple(self.labels.shape)}"
            )
        if self.inputs.dtype != torch.float32 or self.labels.dtype != torch.int64:
            raise ValueError(
                f"examples need float32 inputs and int64 labels, got {self.inputs.dtype} and {self.labels.dtype}"
            )

    def __len__(self) -> int:
        return self.labels.shape[0]

    def subset(self, indices: Tensor) -> "Examples":
        """The examples at `indices` `(M,)`, copied, in that order."""
        indices = indices.to(self.labels.device)
        return Examples(self.inputs[indices], self.labels[indices])

    def to(self, device: torch.device) -> "Examples":
        """The same examples on `device`."""
        return Examples(self.inputs.to(device), self.labels.to(device))


@dataclass(frozen=True, eq=False)
class Dataset:
    """A data set: its two parts and what is known about it.

    Attributes:
        name: as in `conf/dataset`.
        train: what is split over the clients.
        test: what the global model is evaluated on.
        num_classes: labels are `0 .. num_classes - 1`.
        kind: whether inputs are images, feature vectors or texts.
        mean: `(C, 1, 1)` per channel, or `(F,)` per feature; zero for texts, with a `std` of one.
        std: as `mean`.
        augmentation: what training does to each batch of images, or `None`.
        writers: `(N_train,)` int64, who wrote each training example, or `None` where that is not known.
        vocabulary_size: words of a text are numbers below this; `None` for what is no text.
        scaler: makes raw images as small as models take them, before they are normalised; `None` if they are.
    """

    name: str
    train: Examples
    test: Examples
    num_classes: int
    kind: Literal["image", "tabular", "text"]
    mean: Tensor
    std: Tensor
    augmentation: RandomCropFlip | None = None
    writers: Tensor | None = None
    vocabulary_size: int | None = None
    scaler: Scaler | None = None

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one raw input: `(C, H, W)` or `(F,)`."""
        return tuple(self.train.inputs.shape[1:])

    @property
    def model_shape(self) -> tuple[int, ...]:
        """The shape of one input as models take it."""
        return self.input_shape if self.scaler is None else (self.input_shape[0], *self.scaler.size)

    def normalise(self, inputs: Tensor) -> Tensor:
        """(inputs - mean) / std, for raw `inputs` `(M, ...)` on the data set's device, after its scaler."""
        seen = inputs if self.scaler is None else self.scaler(inputs)
        return (seen - self.mean) / self.std

    def to(self, device: torch.device) -> "Dataset":
        """The same data set with every tensor on `device`."""
        return replace(
            self,
            train=self.train.to(device),
            test=self.test.to(device),
            mean=self.mean.to(device),
            std=self.std.to(device),
            writers=None if self.writers is None else self.writers.to(device),
        )
