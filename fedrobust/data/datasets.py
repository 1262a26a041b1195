"""The data sets that a config can name.

Each is a component with `load(data_root, device) -> Dataset`. Two come with scikit-learn and need no files; the others
are read, and if need be downloaded, by torchvision. Traffic signs, photographs, malware and text have modules of their
own beside this one. Which examples a limited or split data set holds never depends on a scenario's seed: every scenario
sees the same data.
"""

from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from fedrobust.config.component import Count, component
from fedrobust.data.augmentation import RandomCropFlip
from fedrobust.data.examples import Dataset, Examples
from fedrobust.data.files import DataError, TorchvisionName, find_data_root, read_torchvision, read_writers
from fedrobust.data.splits import first_of_shuffle, stratified_split

__all__ = [
    "CIFAR10",
    "MNIST",
    "BreastCancer",
    "DataError",
    "Dataset",
    "DatasetSource",
    "Digits",
    "Examples",
    "FashionMNIST",
]


@runtime_checkable
class DatasetSource(Protocol):
    """What a config names as its data set."""

    def load(self, data_root: Path | None, device: torch.device) -> Dataset:
        """Load the data set onto `device`; `data_root` is where its files lie, if it has any."""
        ...


@component
class Digits:
    """The 8x8 digits that come with scikit-learn: 1,797 images, 1x8x8, ten classes; no files needed.

    E. Alpaydin, C. Kaynak, "Optical recognition of handwritten digits", UCI Machine Learning Repository, 1998,
    https://archive.ics.uci.edu/dataset/80
    """

    num_test: Count = 500
    """Examples held out for testing, stratified by class; the other 1,297 are for training."""

    def load(self, data_root: Path | None, device: torch.device) -> Dataset:
        """Load the digits, scaled from 0..16 to [0, 1]; `data_root` is not read.

        Raises:
            ValueError: `num_test` leaves fewer training or test examples than classes.
        """
        from sklearn.datasets import load_digits

        inputs, labels = load_digits(return_X_y=True)
        images = torch.from_numpy(inputs).float().reshape(-1, 1, 8, 8) / 16
        train, test = stratified_split("digits", images, torch.from_numpy(labels).long(), self.num_test)
        mean, std = train.inputs.mean().view(1, 1, 1), train.inputs.std(correction=0).view(1, 1, 1)
        return Dataset("digits", train, test, 10, "image", mean, std).to(device)


@component
class BreastCancer:
    """Wisconsin diagnostic data that come with scikit-learn: 569 examples, 30 features, two classes; no files needed.

    W. Street, W. Wolberg, O. Mangasarian, "Nuclear feature extraction for breast tumor diagnosis", IS&T/SPIE 1993,
    https://archive.ics.uci.edu/dataset/17
    """

    num_test: Count = 169
    """Examples held out for testing, stratified by class; the other 400 are for training."""

    def load(self, data_root: Path | None, device: torch.device) -> Dataset:
        """Load the features in their own units (0 malignant, 1 benign); `data_root` is not read.

        Raises:
            ValueError: `num_test` leaves fewer training or test examples than classes.
        """
        from sklearn.datasets import load_breast_cancer

        inputs, labels = load_breast_cancer(return_X_y=True)
        features = torch.from_numpy(inputs).float()
        train, test = stratified_split("breast_cancer", features, torch.from_numpy(labels).long(), self.num_test)
        mean, std = train.inputs.mean(dim=0), train.inputs.std(dim=0, correction=0)
        return Dataset("breast_cancer", train, test, 2, "tabular", mean, std).to(device)


