"""Folders that hold part of a run before its first checkpoint, or results without their records."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from folders import SCENARIO, assert_one_line, assert_same_run, command
from omegaconf import OmegaConf

GoingOn = Callable[..., tuple[int, str]]


@pytest.fixture
def begun(whole: Path, tmp_path: Path) -> Path:
    """The folder of the run that nobody disturbed, as a kill after round 2 leaves it, before its first checkpoint."""
    folder = Path(shutil.copytree(whole, tmp_path / "begun"))
    for name in ("checkpoint.safetensors", "checkpoint.previous.safetensors", "summary.json", "model.safetensors"):
        (folder / name).unlink()
    lines = (folder / "rounds.jsonl").read_bytes().splitlines(keepends=True)
    (folder / "rounds.jsonl").write_bytes(b"".join(lines[:3]))
    return folder


@pytest.mark.fault(
    "Beginnings", "choices.json lost or damaged before the first checkpoint", "the same bytes, the choices come back"
)
@pytest.mark.parametrize("content", [None, b"", b"{}", b"[1]", b"null", b'{"attack": 3}', b"\xff", b'{"attack": "d'])
def test_choices(begun: Path, whole: Path, going_on: GoingOn, content: bytes | None) -> None:
    (begun / "choices.json").unlink()
    if content is not None:
        (begun / "choices.json").write_bytes(content)
    code, said = going_on(begun)
    assert code == 0, said
    assert_same_run(begun, whole)


@pytest.mark.fault("Beginnings", "the choices are written nowhere any more", "one line with what to write")
@pytest.mark.parametrize("content", [None, b"{}", b"[1]"])
def test_no_choices(begun: Path, whole: Path, going_on: GoingOn, content: bytes | None) -> None:
    (begun / "choices.json").unlink()
    if content is not None:
        (begun / "choices.json").write_bytes(content)
    shutil.rmtree(begun / ".hydra")
    code, said = going_on(begun)
    assert_one_line(code, said)
    assert "choices.json" in said
    (begun / "choices.json").write_bytes((whole / "choices.json").read_bytes())
    code, said = going_on(begun)
    assert code == 0, said
    assert_same_run(begun, whole)


@pytest.mark.fault("Beginnings", "a run stopped before its first round is recorded", "it goes on to the same bytes")
@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_stopped_at_the_start(
    whole: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    error: type[BaseException],
) -> None:
    def stopped(*_: object) -> None:
        raise error

    folder = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr("fedrobust.runs.run.evaluate_model", stopped)
        code, _ = command([*SCENARIO, f"hydra.run.dir={folder}"], capsys)
        assert code in (1, 130)
    code, said = command([f"resume={folder}"], capsys)
    assert code == 0, said
    assert_same_run(folder, whole)


@pytest.mark.fault("Beginnings", "a new run where results of another lie without records", "one line; they stay")
@pytest.mark.parametrize(
    "name", ["summary.json", "model.safetensors", "checkpoint.safetensors", "checkpoint.previous.safetensors"]
)
def test_results_without_records(whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    shutil.copy(whole / name, folder / name)
    code, said = command([*SCENARIO, f"hydra.run.dir={folder}"], capsys)
    assert_one_line(code, said)
    assert "hydra.run.dir" in said
    assert [path.name for path in folder.iterdir()] == [name]
    assert (folder / name).read_bytes() == (whole / name).read_bytes()


@pytest.mark.fault("Beginnings", "the data are not those that the run began with", "one line; nothing is touched")
@pytest.mark.parametrize("clients", [(0, 1), (1, 2), (3, 0)])
@pytest.mark.parametrize("digit", [0, 5, 9])
def test_other_data(half: Path, whole: Path, going_on: GoingOn, clients: tuple[int, int], digit: int) -> None:
    path = half / "partition.json"
    before = path.read_bytes()
    stored = json.loads(before)
    first, second = (stored["histogram"][client] for client in clients)
    first[digit], second[digit] = first[digit] + 1, second[digit] - 1
    path.write_text(json.dumps(stored))
    changed = path.read_bytes()
    code, said = going_on(half)
    assert_one_line(code, said)
    assert "partition.json" in said
    assert path.read_bytes() == changed
    path.write_bytes(before)
    assert going_on(half)[0] == 0
    assert_same_run(half, whole)


@pytest.mark.fault(
    "Beginnings", "a rule changed by hand before the first checkpoint", "the run is named by its new rule"
)
@pytest.mark.parametrize(
    ("target", "option"),
    [("Mean", "mean"), ("CoordinateMedian", "coordinate_median"), ("GeometricMedian", "geometric_median")],
)
def test_another_rule(begun: Path, going_on: GoingOn, target: str, option: str) -> None:
    config = OmegaConf.load(begun / "config.yaml")
    config.aggregator = {"_target_": f"fedrobust.aggregators.{target}"}
    (begun / "config.yaml").write_text(OmegaConf.to_yaml(config))
    code, said = going_on(begun)
    assert code == 0, said
    assert json.loads((begun / "choices.json").read_text())["aggregator"] == option
