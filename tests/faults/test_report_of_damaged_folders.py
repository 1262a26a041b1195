"""A report over many runs, some of whose folders are damaged."""

import json
from pathlib import Path

import pytest

from fedrobust.records.report import main
from fedrobust.records.run_folder import RunFolder

FIGURES = {"attack_success_rate": 0.25, "clean_accuracy": 0.9}


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Three good runs, of two rules."""
    for name, rule, seed in (("a", "mean", 0), ("b", "mean", 1), ("c", "krum", 0)):
        folder = RunFolder(tmp_path / "runs" / name)
        folder.create()
        folder.write_config(f"seed: {seed}\nnum_clients: 4\n")
        folder.write_choices({"attack": "dba", "aggregator": rule})
        folder.append_round({"round": 0})
        folder.write_summary(FIGURES)
    return tmp_path / "runs"


CONTENTS: dict[str, bytes] = {
    "empty": b"",
    "half": b'{"seed": [1, {"a',
    "bytes": b"\xff\xfe\x00\x01\x80",
    "NUL": bytes(200),
    "a list": b"[1, 2]",
    "a number": b"17",
    "broken YAML": b"seed: [1\nb: {",
    "a tab": b"seed:\t- 1\n\t- 2",
    "an unknown tag": b"seed: !!python/object:os.system {}\n",
    "deep": b"[" * 3000,
    "a missing anchor": b"seed: *nowhere\n",
}


@pytest.mark.fault("Reports", "a file of one run damaged", "the others are reported, it is named; exit code 1")
@pytest.mark.parametrize("name", ["config.yaml", "choices.json", "summary.json"])
@pytest.mark.parametrize("content", CONTENTS)
def test_one_damaged(runs: Path, capsys: pytest.CaptureFixture[str], name: str, content: str) -> None:
    (runs / "b" / name).write_bytes(CONTENTS[content])
    assert main([str(runs)]) == 1
    said = capsys.readouterr()
    assert f"{runs / 'b'}: damaged, left out: " in said.out
    assert "Traceback" not in said.out + said.err
    page = (runs / "report" / "report.md").read_text()
    assert "25.0 % (n=1)" in page
    assert "damaged" in page
    assert str(runs / "b") in page
    cells = json.loads((runs / "report" / "report.json").read_text())
    assert sorted(cell["aggregator"] for cell in cells) == ["krum", "mean"]


@pytest.mark.fault("Reports", "another file of one run damaged", "the others are reported, it is named; exit code 1")
@pytest.mark.parametrize("name", ["failure.json", "environment.json"])
@pytest.mark.parametrize("content", ["empty", "half", "bytes", "NUL", "a list", "deep"])
def test_another_damaged(runs: Path, capsys: pytest.CaptureFixture[str], name: str, content: str) -> None:
    (runs / "b" / name).write_bytes(CONTENTS[content])
    assert main([str(runs)]) == 1
    assert f"{runs / 'b'}: damaged, left out: " in capsys.readouterr().out


@pytest.mark.fault("Reports", "a file of one run lost", "the others are reported, it is named; exit code 1")
@pytest.mark.parametrize("lost", [("choices.json",), ("config.yaml",), ("choices.json", "summary.json")])
def test_lost(runs: Path, capsys: pytest.CaptureFixture[str], lost: tuple[str, ...]) -> None:
    for name in lost:
        (runs / "b" / name).unlink()
    assert main([str(runs)]) == 1
    assert f"{runs / 'b'}: damaged, left out: " in capsys.readouterr().out


@pytest.mark.fault("Reports", "a folder in the place of one run's file", "the others are reported; exit code 1")
@pytest.mark.parametrize("name", ["config.yaml", "choices.json", "summary.json"])
def test_a_folder(runs: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    (runs / "b" / name).unlink()
    (runs / "b" / name).mkdir()
    assert main([str(runs)]) == 1
    assert f"{runs / 'b'}: damaged, left out: " in capsys.readouterr().out


@pytest.mark.fault("Reports", "every run damaged", "one line that names one of them; exit code 2")
@pytest.mark.parametrize("content", ["empty", "broken YAML", "bytes"])
def test_all_damaged(runs: Path, capsys: pytest.CaptureFixture[str], content: str) -> None:
    for folder in runs.iterdir():
        (folder / "config.yaml").write_bytes(CONTENTS[content])
    assert main([str(runs)]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    (line,) = said.err.splitlines()
    assert "3 are damaged" in line
    assert str(runs / "a") in line


def test_what_is_no_damage(runs: Path) -> None:
    """Hydra's own copy of a config, a twin's folder, and what was set aside are no runs of their own."""
    (runs / "a" / ".hydra").mkdir()
    (runs / "a" / ".hydra" / "config.yaml").write_text("seed: 0\n")
    for name in ("control", "earlier-1"):
        (runs / "a" / name).mkdir()
        (runs / "a" / name / "rounds.jsonl").write_text('{"round": 0}\n')
    assert main([str(runs)]) == 0


@pytest.mark.fault("Reports", "a run whose settings were changed midway", "it is not averaged with runs that were not")
@pytest.mark.parametrize("key", ["client.learning_rate", "aggregator._target_", "num_clients"])
def test_changed_midway(runs: Path, key: str) -> None:
    RunFolder(runs / "b").write_change(3, {key: ("0.1", "0.2"), "num_rounds": ("4", "6")})
    assert main([str(runs)]) == 0
    page = (runs / "report" / "report.md").read_text()
    assert "(n=2)" not in page
    assert f"{key} after round 3" in page


@pytest.mark.parametrize("key", ["num_rounds", "verbose", "data_root", "logger.folder"])
def test_what_may_change_makes_no_difference(runs: Path, key: str) -> None:
    RunFolder(runs / "b").write_change(3, {key: ("4", "6")})
    assert main([str(runs)]) == 0
    assert "(n=2)" in (runs / "report" / "report.md").read_text()
