"""Pictures for `fedrobust-audit`: of every depth and kind they reach the model right, or are refused by name."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from fedrobust.audit_command.command import main
from fedrobust.audit_command.picture_folder import read_picture_folder

GREY = (np.linspace(0, 1, 64).reshape(8, 8) ** 2).astype(np.float64)


def bits(depth: int) -> np.ndarray:
    return np.round(GREY * (2**depth - 1)).astype(np.uint8 if depth == 8 else np.uint16)


def rgb() -> np.ndarray:
    return np.stack([bits(8), 255 - bits(8), bits(8) // 2], axis=2)


def opaque(mode: str) -> Image.Image:
    return Image.fromarray(bits(8)).convert("RGB").convert(mode)


RIGHT: dict[str, Callable[[Path], None]] = {
    "8 bits": lambda path: Image.fromarray(bits(8)).save(path.with_suffix(".png")),
    "16 bits, PNG": lambda path: Image.fromarray(bits(16)).save(path.with_suffix(".png")),
    "16 bits, TIFF": lambda path: Image.fromarray(bits(16)).save(path.with_suffix(".tif")),
    "32 bits that hold 16, TIFF": lambda path: Image.fromarray(bits(16).astype(np.int32)).save(
        path.with_suffix(".tif")
    ),
    "16 bits, PGM": lambda path: Image.fromarray(bits(16)).save(path.with_suffix(".pgm")),
    "grey as colours": lambda path: opaque("RGB").save(path.with_suffix(".png")),
    "grey with full alpha": lambda path: opaque("RGB").convert("LA").save(path.with_suffix(".png")),
    "colours with full alpha": lambda path: opaque("RGBA").save(path.with_suffix(".png")),
    "palette": lambda path: (
        opaque("RGB").convert("P", palette=Image.Palette.ADAPTIVE, colors=256).save(path.with_suffix(".png"))
    ),
    "CMYK": lambda path: opaque("CMYK").save(path.with_suffix(".tif")),
    "BMP": lambda path: Image.fromarray(bits(8)).save(path.with_suffix(".bmp")),
    "PPM": lambda path: opaque("RGB").save(path.with_suffix(".ppm")),
}


def half_transparent() -> Image.Image:
    image = opaque("RGBA")
    image.putalpha(128)
    return image


def transparent_palette(path: Path) -> None:
    opaque("RGB").convert("P").save(path.with_suffix(".png"), transparency=3)


WRONG: dict[str, tuple[Callable[[Path], None], str]] = {
    "transparent": (lambda path: half_transparent().save(path.with_suffix(".png")), "transparent in places"),
    "transparent grey": (
        lambda path: half_transparent().convert("LA").save(path.with_suffix(".png")),
        "transparent in places",
    ),
    "floats": (
        lambda path: Image.fromarray(GREY.astype(np.float32)).save(path.with_suffix(".tif")),
        "scale is not known",
    ),
    "32 bits": (
        lambda path: Image.fromarray((GREY * 2e9).astype(np.int32)).save(path.with_suffix(".tif")),
        "pictures have 8 or 16 bits",
    ),
    "negative": (
        lambda path: Image.fromarray((GREY * 100 - 50).astype(np.int32)).save(path.with_suffix(".tif")),
        "pictures have 8 or 16 bits",
    ),
    "cut short": (
        lambda path: path.with_suffix(".png").write_bytes(_png()[:60]) and None,
        "cannot read",
    ),
    "text": (lambda path: path.with_suffix(".png").write_text("no picture") and None, "cannot read"),
    "empty": (lambda path: path.with_suffix(".png").write_bytes(b"") and None, "cannot read"),
}


def _png() -> bytes:
    import io

    buffer = io.BytesIO()
    Image.fromarray(bits(8)).save(buffer, format="PNG")
    return buffer.getvalue()


@pytest.mark.fault("Pictures", "a picture of any depth and kind", "it reaches the model as it looks")
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", RIGHT)
def test_is_read_right(tmp_path: Path, name: str, channels: int) -> None:
    (tmp_path / "0").mkdir()
    RIGHT[name](tmp_path / "0" / "picture")
    found = read_picture_folder(tmp_path, (channels, 8, 8), None, 0).examples.inputs
    assert found.shape == (1, channels, 8, 8)
    torch.testing.assert_close(found, torch.from_numpy(GREY).float().expand(1, channels, 8, 8), rtol=0, atol=0.006)
    small = read_picture_folder(tmp_path, (channels, 4, 4), None, 0).examples.inputs
    assert float(small.min()) >= 0
    assert abs(float(small.mean()) - GREY.mean()) < 0.03


def test_colours_are_colours(tmp_path: Path) -> None:
    (tmp_path / "0").mkdir()
    Image.fromarray(rgb()).save(tmp_path / "0" / "a.png")
    found = read_picture_folder(tmp_path, (3, 8, 8), None, 0).examples.inputs
    torch.testing.assert_close(found[0], torch.from_numpy(rgb()).permute(2, 0, 1) / 255)


@pytest.mark.fault("Pictures", "a picture that cannot be read right", "one line with the file's name")
@pytest.mark.parametrize("name", WRONG)
def test_is_refused(tmp_path: Path, name: str) -> None:
    make, message = WRONG[name]
    (tmp_path / "0").mkdir()
    make(tmp_path / "0" / "picture")
    with pytest.raises(ValueError, match=message) as refusal:
        read_picture_folder(tmp_path, (1, 8, 8), None, 0)
    assert str(tmp_path / "0" / "picture") in str(refusal.value)
    assert "\n" not in str(refusal.value)


def write(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).mkdir()
        Image.fromarray(bits(8)).save(folder / name / "a.png")


@pytest.mark.fault("Pictures", "class folders missing, or in another order", "labels come from the names")
@pytest.mark.parametrize(
    ("names", "classes", "labels"),
    [
        (["0", "1", "2"], None, [0, 1, 2]),
        (["0", "2", "10"], None, [0, 10, 2]),
        (["7", "9"], None, [7, 9]),
        (["12", "3"], None, [12, 3]),
        (["cat", "dog"], None, [0, 1]),
        (["cat", "dog"], ["dog", "bird", "cat"], [2, 0]),
        (["b", "a"], ["b", "a"], [1, 0]),
        (["1", "2"], ["2", "1"], [1, 0]),
        (["01", "02"], None, [0, 1]),
    ],
)
def test_labels(tmp_path: Path, names: list[str], classes: list[str] | None, labels: list[int]) -> None:
    write(tmp_path, *names)
    found = read_picture_folder(tmp_path, (1, 8, 8), None, 0, classes=classes)
    by_name = {path.parent.name: label for path, label in zip(found.paths, found.examples.labels.tolist(), strict=True)}
    assert by_name == dict(zip(sorted(names), labels, strict=True))
    assert all(found.class_names[label] == name for name, label in by_name.items()) or names == ["01", "02"]


@pytest.mark.fault("Pictures", "a class folder that --classes does not name", "one line with its name")
@pytest.mark.parametrize("classes", [["a"], ["a", "c"], []])
def test_unnamed_classes(tmp_path: Path, classes: list[str]) -> None:
    write(tmp_path, "a", "b")
    with pytest.raises(ValueError, match=r"has subfolders that --classes does not name: (a, )?b"):
        read_picture_folder(tmp_path, (1, 8, 8), None, 0, classes=classes)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of ten classes that knows nothing."""
    from fedrobust.models import MLP

    path = tmp_path_factory.mktemp("model") / "model.pt"
    torch.manual_seed(0)
    torch.save(MLP().build((1, 8, 8), 10).state_dict(), path)
    return path