@component
class MNIST:
    """Handwritten digits: 60,000 training and 10,000 test images, 1x28x28, ten classes.

    Y. LeCun, L. Bottou, Y. Bengio, P. Haffner, "Gradient-based learning applied to document recognition",
    Proc. IEEE 86(11), 1998. Mean and standard deviation as in PyTorch's example,
    https://github.com/pytorch/examples/blob/main/mnist/main.py
    """

    num_train: Count | None = None
    """Training examples: the first ones of a fixed shuffle; all, in their own order, if `None`."""
    num_test: Count | None = None
    """Test examples: likewise."""

    def load(self, data_root: Path | None, device: torch.device) -> Dataset:
        """Load the images, and who wrote them if QMNIST's label file is below the data root.

        Raises:
            DataError: the files are absent and cannot be downloaded, or are damaged.
            ValueError: more examples asked for than there are.
        """
        root = find_data_root(data_root)
        images, labels = read_torchvision("MNIST", root, train=True)
        kept = first_of_shuffle("MNIST", "train", len(labels), self.num_train)
        writers = read_writers(root, labels)
        return Dataset(
            name="mnist",
            train=_scaled(images[kept], labels[kept]),
            test=_read_limited("MNIST", root, "test", self.num_test),
            num_classes=10,
            kind="image",
            mean=_per_channel(0.1307),
            std=_per_channel(0.3081),
            writers=None if writers is None else writers[kept],
        ).to(device)


@component
class FashionMNIST:
    """Pictures of clothing: 60,000 training and 10,000 test images, 1x28x28, ten classes.

    H. Xiao, K. Rasul, R. Vollgraf, "Fashion-MNIST: a novel image dataset for benchmarking machine learning
    algorithms", 2017, https://arxiv.org/abs/1708.07747. Mean and standard deviation of the training images, the usual
    figures.
    """

    num_train: Count | None = None
    """Training examples: the first ones of a fixed shuffle; all, in their own order, if `None`."""
    num_test: Count | None = None
    """Test examples: likewise."""

    def load(self, data_root: Path | None, device: torch.device) -> Dataset:
        """Load the images.

        Raises:
            DataError: the files are absent and cannot be downloaded, or are damaged.
            ValueError: more examples asked for than there are.
        """
        root = find_data_root(data_root)
        return Dataset(
            name="fashion_mnist",
            train=_read_limited("FashionMNIST", root, "train", self.num_train),
            test=_read_limited("FashionMNIST", root, "test", self.num_test),
            num_classes=10,
            kind="image",
            mean=_per_channel(0.2860),
            std=_per_channel(0.3530),
        ).to(device)


@component
class CIFAR10:
    """Small colour photographs: 50,000 training and 10,000 test images, 3x32x32, ten classes.

    A. Krizhevsky, "Learning multiple layers of features from tiny images", technical report, University of Toronto,
    2009, https://www.cs.toronto.edu/~kriz/cifar.html. Mean and standard deviation of the training images, the usual
    figures.
    """

    augment: bool = True
    """Whether training crops and flips its batches."""
    num_train: Count | None = None
    """Training examples: the first ones of a fixed shuffle; all, in their own order, if `None`."""
    num_test: Count | None = None
    """Test examples: likewise."""

    def load(self, data_root: Path | None, device: torch.device) -> Dataset:
        """Load the images.

        Raises:
            DataError: the files are absent and cannot be downloaded, or are damaged.
            ValueError: more examples asked for than there are.
        """
        root = find_data_root(data_root)
        return Dataset(
            name="cifar10",
            train=_read_limited("CIFAR10", root, "train", self.num_train),
            test=_read_limited("CIFAR10", root, "test", self.num_test),
            num_classes=10,
            kind="image",
            mean=_per_channel(0.4914, 0.4822, 0.4465),
            std=_per_channel(0.2470, 0.2435, 0.2616),
            augmentation=RandomCropFlip() if self.augment else None,
        ).to(device)


def _read_limited(name: TorchvisionName, root: Path, part: str, limit: int | None) -> Examples:
    images, labels = read_torchvision(name, root, train=part == "train")
    kept = first_of_shuffle(name, part, len(labels), limit)
    return _scaled(images[kept], labels[kept])


def _scaled(images: Tensor, labels: Tensor) -> Examples:
    return Examples(images.float().div_(255).contiguous(), labels)


def _per_channel(*values: float) -> Tensor:
    return torch.tensor(values).view(-1, 1, 1)
