"""Dog against fish, against pictures written to a stand-in folder."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fedrobust.config.component import FieldError
from fedrobust.data.dogfish import DogFish
from fedrobust.data.files import DataError

CPU = torch.device("cpu")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Plain pictures: dogs red, fish blue; three and two to train, one and one to test, one of them grey."""
    for part, numbers in (("train", {"dog": 3, "fish": 2}), ("val", {"dog": 1, "fish": 1})):
        for name, number in numbers.items():
            folder = tmp_path / "dogfish" / part / name
            folder.mkdir(parents=True)
            for index in range(number):
                Image.new("RGB", (20, 30), (255, 0, 0) if name == "dog" else (0, 0, 255)).save(folder / f"{index}.png")
    Image.new("L", (20, 30), 51).save(tmp_path / "dogfish" / "val" / "fish" / "0.png")
    return tmp_path


def test_pictures_are_resized_and_dogs_come_first(root: Path) -> None:
    dataset = DogFish(size=16).load(root, CPU)
    assert dataset.train.labels.tolist() == [0, 0, 0, 1, 1]
    assert (dataset.input_shape, dataset.num_classes) == ((3, 16, 16), 2)
    assert dataset.train.inputs[:3].amin(dim=(0, 2, 3)).tolist() == [1, 0, 0]
    assert dataset.train.inputs[3:].amin(dim=(0, 2, 3)).tolist() == [0, 0, 1]
    assert dataset.test.inputs[1].unique().tolist() == pytest.approx([0.2]), "grey becomes three equal channels"
    np.testing.assert_allclose(dataset.mean.flatten().numpy(), [0.6, 0.0, 0.4], atol=1e-6)


def test_a_picture_is_what_pillow_makes_of_it(root: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (30, 20, 3), dtype=np.uint8)
    path = root / "dogfish" / "train" / "dog" / "0.png"
    Image.fromarray(pixels).save(path)
    dataset = DogFish(size=16).load(root, CPU)
    with Image.open(path) as whole:
        expected = np.array(whole.resize((16, 16), Image.Resampling.BILINEAR)) / 255
    np.testing.assert_allclose(dataset.train.inputs[0].permute(1, 2, 0).numpy(), expected, atol=1e-6)


def test_what_is_missing_is_said_with_its_place(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"dogfish has no pictures in {tmp_path}/dogfish/train/dog. Put photographs"):
        DogFish().load(tmp_path, CPU)


def test_what_is_no_picture_is_refused(root: Path) -> None:
    (root / "dogfish" / "train" / "fish" / "1.png").write_text("no picture")
    with pytest.raises(DataError, match=r"fish/1.png is not a picture that can be read"):
        DogFish().load(root, CPU)


def test_large_photographs_are_scaled_on_their_way_into_the_model(root: Path) -> None:
    """What a model sees is what Pillow makes of the large pictures, normalised by what training pictures then are."""
    dataset = DogFish(size=8, scaler="pillow_box", raw_size=24).load(root, CPU)
    assert (dataset.input_shape, dataset.model_shape) == ((3, 24, 24), (3, 8, 8))
    pixels = (dataset.train.inputs[0] * 255).byte().permute(1, 2, 0).numpy()
    seen = np.array(Image.fromarray(pixels).resize((8, 8), Image.Resampling.BOX)) / 255
    expected = (torch.from_numpy(seen).permute(2, 0, 1).float() - dataset.mean) / dataset.std
    coloured = [0, 2]  # no picture has any green, so that has no deviation
    torch.testing.assert_close(dataset.normalise(dataset.train.inputs[:1])[0][coloured], expected[coloured])
    np.testing.assert_allclose(dataset.mean.flatten().numpy(), [0.6, 0.0, 0.4], atol=1e-6)


def test_a_scaler_makes_pictures_smaller() -> None:
    with pytest.raises(FieldError, match="raw_size: must be at least size=64, got 32"):
        DogFish(scaler="pillow_box", raw_size=32)
