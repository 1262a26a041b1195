import errno
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from folders import SCENARIO, assert_one_line, assert_same_run, command

GoingOn = Callable[..., tuple[int, str]]


class Disk:
    """Lets the first few writes below a folder pass, and no other."""

    def __init__(self, folder: Path, room: int, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.room, self.num_refused = str(folder), room, 0
        self.fsync = os.fsync
        monkeypatch.setattr(os, "fsync", self.sync)

    def sync(self, descriptor: int) -> None:
        where = os.readlink(f"/proc/self/fd/{descriptor}")
        if where.startswith(self.folder) and os.path.isfile(where):
            self.room -= 1
            if self.room < 0:
                self.num_refused += 1
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), where)
        self.fsync(descriptor)


@pytest.mark.fault(
    "Full disk", "no room from some write of a run on", "one line that says so; what was kept goes on to the same bytes"
)
@pytest.mark.parametrize("room", range(0, 20))
def test_a_new_run(
    tmp_path: Path, whole: Path, room: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    with monkeypatch.context() as patch:
        disk = Disk(folder, room, patch)
        code, said = command([*SCENARIO, f"hydra.run.dir={folder}"], capsys)
    if not disk.num_refused:
        assert code == 0
        assert_same_run(folder, whole)
        return
    assert_one_line(code, said, expected_code=1)
    assert "the disk is full (No space left on device)" in said
    assert not list(folder.rglob(".*.tmp"))
    again = [f"resume={folder}"] if (folder / "config.yaml").exists() else [*SCENARIO, f"hydra.run.dir={folder}"]
    code, said = command(again, capsys)
    assert code == 0, said
    assert_same_run(folder, whole)


@pytest.mark.fault(
    "Full disk", "no room from some write of a resumed run on", "one line that says so; nothing good is lost"
)
@pytest.mark.parametrize("room", range(0, 12))
def test_a_resumed_run(half: Path, whole: Path, room: int, going_on: GoingOn, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        disk = Disk(half, room, patch)
        code, said = going_on(half)
    if disk.num_refused:
        assert_one_line(code, said, expected_code=1)
        assert "the disk is full" in said
        assert not list(half.rglob(".*.tmp"))
    code, said = going_on(half)
    assert code == 0, said
    assert_same_run(half, whole)


def test_a_link_in_the_place_of_a_temporary_file_is_not_followed(
    half: Path, whole: Path, going_on: GoingOn, tmp_path: Path
) -> None:
    victims: dict[Path, Any] = {}
    for name in ("summary.json", "model.safetensors", "checkpoint.safetensors", "config.yaml", "choices.json"):
        victim = tmp_path / f"victim of {name}"
        victim.write_text("mine")
        (half / f".{name}.tmp").symlink_to(victim)
        victims[victim] = None
    assert going_on(half)[0] == 0
    assert_same_run(half, whole)
    assert all(victim.read_text() == "mine" for victim in victims)


FULL = {
    "the system's error": OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
    "a quota": OSError(errno.EDQUOT, os.strerror(errno.EDQUOT)),
    "SQLite's": RuntimeError("(sqlite3.OperationalError) database or disk is full"),
    "torch's": RuntimeError("PytorchStreamWriter failed writing file: No space left on device"),
}


@pytest.mark.fault("Full disk", "no room for a plot or what a library writes", "one line that says so; the run goes on")
@pytest.mark.parametrize("name", FULL)
@pytest.mark.parametrize("where", ["plot_run", "plot_partition", "write_data"])
def test_others_find_it(
    tmp_path: Path,
    whole: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    where: str,
) -> None:
    def full(*_: object, **__: object) -> None:
        raise ValueError("wrapped") from FULL[name]

    folder = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(f"fedrobust.runs.run.{where}", full)
        code, said = command([*SCENARIO, "plot_formats=[png]", f"hydra.run.dir={folder}"], capsys)
    assert_one_line(code, said, expected_code=1)
    assert f"the disk is full (No space left on device) at {folder}" in said
    code, said = command([f"resume={folder}"], capsys)
    assert code == 0, said
    assert_same_run(folder, whole)


@pytest.mark.fault("Full disk", "no room for the folder or for what Hydra writes", "one line that says so, exit code 1")
@pytest.mark.parametrize("mode", [(), ("-m", "seed=0,1")])
@pytest.mark.parametrize("what", ["mkdir", "config.yaml", "hydra.yaml", "overrides.yaml"])
def test_before_the_run(
    tmp_path: Path,
    whole: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    mode: tuple[str, ...],
    what: str,
) -> None:
    from hydra.core import utils

    saved = utils._save_config

    def save(cfg: Any, filename: str, output_dir: Path) -> None:
        if filename == what:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # as `write` does, which knows no name
        saved(cfg, filename, output_dir)

    def mkdir(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    folder, key = tmp_path / "run", "sweep" if mode else "run"
    arguments = [*mode, *SCENARIO, f"hydra.{key}.dir={folder}"]
    with monkeypatch.context() as patch:
        patch.setattr(utils, "_save_config", save)
        if what == "mkdir":
            patch.setattr(Path, "mkdir", mkdir)
        code, said = command(arguments, capsys)
    assert_one_line(code, said, expected_code=1)
    assert "the disk is full (No space left on device)" in said
    assert command(arguments, capsys)[0] == 0


@pytest.mark.fault("Full disk", "no room for lines of the log", "the run goes on, without a word on standard error")
def test_the_log(
    tmp_path: Path, whole: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full:
        def write(self, _text: str) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        def flush(self) -> None: ...

        def close(self) -> None: ...

    monkeypatch.setattr(logging.FileHandler, "_open", lambda _self: Full())
    code, said = command([*SCENARIO, f"hydra.run.dir={tmp_path / 'run'}"], capsys)
    assert (code, said) == (0, "")
    assert_same_run(tmp_path / "run", whole)
