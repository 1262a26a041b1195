"""A run's folder with something in it that is neither a file nor a folder of its own."""

import json
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from folders import assert_one_line, command
from safetensors.torch import load_file, save_file

from fedrobust.audit_command.command import main as audit
from fedrobust.records.report import main as report

AREA = "Other people's folders"


@pytest.fixture(autouse=True)
def in_time() -> Iterator[None]:
    """A pipe that is waited for would never end."""

    def give_up(*_: object) -> None:
        raise TimeoutError("waited for a pipe")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.fault(AREA, "a pipe in the place of a file", "one line with its path")
@pytest.mark.parametrize("name", ["checkpoint.safetensors", "rounds.jsonl", "choices.json", "summary.json", "new"])
def test_a_pipe(half: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    (half / name).unlink(missing_ok=True)
    os.mkfifo(half / name)
    code, said = command([f"resume={half}"], capsys)
    assert_one_line(code, said)
    assert f"resume: {str(half / name)!r} must be a file or a folder" in said


@pytest.mark.fault(AREA, "a folder of pictures that is a link", "one line with its path; nothing is written there")
@pytest.mark.parametrize("name", ["plots", "audits", "earlier-1", "fedrobust.log"])
def test_a_link_out(half: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    path = half / name
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    path.symlink_to(elsewhere)
    code, said = command([f"resume={half}"], capsys)
    assert_one_line(code, said)
    assert f"resume: {str(path)!r} is a link out of the folder" in said
    assert list(elsewhere.iterdir()) == []


@pytest.mark.fault(AREA, "a summary whose figures are not those of the rounds", "it is named as damaged, not reported")
@pytest.mark.parametrize(
    ("name", "value"), [("clean_accuracy", 0.999), ("attack_success_rate", 0.0), ("clean_accuracy", None)]
)
def test_an_edited_summary(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, value: float | None
) -> None:
    folder = Path(shutil.copytree(whole, tmp_path / "runs" / "edited"))
    shutil.copytree(whole, tmp_path / "runs" / "other")
    summary = json.loads((folder / "summary.json").read_text())
    (folder / "summary.json").write_text(json.dumps({**summary, name: value}))
    capsys.readouterr()
    assert report([str(tmp_path / "runs")]) == 1
    captured = capsys.readouterr()
    assert "does not fit rounds.jsonl" in " ".join((captured.out + captured.err).split())


@pytest.mark.fault(AREA, "a model whose weights are not those of the last checkpoint", "it is not audited; one line")
@pytest.mark.parametrize("name", ["first", "last"])
def test_an_edited_model(whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    folder = Path(shutil.copytree(whole, tmp_path / "run"))
    values = load_file(folder / "model.safetensors")
    key = sorted(values)[-1] if name == "last" else sorted(values)[0]
    values[key] = values[key].clone()
    values[key].flatten()[0] += 1e-3
    save_file(values, folder / "model.safetensors")
    capsys.readouterr()
    assert audit([str(folder), "--audit", "weight_hash", "--out", str(tmp_path / "audit")]) == 2
    assert not (tmp_path / "audit").exists()
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert "model.safetensors does not fit checkpoint.safetensors" in lines[0]


@pytest.mark.parametrize("target", ["fedrobust.nothing.X", "fedrobust.aggregators.Nothing", "fedrobust.models..MLP"])
def test_a_component_that_there_is_not(half: Path, capsys: pytest.CaptureFixture[str], target: str) -> None:
    config = (half / "config.yaml").read_text()
    (half / "config.yaml").write_text(config.replace("fedrobust.models.MLP", target))
    code, said = command([f"resume={half}"], capsys)
    assert_one_line(code, said)
    assert target in said
