"""A run whose benign twin is damaged, exchanged with it, or played again."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from folders import SCENARIO, assert_one_line, assert_same_run, command, rounds_without_times, without_pictures
from omegaconf import OmegaConf

from fedrobust.commands import cli

WITH_TWIN = [*(one for one in SCENARIO if not one.startswith("control")), "control=true"]
GoingOn = Callable[..., tuple[int, str]]
CHECKPOINT = "checkpoint.safetensors"


@pytest.fixture(scope="module")
def twins(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Folders of a run with a twin, both stopped after round 2 of 4, and of the same run, undisturbed."""
    base = tmp_path_factory.mktemp("twins")
    with pytest.MonkeyPatch.context() as patch:
        without_pictures(patch)
        cli.main([*WITH_TWIN, f"hydra.run.dir={base / 'whole'}"])
        cli.main([*WITH_TWIN, f"hydra.run.dir={base / 'half'}", "num_rounds=2"])
    return base / "half", base / "whole"


@pytest.fixture
def run(twins: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    without_pictures(monkeypatch)
    return Path(shutil.copytree(twins[0], tmp_path / "run"))


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def assert_same_twins(folder: Path, whole: Path) -> None:
    assert_same_run(folder, whole)
    ours, theirs = (one / "control" for one in (folder, whole))
    assert (ours / "model.safetensors").read_bytes() == (theirs / "model.safetensors").read_bytes()
    assert rounds_without_times(ours) == rounds_without_times(theirs)


@pytest.mark.fault("Twins", "the checkpoint of a run and that of its twin exchanged", "one line; nothing is touched")
@pytest.mark.parametrize(("source", "target"), [("control", "."), (".", "control")])
@pytest.mark.parametrize("name", [CHECKPOINT, "checkpoint.previous.safetensors"])
def test_exchanged(run: Path, going_on: GoingOn, source: str, target: str, name: str) -> None:
    (run / target / CHECKPOINT).write_bytes((run / source / name).read_bytes())
    before = files_of(run)
    code, said = going_on(run)
    assert_one_line(code, said)
    assert "benign twin" in said
    assert files_of(run) == before


def cut(folder: Path) -> None:
    data = (folder / CHECKPOINT).read_bytes()
    (folder / CHECKPOINT).write_bytes(data[: len(data) // 2])


def flip(folder: Path) -> None:
    data = bytearray((folder / CHECKPOINT).read_bytes())
    data[-3] ^= 4
    (folder / CHECKPOINT).write_bytes(data)


def lose_rounds(folder: Path) -> None:
    (folder / "rounds.jsonl").unlink()


def lose_a_round(folder: Path) -> None:
    lines = (folder / "rounds.jsonl").read_bytes().splitlines(keepends=True)
    (folder / "rounds.jsonl").write_bytes(lines[0] + lines[2])


@pytest.mark.fault("Twins", "a damaged twin", "one line before the run is gone on with, and a way on to the same bytes")
@pytest.mark.parametrize("damage", [cut, flip, lose_rounds, lose_a_round])
def test_damaged(
    run: Path, twins: tuple[Path, Path], going_on: GoingOn, damage: Callable[[Path], None], tmp_path: Path
) -> None:
    damage(run / "control")
    before = files_of(run)
    code, said = going_on(run)
    assert_one_line(code, said)
    assert f"move {run / 'control'} away" in said
    assert f"resume={run / 'control'}" not in said  # which nobody can resume
    assert files_of(run) == before
    (run / "control").rename(tmp_path / "away")
    code, said = going_on(run)
    assert code == 0, said
    assert_same_twins(run, twins[1])


@pytest.mark.fault("Twins", "the user goes on from an earlier round of a run with a twin", "the same bytes")
@pytest.mark.parametrize("wanted", [0, 1, 2])
def test_from_a_round(run: Path, twins: tuple[Path, Path], going_on: GoingOn, wanted: int) -> None:
    code, said = going_on(run, f"from={wanted}")
    assert code == 0, said
    assert_same_twins(run, twins[1])


@pytest.mark.fault("Twins", "a run with a twin played again under a changed config", "both are played under it")
@pytest.mark.parametrize("way", ["from=0", "accept_changes=true"])
def test_under_a_changed_config(run: Path, going_on: GoingOn, way: str, tmp_path: Path) -> None:
    config = OmegaConf.load(run / "config.yaml")
    OmegaConf.update(config, "client.learning_rate", 0.05)
    (run / "config.yaml").write_text(OmegaConf.to_yaml(config))
    code, said = going_on(run, way)
    assert code == 0, said
    for folder in (run, run / "control"):
        rows = [json.loads(line)["round"] for line in (folder / "rounds.jsonl").read_text().splitlines()]
        assert rows == list(range(5))
    if way == "from=0":
        cli.main([*WITH_TWIN, "client.learning_rate=0.05", f"hydra.run.dir={tmp_path / 'other'}"])
        assert_same_twins(run, tmp_path / "other")


@pytest.mark.fault("Twins", "a new run where the folder of its twin is taken", "one line before anything is played")
def test_taken(run: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    shutil.copytree(run / "control", tmp_path / "new" / "control")
    before = files_of(tmp_path / "new" / "control")
    code, said = command([*WITH_TWIN, f"hydra.run.dir={tmp_path / 'new'}"], capsys)
    assert_one_line(code, said)
    assert not (tmp_path / "new" / "rounds.jsonl").exists()
    assert files_of(tmp_path / "new" / "control") == before