@pytest.mark.fault(
    "Pictures", "an audit whose model does not know the pictures, or that lacks classes", "one line, no verdict"
)
@pytest.mark.parametrize(
    ("names", "options", "message"),
    [
        (list("0123456789"), "", "no verdict: the model is right about "),
        (list("0123"), "", "no verdict: the model is right about "),
        (["cat", "dog"], "", "must have a subfolder for each of the model's 10 classes, got 2"),
        (["cat", "dog"], "--classes cat,dog", "must have a subfolder for each of the model's 10 classes, got 2"),
        ([f"class {i}" for i in range(11)], "", "must have at most 10 subfolders"),
    ],
)
@pytest.mark.parametrize("audit", ["neural_cleanse", "spectral_signatures"])
def test_no_verdict(
    tmp_path: Path,
    model: Path,
    audit: str,
    names: list[str],
    options: str,
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    write(data, *names)
    command = f"--audit {audit} --architecture mlp --input-size 8x8 --out {tmp_path / 'audit'} {options}"
    assert main([str(model), "--data", str(data), *command.split()]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert len(said.splitlines()) == 1
    assert not (tmp_path / "audit" / "report.json").exists()


@pytest.mark.fault("Pictures", "an audit of a file that is not there", "one line that says so first")
@pytest.mark.parametrize("name", ["nothere.pt", "nothere", "no/where/x.safetensors"])
def test_no_such_file(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([name, "--audit", "neural_cleanse", "--data", "pics"]) == 2
    assert f"there is no '{name}'" in capsys.readouterr().err


@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_a_picture_that_the_camera_turned_is_read_as_it_looks(tmp_path: Path, orientation: int) -> None:
    """Pillow's own transposition is the yardstick; a photograph is stored as the sensor lay."""
    (tmp_path / "0").mkdir()
    path = tmp_path / "0" / "a.png"
    exif = Image.Exif()
    exif[274] = orientation
    Image.fromarray(bits(8)).save(path, exif=exif)
    with Image.open(path) as file:
        looks = np.asarray(ImageOps.exif_transpose(file), dtype=np.float32) / 255
    read = read_picture_folder(tmp_path, (1, *looks.shape[:2]), None, 0).examples.inputs[0, 0].numpy()
    np.testing.assert_allclose(read, looks if looks.ndim == 2 else looks[..., 0], atol=0.01)


@pytest.mark.parametrize(("form", "frames"), [("webp", 2), ("tiff", 3)])
def test_a_picture_of_several_frames_is_refused(tmp_path: Path, form: str, frames: int) -> None:
    (tmp_path / "0").mkdir()
    pictures = [Image.fromarray(bits(8) // (1 + number)) for number in range(frames)]
    pictures[0].save(tmp_path / "0" / f"a.{form}", save_all=True, append_images=pictures[1:])
    with pytest.raises(ValueError, match=f"it has {frames} frames; a picture has one"):
        read_picture_folder(tmp_path, (1, 8, 8), None, 0)


def test_a_picture_of_fewer_bits_than_its_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "0").mkdir()
    Image.fromarray(bits(8).astype(np.uint16) * 16).save(tmp_path / "0" / "a.png")
    with pytest.raises(ValueError, match="it holds fewer bits, or is nearly black"):
        read_picture_folder(tmp_path, (1, 8, 8), None, 0)


def test_a_folder_called_by_a_date_is_no_label(tmp_path: Path) -> None:
    write(tmp_path, "20241231", "20250101")
    with pytest.raises(ValueError, match="subfolder 20250101 is no label; --classes gives the names in their order"):
        read_picture_folder(tmp_path, (1, 8, 8), None, 0)
