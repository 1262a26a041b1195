"""What a folder says of itself is kept: figures as they were played, nothing changed by what is refused."""

import json
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from folders import SCENARIO, assert_one_line, assert_same_run, command

from fedrobust.records.checkpoint import Checkpoint
from fedrobust.records.run_folder import RunFolder
from fedrobust.runs.run import summarise

GoingOn = Callable[..., tuple[int, str]]


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


NUMBER = re.compile(rb'("(?:clean_accuracy|clean_loss|seconds_training|num_received)": )([\d.e-]+)')


@pytest.mark.fault("Rounds' records", "a figure of a round changed", "one line and a way on; then the same bytes")
@pytest.mark.parametrize("line", [0, 1, 2])
@pytest.mark.parametrize("which", ["clean_accuracy", "clean_loss", "a space more", "another attacker"])
def test_a_changed_figure(half: Path, whole: Path, going_on: GoingOn, line: int, which: str) -> None:
    path = half / "rounds.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    row = json.loads(lines[line])
    if which == "a space more":
        lines[line] = lines[line].replace(b": ", b":  ", 1)
    else:
        if which == "another attacker":
            row["malicious_clients"] = [3, 2]
        else:
            row[which] = 0.123
        lines[line] = json.dumps(row).encode() + b"\n"
    path.write_bytes(b"".join(lines))
    before = files_of(half)
    code, said = going_on(half)
    assert_one_line(code, said)
    assert "rounds.jsonl" in said
    assert files_of(half) == before
    assert going_on(half, "from=0")[0] == 0
    assert_same_run(half, whole)


@pytest.mark.fault("Checkpoints", "a round to go back to that the records do not reach", "one line; nothing is touched")
@pytest.mark.parametrize("wanted", [1, 2])
@pytest.mark.parametrize("kept", [0, 1])
def test_refused_without_a_trace(half: Path, whole: Path, going_on: GoingOn, wanted: int, kept: int) -> None:
    path = half / "rounds.jsonl"
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:kept]))
    before = files_of(half)
    code, said = going_on(half, f"from={wanted}")
    assert_one_line(code, said)
    assert files_of(half) == before
    assert going_on(half, "from=0")[0] == 0
    assert_same_run(half, whole)


@pytest.mark.fault("Checkpoints", "a run played again several times", "all that was there before is kept")
@pytest.mark.parametrize("ways", [("from=0", "from=0"), ("from=1", "from=0"), ("from=1", "from=1", "from=0")])
def test_every_attempt_is_kept(half: Path, whole: Path, going_on: GoingOn, ways: tuple[str, ...]) -> None:
    for number, way in enumerate(ways, start=1):
        if way != "from=0":  # the rounds to come must have a checkpoint of round 1 to go back to
            shutil.copy(half / "checkpoint.previous.safetensors", half / "kept")
        rounds, model = (half / "rounds.jsonl").read_bytes(), (half / "model.safetensors").read_bytes()
        code, said = going_on(half, way)
        assert code == 0, said
        assert_same_run(half, whole)
        earlier = half / f"earlier-{number}"
        assert (earlier / "rounds.jsonl").read_bytes() == rounds
        assert (earlier / "model.safetensors").read_bytes() == model
        if way != "from=0" and number < len(ways):
            (half / "kept").replace(half / "checkpoint.previous.safetensors")


@pytest.mark.fault("Checkpoints", "a whole checkpoint of a model that has diverged", "one line that names the tensor")
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("place", [0, -1])
def test_a_model_that_has_diverged(half: Path, going_on: GoingOn, value: float, place: int) -> None:
    records = RunFolder(half)
    checkpoint = Checkpoint.read(records.checkpoint_file)
    name = sorted(one for one in checkpoint.tensors if not one.startswith("memory/"))[place]
    values = checkpoint.tensors[name].clone()
    values.view(-1)[place] = value
    (records.checkpoint_file).write_bytes(replace(checkpoint, tensors={**checkpoint.tensors, name: values}).to_bytes())
    before = files_of(half)
    code, said = going_on(half)
    assert_one_line(code, said)
    assert repr(name) in said
    assert "not finite" in said
    assert files_of(half) == before


@pytest.mark.parametrize("numbers", [[], [1, 2], [0, 2], [0, 1, 1], [2, 1, 0], [5]])
def test_no_summary_of_other_rounds(numbers: list[int]) -> None:
    rows = [{"round": number, "clean_accuracy": 0.5} for number in numbers]
    with pytest.raises(ValueError, match="every round from 0 on"):
        summarise(rows, 0.0)


@pytest.mark.fault("Full disk", "temporary files of a process that was killed", "the next owner removes them")
@pytest.mark.parametrize("name", [".failure.json.tmp", ".checkpoint.safetensors.tmp", ".partition.json.tmp", ".x.tmp"])
@pytest.mark.parametrize("kind", ["file", "link"])
def test_leftovers(half: Path, whole: Path, going_on: GoingOn, name: str, kind: str, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine")
    if kind == "file":
        (half / name).write_bytes(b"half a file")
    else:
        (half / name).symlink_to(victim)
    assert going_on(half)[0] == 0
    assert_same_run(half, whole)
    assert not os.path.lexists(half / name)
    assert victim.read_text() == "mine"


@pytest.mark.fault("Rounds' records", "rounds.jsonl is a link to somewhere else", "its target is untouched")
@pytest.mark.parametrize("exists", [True, False])
def test_a_link(tmp_path: Path, whole: Path, capsys: pytest.CaptureFixture[str], exists: bool) -> None:
    victim = tmp_path / "victim"
    if exists:
        victim.write_text("mine\n")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "rounds.jsonl").symlink_to(victim)
    code, said = command([*SCENARIO, f"hydra.run.dir={tmp_path / 'run'}"], capsys)
    assert victim.exists() == exists
    if exists:
        assert_one_line(code, said)
        assert victim.read_text() == "mine\n"
    else:  # it leads nowhere, and makes room for the run's own file
        assert_same_run(tmp_path / "run", whole)


@pytest.mark.fault(
    "Configs", "a password or token in the config", "it stays in config.yaml and in .hydra, and nowhere else"
)
@pytest.mark.parametrize(
    ("uri", "secret"),
    [
        ("http://me:hunter2@x", "hunter2"),
        ("http://x?token=abc123", "abc123"),
        ("file:///x?api_key=q9", "q9"),
    ],
)
def test_secrets(tmp_path: Path, whole: Path, uri: str, secret: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from fedrobust.config.compose import compose_config
    from fedrobust.records.loggers import MLflow
    from fedrobust.runs.run import run_config

    class Silent:
        def log_round(self, row: object) -> None: ...

        def finish(self, summary: object) -> None: ...

    monkeypatch.setattr(MLflow, "open", lambda *_args, **_kwargs: Silent())
    short = [one for one in SCENARIO if not one.startswith("num_rounds")]
    values, choices = compose_config([*short, "num_rounds=2", "logger=mlflow", f"logger.tracking_uri='{uri}'"])
    run_config(values, tmp_path / "run", choices)
    run_config({**values, "num_rounds": 3}, tmp_path / "run", choices, resume=True)
    holding = [name for name, data in files_of(tmp_path / "run").items() if secret.encode() in data]
    assert holding == ["config.yaml"]
