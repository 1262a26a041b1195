"""Small stand-ins for the real files, written in the real layouts."""

import gzip
import hashlib
import pickle
import struct
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn
from urllib.error import URLError

import numpy as np
import pytest
import torchvision

IdxArrays = dict[str, np.ndarray]


def write_idx(path: Path, values: np.ndarray) -> None:
    """The idx format: magic number (type 8 is unsigned bytes), the lengths, the bytes in row-major order."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(struct.pack(f">{1 + values.ndim}i", 0x0800 + values.ndim, *values.shape) + values.tobytes())


@pytest.fixture
def write_mnist(tmp_path: Path) -> Callable[[str], IdxArrays]:
    """Write 40 training and 20 test images as MNIST or FashionMNIST below `tmp_path`."""

    def write(name: str) -> IdxArrays:
        rng = np.random.default_rng(0)
        arrays = {}
        for part, size in (("train", 40), ("t10k", 20)):
            arrays[f"{part}-images-idx3-ubyte"] = rng.integers(0, 256, (size, 28, 28), dtype=np.uint8)
            arrays[f"{part}-labels-idx1-ubyte"] = rng.integers(0, 10, size, dtype=np.uint8)
        for file, values in arrays.items():
            write_idx(tmp_path / name / "raw" / file, values)
        return arrays

    return write


@pytest.fixture
def write_writers(tmp_path: Path) -> Callable[[str, np.ndarray, np.ndarray], None]:
    """Write QMNIST's label file (class, series, writer, and five more columns) at a path below `tmp_path`."""

    def write(file: str, labels: np.ndarray, writers: np.ndarray) -> None:
        table = np.zeros((len(labels), 8), dtype=">i4")
        table[:, 0], table[:, 2] = labels, writers
        content = struct.pack(">3i", 0x0C02, *table.shape) + table.tobytes()
        path = tmp_path / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)

    return write


@pytest.fixture
def cifar_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, tuple[np.ndarray, list[int]]]:
    """Six pickles of four images in CIFAR-10's layout; torchvision is told their checksums instead."""
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    rng = np.random.default_rng(0)
    rows, sums = {}, {}
    for file in (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"):
        data, labels = rng.integers(0, 256, (4, 3072), dtype=np.uint8), rng.integers(0, 10, 4).tolist()
        rows[file] = (data, labels)
        (folder / file).write_bytes(pickle.dumps({"data": data, "labels": labels}))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": [str(label) for label in range(10)]}))
    sums = {path.name: hashlib.md5(path.read_bytes()).hexdigest() for path in folder.iterdir()}
    source = torchvision.datasets.CIFAR10
    monkeypatch.setattr(source, "train_list", [[file, sums[file]] for file in rows if file != "test_batch"])
    monkeypatch.setattr(source, "test_list", [["test_batch", sums["test_batch"]]])
    monkeypatch.setattr(source, "meta", {**source.meta, "md5": sums["batches.meta"]})
    return rows


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every URL is out of reach."""

    def refuse(*args: object, **kwargs: object) -> NoReturn:
        raise URLError("no route to host")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
