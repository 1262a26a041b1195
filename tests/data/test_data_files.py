"""Where files are looked for, and what is said when they are missing or damaged."""

import gzip
import hashlib
import socket
from collections.abc import Callable
from pathlib import Path

import numpy as np
import platformdirs
import pytest
import torch
import torchvision

from fedrobust.data.files import DataError, find_data_root, read_torchvision, read_writers

IdxArrays = dict[str, np.ndarray]


def test_the_data_root_is_argument_then_variable_then_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FEDROBUST_DATA", str(tmp_path))
    assert find_data_root(Path("elsewhere")) == Path("elsewhere")
    assert find_data_root(None) == tmp_path
    monkeypatch.delenv("FEDROBUST_DATA")
    assert find_data_root(None) == Path(platformdirs.user_cache_dir("fedrobust"))


def test_mnist_is_read_as_written(tmp_path: Path, write_mnist: Callable[[str], IdxArrays], no_network: None) -> None:
    arrays = write_mnist("MNIST")
    images, labels = read_torchvision("MNIST", tmp_path, train=False)
    np.testing.assert_array_equal(images[:, 0].numpy(), arrays["t10k-images-idx3-ubyte"])
    np.testing.assert_array_equal(labels.numpy(), arrays["t10k-labels-idx1-ubyte"])
    assert labels.dtype == torch.int64


def test_gzipped_originals_do_without_network(
    tmp_path: Path, write_mnist: Callable[[str], IdxArrays], no_network: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torchvision unpacks `.gz` files whose checksums it knows; here it is told those of the stand-ins."""
    arrays = write_mnist("MNIST")
    resources = []
    for file in arrays:
        path = tmp_path / "MNIST" / "raw" / file
        packed = gzip.compress(path.read_bytes())
        path.with_name(f"{file}.gz").write_bytes(packed)
        path.unlink()
        resources.append((f"{file}.gz", hashlib.md5(packed).hexdigest()))
    monkeypatch.setattr(torchvision.datasets.MNIST, "resources", resources)
    _, labels = read_torchvision("MNIST", tmp_path, train=True)
    np.testing.assert_array_equal(labels.numpy(), arrays["train-labels-idx1-ubyte"])


@pytest.mark.parametrize(
    ("name", "folder", "file"),
    [
        ("MNIST", "MNIST/raw", "t10k-labels-idx1-ubyte"),
        ("FashionMNIST", "FashionMNIST/raw", "train-images-idx3-ubyte"),
        ("CIFAR10", "cifar-10-batches-py", "data_batch_5"),
    ],
)
def test_absent_files_without_network(name: str, folder: str, file: str, tmp_path: Path, no_network: None) -> None:
    with pytest.raises(DataError) as caught:
        read_torchvision(name, tmp_path, train=True)
    message = str(caught.value)
    for part in (name, "could not be downloaded", "no route to host", str(tmp_path / folder), file):
        assert part in message
    assert "FEDROBUST_DATA" in message
    assert "data_root=" in message
    assert "\n" not in message


def test_a_root_that_cannot_be_written_is_explained(tmp_path: Path, no_network: None) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(DataError, match="could not be downloaded"):
        read_torchvision("MNIST", tmp_path / "file", train=True)


def test_the_timeout_is_put_back(tmp_path: Path, no_network: None) -> None:
    before = socket.getdefaulttimeout()
    with pytest.raises(DataError):
        read_torchvision("MNIST", tmp_path, train=True)
    assert socket.getdefaulttimeout() == before


@pytest.mark.parametrize("length", [0, 3, 1000])
def test_a_cut_off_file_is_called_damaged(
    length: int, tmp_path: Path, write_mnist: Callable[[str], IdxArrays], no_network: None
) -> None:
    write_mnist("MNIST")
    path = tmp_path / "MNIST" / "raw" / "train-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(DataError, match="MNIST is damaged"):
        read_torchvision("MNIST", tmp_path, train=True)


def test_a_wrong_checksum_is_called_damaged(
    tmp_path: Path, cifar_rows: dict[str, tuple[np.ndarray, list[int]]], no_network: None
) -> None:
    with (tmp_path / "cifar-10-batches-py" / "test_batch").open("ab") as file:
        file.write(b"x")
    with pytest.raises(DataError, match="CIFAR10 is damaged"):
        read_torchvision("CIFAR10", tmp_path, train=True)


@pytest.mark.parametrize("folder", ["qmnist/", ""])
@pytest.mark.parametrize("ending", ["", ".gz"])
def test_writers_are_the_third_column(
    folder: str, ending: str, tmp_path: Path, write_writers: Callable[[str, np.ndarray, np.ndarray], None]
) -> None:
    write_writers(f"{folder}qmnist-train-labels-idx2-int{ending}", np.array([3, 1, 4]), np.array([70000, 2, 70000]))
    writers = read_writers(tmp_path, torch.tensor([3, 1, 4]))
    assert writers is not None
    assert writers.dtype == torch.int64
    assert writers.tolist() == [70000, 2, 70000]


def test_no_writer_file_means_no_writers(tmp_path: Path) -> None:
    assert read_writers(tmp_path, torch.tensor([1])) is None


def test_writers_of_other_digits_are_refused(
    tmp_path: Path, write_writers: Callable[[str, np.ndarray, np.ndarray], None]
) -> None:
    write_writers("qmnist/qmnist-train-labels-idx2-int.gz", np.array([3, 1, 4]), np.arange(3))
    for labels in ([3, 1, 5], [3, 1]):
        with pytest.raises(DataError, match="are not MNIST's"):
            read_writers(tmp_path, torch.tensor(labels))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a whole"),
        (b"\0\0\x0c\x02\0\0\0\x02\0\0\0\x03" + b"\0" * 20, "not a whole"),
        (b"\0\0\x0c\x02\0\0\0\x02\0\0\0\x01" + b"\0" * 8, "1 columns"),
    ],
)
def test_other_files_are_refused(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "qmnist-train-labels-idx2-int").write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_writers(tmp_path, torch.tensor([0, 0]))
