"""Configs that cannot run: each ends before any training with one line that names the key, the value, what is allowed.

The lines that are expected stand in `wrong_configs.txt`, with what the conf/ files say of keys and choices and the
components of ranges.
"""

import logging
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fedrobust.commands.cli import main
from fedrobust.commands.composition_errors import explain
from fedrobust.config.building import ConfigError
from fedrobust.config.compose import compose_config
from fedrobust.records.checkpoint import Checkpoint
from fedrobust.records.run_folder import RunFolder
from fedrobust.runs.run import run_config

Run = Callable[[str], str]

TABLE = (Path(__file__).parent / "wrong_configs.txt").read_text("utf-8")
LINES = [line for line in TABLE.splitlines() if line and not line.startswith("#")]
WRONG = {command.removeprefix("$ fedrobust "): line for command, line in zip(LINES[::2], LINES[1::2], strict=True)}


@pytest.fixture
def refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Run]:
    """Type a command line in an empty folder; gives the line that refuses it, without "fedrobust: "."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["fedrobust"])
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")
    root, on_terminate = logging.getLogger(), signal.getsignal(signal.SIGTERM)
    handlers, level = list(root.handlers), root.level

    def run(command: str) -> str:
        with pytest.raises(SystemExit) as stop:
            main(shlex.split(command))
        lines = capsys.readouterr().err.splitlines()
        assert stop.value.code == 2, lines
        assert len(lines) == 1, lines
        assert lines[0].startswith("fedrobust: ")
        assert "Traceback" not in lines[0]
        return lines[0].removeprefix("fedrobust: ")

    yield run
    for handler in [one for one in root.handlers if one not in handlers]:  # Hydra's, with the log file of the job
        root.removeHandler(handler)
        handler.close()
    root.setLevel(level)
    signal.signal(signal.SIGTERM, on_terminate)


def assert_says(line: str, expected: str) -> None:
    beginning, ends_open, _ = expected.partition("...")
    assert line[: len(beginning)] == beginning
    assert ends_open or line == expected


PLAIN = [command for command in WRONG if all("=" in one and one[0] != "-" for one in shlex.split(command))]
PLAIN = [command for command in PLAIN if not command.startswith("resume=") and "hydra." not in command]
TYPED = [command for command in WRONG if command not in PLAIN] + PLAIN[::15]
"""Those with flags, and every fifteenth of the others, are typed; what the others are told needs no command."""


@pytest.mark.parametrize("command", TYPED)
def test_a_wrong_config_is_refused_in_one_line(refused, tmp_path, command):
    assert_says(refused(command), WRONG[command])
    assert list(tmp_path.rglob("rounds.jsonl")) == []


@pytest.mark.parametrize("command", PLAIN)
def test_what_a_wrong_config_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    """As `main` does, but composed once and without Hydra's job: a third of its time."""
    monkeypatch.chdir(tmp_path)
    overrides = shlex.split(command)

    def play() -> None:
        values, choices = compose_config(overrides)
        run_config(values, tmp_path / "run", choices)

    with pytest.raises((ConfigError, HydraException, OmegaConfBaseException, ValueError, OSError)) as refusal:
        play()
    is_ours = isinstance(refusal.value, ConfigError)
    said = str(refusal.value) if is_ours else explain(refusal.value, overrides)
    assert "\n" not in said
    assert_says(said, WRONG[command])
    assert list(tmp_path.rglob("rounds.jsonl")) == []


def test_there_are_many_wrong_configs():
    assert len(WRONG) >= 60


def test_a_folder_that_holds_a_run_is_left_alone(refused, tmp_path):
    folder = RunFolder(tmp_path / "taken")
    folder.create()
    folder.append_round({"round": 0})
    folder.write_summary({"clean_accuracy": 0.5})
    before = {path: path.read_bytes() for path in folder.path.iterdir()}
    line = refused("hydra.run.dir=taken")
    assert line == "hydra.run.dir: must be a folder without a run, got 'taken'; to go on: resume=taken"
    assert {path: path.read_bytes() for path in folder.path.iterdir()} == before


def test_a_sweep_does_not_write_into_the_folder_of_another(refused, tmp_path):
    cell = RunFolder(tmp_path / "taken" / "0")
    cell.create()
    cell.append_round({"round": 0})
    cell.write_config("seed: 7\n")
    line = refused("-m seed=0,1 hydra.sweep.dir=taken")
    assert line.startswith(f"hydra.sweep.dir: '{cell.path}' holds a run with other settings (")
    assert line.endswith(" in this command); choose another folder")
    assert (cell.path / "config.yaml").read_text() == "seed: 7\n"
    assert not (cell.path / "failure.json").exists()


def test_a_run_folder_that_cannot_be_made(refused, tmp_path):
    (tmp_path / "file").touch()
    expected = (
        f"hydra.run.dir: must be a folder that can be written, got '{tmp_path / 'file' / 'run'}' (Not a directory)"
    )
    assert refused(f"hydra.run.dir={tmp_path / 'file' / 'run'}") == expected


NOT_WITH_RESUME = "cannot be combined with resume; allowed: num_rounds, verbose, data_root, from, accept_changes, trust"


def resumable(folder: RunFolder, *overrides: str, round_number: int) -> None:
    """A stopped run, with as little in it as `resume` looks at."""
    values, choices = compose_config(overrides)
    folder.create()
    folder.write_config(OmegaConf.to_yaml(OmegaConf.create(values)))
    folder.write_choices(choices)
    folder.save_checkpoint(Checkpoint(round_number, {"weight": torch.zeros(1)}, {"seconds": 1.0}))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (
            "num_rounds=ten",
            "num_rounds: must be an integer (Value 'ten' of type 'str' could not be converted to Integer)",
        ),
        ("num_rounds=0", "num_rounds: must be at least 5, the rounds already played, got 0"),
        ("num_rounds=4", "num_rounds: must be at least 5, the rounds already played, got 4"),
        (
            "seed=1",
            f"seed=1: {NOT_WITH_RESUME}",
        ),
        (
            "aggregator=mean",
            f"aggregator=mean: {NOT_WITH_RESUME}",
        ),
    ],
)
def test_a_wrong_change_on_resume(refused, tmp_path, change, expected):
    resumable(RunFolder(tmp_path / "run"), round_number=5)
    assert refused(f"resume=run {change}") == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: [1", "resume: cannot read 'run/config.yaml' ("),
        ("xyzzy: 1\n", "xyzzy: unknown key; allowed: aggregator, attack, "),
        ("num_rounds: many\n", "num_rounds: must be an integer (Value 'many'"),
        ("seed: 1\n", "dataset: must be a component of the kind DatasetSource, got {}"),
    ],
)
def test_resume_from_a_config_that_is_not_ours(refused, tmp_path, text, expected):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text(text)
    assert refused("resume=run").startswith(expected)


@pytest.mark.parametrize("command", ["agregator=mean", "aggregator=xyz", "attack.num_malicious=21"])
def test_as_a_process_of_its_own(tmp_path, command):
    done = subprocess.run(
        [sys.executable, "-m", "fedrobust", command], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 2
    assert done.stderr.rstrip("\n") == f"fedrobust: {WRONG[command]}"
    assert list(tmp_path.rglob("rounds.jsonl")) == []
