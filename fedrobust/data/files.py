"""Where the files of a data set lie, and how they are read."""

import gzip
import http.client
import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal
from urllib.error import URLError

import numpy as np
import platformdirs
import torch
from torch import Tensor

TorchvisionName = Literal["MNIST", "FashionMNIST", "CIFAR10"]

_IDX_FILES = tuple(
    f"{part}-{content}-ubyte" for part in ("train", "t10k") for content in ("images-idx3", "labels-idx1")
)
_FILES: dict[TorchvisionName, tuple[str, tuple[str, ...], str]] = {
    "MNIST": ("MNIST/raw", _IDX_FILES, "the four .gz originals do as well"),
    "FashionMNIST": ("FashionMNIST/raw", _IDX_FILES, "the four .gz originals do as well"),
    "CIFAR10": (
        "cifar-10-batches-py",
        (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch", "batches.meta"),
        "or put cifar-10-python.tar.gz in the data root",
    ),
}

WRITER_FILE = "qmnist/qmnist-train-labels-idx2-int"
"""QMNIST's label file, below the data root; it may also lie in the root itself, and be gzipped (`.gz`)."""

_CONNECT_SECONDS = 5.0


class DataError(ValueError):
    """The files of a data set are missing or are not what they should be; the message says where they belong."""


def find_data_root(data_root: Path | None) -> Path:
    """The folder of all data sets: `data_root`, else the variable `FEDROBUST_DATA`, else the user's cache folder."""
    if data_root is not None:
        return Path(data_root).expanduser()
    named = os.environ.get("FEDROBUST_DATA")
    return Path(named).expanduser() if named else platformdirs.user_cache_path("fedrobust")


def read_torchvision(name: TorchvisionName, root: Path, *, train: bool) -> tuple[Tensor, Tensor]:
    """Read one part of a torchvision data set below `root`, downloading it first if its files are absent.

    Returns:
        images `(N, C, H, W)` uint8 and labels `(N,)` int64.

    Raises:
        DataError: the files are absent and cannot be downloaded, or are damaged.
    """
    from torchvision import datasets  # takes seconds to import, and the embedded data sets do without

    folder, files, _ = _FILES[name]
    present = all((root / folder / file).is_file() for file in files)
    was_there = [path for path in (root, *root.parents) if path.exists()]
    try:
        with _connect_timeout():
            source = getattr(datasets, name)(root, train=train, download=not present)
    except (URLError, OSError, http.client.HTTPException, RuntimeError, ValueError, AssertionError) as error:
        if not present:
            _remove_empty(root / folder, was_there)
        # Network, disk, torchvision's "Dataset not found"; the last two are how its idx reader meets a cut-off file.
        raise DataError(_explain(name, root, present, error)) from error
    images, labels = torch.as_tensor(source.data), torch.as_tensor(source.targets).long()
    if len(images) != len(labels):  # torchvision does not look
        part = "train" if train else "test"
        counts = f"{len(images)} images and {len(labels)} labels"
        raise DataError(f"{name} is damaged: its {part} files in {root / folder} hold {counts}")
    return (images.unsqueeze(1) if images.ndim == 3 else images.permute(0, 3, 1, 2)), labels


def _remove_empty(folder: Path, was_there: Sequence[Path]) -> None:
    """Take back the folders that a download made and put nothing into."""
    for path in (folder, *folder.parents):
        if path in was_there or not path.is_dir() or any(path.iterdir()):
            return
        path.rmdir()


def read_writers(root: Path, labels: Tensor) -> Tensor | None:
    """Who wrote each of MNIST's training digits, `(N,)` int64, or `None` if QMNIST's label file is not there.

    C. Yadav, L. Bottou, "Cold case: the lost MNIST digits", NeurIPS 2019, https://arxiv.org/abs/1905.10498

    Args:
        root: the data root.
        labels: `(N,)`, MNIST's own labels, against which the file's are checked.

    Raises:
        DataError: the file is not QMNIST's, or not about these digits.
    """
    below, beside = root / WRITER_FILE, root / Path(WRITER_FILE).name
    candidates = [Path(f"{path}{ending}") for path in (below, beside) for ending in ("", ".gz")]
    path = next((candidate for candidate in candidates if candidate.is_file()), None)
    if path is None:
        return None
    content = path.read_bytes()
    table = _parse_idx_table(gzip.decompress(content) if path.suffix == ".gz" else content, path)
    if table.shape[0] != labels.shape[0] or not np.array_equal(table[:, 0], labels.numpy()):
        raise DataError(f"{path} holds the labels of {table.shape[0]} digits that are not MNIST's {labels.shape[0]}")
    return torch.from_numpy(table[:, 2].astype(np.int64))


def _parse_idx_table(content: bytes, path: Path) -> np.ndarray[tuple[int, int], np.dtype[np.int32]]:
    """An idx file of 32-bit integers in two dimensions: a magic number, two lengths, then the rows, all big-endian."""
    header = np.frombuffer(content[:12], dtype=">i4")
    if len(header) < 3 or header[0] != 0x0C02 or len(content) != 12 + 4 * int(header[1]) * int(header[2]):
        raise DataError(f"{path} is not a whole idx2-int file")
    if header[2] < 3:
        raise DataError(f"{path} has {header[2]} columns, and the writer is the third of QMNIST's")
    table = np.frombuffer(content, dtype=">i4", offset=12).astype(np.int32)
    return table.reshape(int(header[1]), int(header[2]))


@contextmanager
def _connect_timeout() -> Iterator[None]:
    """Give up on a silent server: torchvision sets no timeout of its own and would wait for minutes."""
    previous = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_CONNECT_SECONDS)
    try:
        yield
    finally:
        socket.setdefaulttimeout(previous)


def _explain(name: TorchvisionName, root: Path, present: bool, error: Exception) -> str:
    folder, files, alternative = _FILES[name]
    what = "is damaged" if present else "is not there and could not be downloaded"
    reason = " ".join(str(error).split()) or type(error).__name__
    return (
        f"{name} {what} ({reason}). Put {', '.join(files)} in {root / folder} ({alternative}), or name another "
        f"data root with the environment variable FEDROBUST_DATA or with data_root= (now {root})."
    )
