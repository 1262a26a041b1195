"""Traffic signs against the arrays and the pictures written to stand-in files."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fedrobust.data.files import DataError
from fedrobust.data.traffic_signs import GTSRB

CPU = torch.device("cpu")


def write_subset(root: Path, **changes: np.ndarray) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    arrays = {
        "x_train": rng.integers(0, 256, (12, 32, 32, 3), dtype=np.uint8),
        "y_train": np.arange(12, dtype=np.uint8),
        "x_test": rng.integers(0, 256, (5, 32, 32, 3), dtype=np.uint8),
        "y_test": np.array([42, 0, 14, 1, 2], dtype=np.uint8),
        **changes,
    }
    (root / "gtsrb").mkdir(exist_ok=True)
    np.savez(root / "gtsrb" / "gtsrb32_subset.npz", **arrays)
    return arrays


def test_the_subset_is_read_as_it_is(tmp_path: Path) -> None:
    """Channels first, divided by 255; mean and deviation as NumPy computes them."""
    arrays = write_subset(tmp_path)
    dataset = GTSRB().load(tmp_path, CPU)
    np.testing.assert_allclose(dataset.train.inputs.numpy(), arrays["x_train"].transpose(0, 3, 1, 2) / 255, rtol=1e-6)
    assert dataset.test.labels.tolist() == [42, 0, 14, 1, 2]
    assert (dataset.input_shape, dataset.num_classes, dataset.kind) == ((3, 32, 32), 43, "image")
    pixels = arrays["x_train"].reshape(-1, 3) / 255
    np.testing.assert_allclose(dataset.mean.flatten().numpy(), pixels.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(dataset.std.flatten().numpy(), pixels.std(axis=0), rtol=1e-4)


def test_less_is_a_part_of_more(tmp_path: Path) -> None:
    write_subset(tmp_path)
    few, more = (GTSRB(num_train=number, num_test=2).load(tmp_path, CPU) for number in (4, 9))
    assert more.train.labels[:4].tolist() == few.train.labels.tolist()
    assert len(few.test) == 2
    with pytest.raises(ValueError, match="num_train=13 is more than the 12 train examples of GTSRB"):
        GTSRB(num_train=13).load(tmp_path, CPU)


def test_torchvisions_layout_is_resized(tmp_path: Path) -> None:
    """One training picture in each of two classes, of one colour each, and two for testing; sizes of their own."""
    colours = {0: (255, 0, 0), 14: (0, 102, 255)}
    for label, colour in colours.items():
        folder = tmp_path / "gtsrb" / "GTSRB" / "Training" / f"{label:05d}"
        folder.mkdir(parents=True)
        Image.new("RGB", (40 + label, 31), colour).save(folder / "00000_00000.ppm")
    folder = tmp_path / "gtsrb" / "GTSRB" / "Final_Test" / "Images"
    folder.mkdir(parents=True)
    lines = ["Filename;Width;Height;Roi.X1;Roi.Y1;Roi.X2;Roi.Y2;ClassId"]
    for number, label in enumerate((14, 0)):
        Image.new("RGB", (50, 60), colours[label]).save(folder / f"{number:05d}.ppm")
        lines.append(f"{number:05d}.ppm;50;60;5;5;45;55;{label}")
    (tmp_path / "gtsrb" / "GT-final_test.csv").write_text("\n".join(lines) + "\n")
    dataset = GTSRB().load(tmp_path, CPU)
    assert dataset.test.labels.tolist() == [14, 0]
    assert dataset.test.inputs.shape == (2, 3, 32, 32)
    np.testing.assert_allclose(dataset.test.inputs[0, :, 5, 7].numpy(), np.array(colours[14]) / 255, rtol=1e-6)
    # torchvision numbers the training classes in the order of their folders.
    assert dataset.train.labels.tolist() == [0, 1]


def test_what_is_missing_is_said_with_its_place(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"GTSRB is not there .* Put gtsrb32_subset.npz .* in {tmp_path}/gtsrb"):
        GTSRB().load(tmp_path, CPU)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"x_train": np.zeros((12, 28, 28, 3), np.uint8)}, r"x_train must be uint8 \(N, 32, 32, 3\)"),
        ({"x_test": np.zeros((5, 32, 32, 3))}, r"x_test must be uint8 \(N, 32, 32, 3\)"),
        ({"y_test": np.array([0, 1, 2, 3, 43])}, "y_test must hold labels below 43"),
        ({"y_train": np.zeros(3, np.uint8)}, "x_train must be uint8"),
    ],
)
def test_a_wrong_subset_is_refused(tmp_path: Path, changes: dict[str, np.ndarray], text: str) -> None:
    write_subset(tmp_path, **changes)
    with pytest.raises(DataError, match=text):
        GTSRB().load(tmp_path, CPU)


def test_a_damaged_subset_is_refused(tmp_path: Path) -> None:
    write_subset(tmp_path)
    (tmp_path / "gtsrb" / "gtsrb32_subset.npz").write_bytes(b"PK not a zip")
    with pytest.raises(DataError, match=r"gtsrb32_subset\.npz is damaged"):
        GTSRB().load(tmp_path, CPU)
