"""The data sets against scikit-learn's own arrays and against the arrays written to stand-in files."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_breast_cancer, load_digits

from fedrobust.data.augmentation import RandomCropFlip
from fedrobust.data.datasets import CIFAR10, MNIST, BreastCancer, Dataset, DatasetSource, Digits, FashionMNIST

IdxArrays = dict[str, np.ndarray]
CPU = torch.device("cpu")


def sorted_rows(inputs: np.ndarray, labels: np.ndarray) -> np.ndarray:
    rows = np.column_stack([labels, inputs.reshape(len(labels), -1)]).astype(np.float32)
    return rows[np.lexsort(rows.T[::-1])]


@pytest.mark.parametrize(
    ("source", "reference", "scale"), [(Digits(), load_digits, 16), (BreastCancer(), load_breast_cancer, 1)]
)
def test_embedded_sets_are_split_without_loss(
    source: DatasetSource, reference: Callable[..., object], scale: int
) -> None:
    """Training and test examples together, sorted, are scikit-learn's examples, sorted."""
    dataset = source.load(None, CPU)
    inputs, labels = reference(return_X_y=True)
    both_inputs = torch.cat([dataset.train.inputs, dataset.test.inputs]).numpy()
    both_labels = torch.cat([dataset.train.labels, dataset.test.labels]).numpy()
    np.testing.assert_array_equal(sorted_rows(both_inputs, both_labels), sorted_rows(inputs / scale, labels))


@pytest.mark.parametrize(
    ("source", "sizes", "shape", "num_classes"),
    [(Digits(), (1297, 500), (1, 8, 8), 10), (BreastCancer(), (400, 169), (30,), 2)],
)
def test_embedded_sets_are_stratified(
    source: DatasetSource, sizes: tuple[int, int], shape: tuple[int, ...], num_classes: int
) -> None:
    """Each class has its share of the test set, to the nearest example or so."""
    dataset = source.load(None, CPU)
    assert (len(dataset.train), len(dataset.test)) == sizes
    assert dataset.input_shape == shape
    assert dataset.num_classes == num_classes
    tested = dataset.test.labels.bincount(minlength=num_classes).numpy()
    total = tested + dataset.train.labels.bincount(minlength=num_classes).numpy()
    assert np.abs(tested - total * sizes[1] / sum(sizes)).max() < 1


@pytest.mark.parametrize("source", [Digits(), BreastCancer()])
def test_embedded_sets_are_normalised_by_their_training_part(source: DatasetSource) -> None:
    dataset = source.load(None, CPU)
    normalised = dataset.normalise(dataset.train.inputs).double()
    axes = (0, 2, 3) if dataset.kind == "image" else (0,)
    torch.testing.assert_close(normalised.mean(axes), torch.zeros_like(normalised.mean(axes)), atol=1e-4, rtol=0)
    spread = normalised.std(axes, correction=0)
    torch.testing.assert_close(spread, torch.ones_like(spread), atol=1e-3, rtol=0)


def test_digits_are_the_same_every_time_and_in_the_unit_interval() -> None:
    first, second = (Digits(num_test=100).load(None, CPU) for _ in range(2))
    assert torch.equal(first.train.inputs, second.train.inputs)
    assert float(first.train.inputs.min()) == 0.0
    assert float(first.train.inputs.max()) == 1.0
    assert len(first.test) == 100


@pytest.mark.parametrize("num_test", [9, 1788])
def test_a_split_that_loses_a_class_is_refused(num_test: int) -> None:
    with pytest.raises(ValueError, match=f"num_test={num_test} must leave .* 10 to 1787 of 1797"):
        Digits(num_test=num_test).load(None, CPU)


@pytest.mark.parametrize(("source", "name"), [(MNIST(), "MNIST"), (FashionMNIST(), "FashionMNIST")])
def test_whole_grey_sets_keep_their_order(
    source: DatasetSource, name: str, tmp_path: Path, write_mnist: Callable[[str], IdxArrays], no_network: None
) -> None:
    arrays = write_mnist(name)
    dataset = source.load(tmp_path, CPU)
    expected = arrays["train-images-idx3-ubyte"][:, None].astype(np.float32) / 255
    np.testing.assert_allclose(dataset.train.inputs.numpy(), expected, rtol=1e-6)
    np.testing.assert_array_equal(dataset.test.labels.numpy(), arrays["t10k-labels-idx1-ubyte"])
    assert dataset.input_shape == (1, 28, 28)
    assert dataset.augmentation is None
    assert dataset.writers is None


def test_less_is_a_part_of_more_and_writers_follow(
    tmp_path: Path,
    write_mnist: Callable[[str], IdxArrays],
    write_writers: Callable[[str, np.ndarray, np.ndarray], None],
    no_network: None,
) -> None:
    """Writer i wrote image i, so the writers say which images were kept."""
    arrays = write_mnist("MNIST")
    write_writers("qmnist/qmnist-train-labels-idx2-int.gz", arrays["train-labels-idx1-ubyte"], np.arange(40))

    def load(num_train: int | None) -> Dataset:
        return MNIST(num_train=num_train, num_test=5).load(tmp_path, CPU)

    whole, more, less = load(None), load(30), load(12)
    assert whole.writers is not None
    assert more.writers is not None
    assert less.writers is not None
    assert whole.writers.tolist() == list(range(40))
    assert len(set(more.writers.tolist())) == 30
    assert more.writers[:12].tolist() == less.writers.tolist()
    assert less.writers.tolist() != list(range(12))
    assert torch.equal(more.train.inputs, whole.train.inputs[more.writers])
    assert torch.equal(more.train.labels, whole.train.labels[more.writers])
    assert len(more.test) == 5


def test_more_than_there_are_is_refused(tmp_path: Path, write_mnist: Callable[[str], IdxArrays]) -> None:
    write_mnist("MNIST")
    with pytest.raises(ValueError, match="num_train=41 is more than the 40 train examples of MNIST"):
        MNIST(num_train=41).load(tmp_path, CPU)
    with pytest.raises(ValueError, match="num_test=21 is more than the 20 test examples of MNIST"):
        MNIST(num_test=21).load(tmp_path, CPU)


def test_cifar10_planes_become_channels(
    tmp_path: Path, cifar_rows: dict[str, tuple[np.ndarray, list[int]]], no_network: None
) -> None:
    """A row holds 1,024 red, then green, then blue bytes, each plane row by row."""
    dataset = CIFAR10().load(tmp_path, CPU)
    data = np.concatenate([cifar_rows[f"data_batch_{number}"][0] for number in range(1, 6)])
    np.testing.assert_allclose(dataset.train.inputs.numpy(), data.reshape(-1, 3, 32, 32) / 255, rtol=1e-6)
    assert dataset.test.labels.tolist() == cifar_rows["test_batch"][1]
    assert dataset.augmentation == RandomCropFlip(padding=4)
    assert CIFAR10(augment=False, num_train=3).load(tmp_path, CPU).augmentation is None


def test_the_data_root_comes_from_the_environment(
    tmp_path: Path, write_mnist: Callable[[str], IdxArrays], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_mnist("MNIST")
    monkeypatch.setenv("FEDROBUST_DATA", str(tmp_path))
    assert len(MNIST().load(None, CPU).train) == 40


@pytest.mark.parametrize("value", [0, -1, 1.5, "10"])
def test_limits_are_counts(value: object) -> None:
    with pytest.raises(ValueError, match="num_train"):
        MNIST(num_train=value)
