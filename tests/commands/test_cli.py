"""The command line beyond single wrong values: help, runs that fail, sweeps with a cell that fails."""

import json
import logging
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import ClassVar

import pytest
import torch

from fedrobust.aggregators import Aggregate, Mean
from fedrobust.commands.cli import main
from fedrobust.config.building import config_folder
from fedrobust.config.component import component
from fedrobust.records.run_folder import RunFolder

TINY = "model=logistic num_clients=4 attack.num_malicious=1 num_rounds=3 dataset.num_test=1000 client.num_epochs=1"
GROUPS = (
    "dataset",
    "partition",
    "model",
    "client",
    "attack",
    "preaggregator",
    "aggregator",
    "server",
    "server_optimizer",
    "watermark",
    "audit",
    "engine",
    "logger",
    "experiment",
)

Command = Callable[[str], tuple[int, str, str]]


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Command]:
    """Type a command line in an empty folder; gives exit code, standard output and standard error."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["fedrobust"])
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    root, on_terminate = logging.getLogger(), signal.getsignal(signal.SIGTERM)
    handlers, level = list(root.handlers), root.level

    def run(line: str) -> tuple[int, str, str]:
        code = 0
        try:
            main(shlex.split(line))
        except SystemExit as stop:
            code = int(stop.code or 0)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    yield run
    for handler in [one for one in root.handlers if one not in handlers]:  # Hydra's, with the log file of the job
        root.removeHandler(handler)
        handler.close()
    root.setLevel(level)
    signal.signal(signal.SIGTERM, on_terminate)


@component
class FailsLater:
    """The mean, until it has been called `NUM_CALLS` times."""

    NUM_CALLS: ClassVar[int] = 2  # in round 1, in round 2
    calls: ClassVar[list[int]] = []

    def __call__(self, updates: torch.Tensor, weights: torch.Tensor | None = None) -> Aggregate:
        self.calls.append(len(updates))
        if len(self.calls) == self.NUM_CALLS:
            raise ValueError(f"FailsLater needs n >= 2f + 3,\ngot n={len(updates)}, f=1")
        return Mean()(updates, weights)


def test_help_shows_the_groups_and_six_examples(command, tmp_path):
    code, out, err = command("--help")
    assert (code, err) == (0, "")
    for group in GROUPS:
        assert any(line.startswith(f"{group} ") for line in out.splitlines()), group
    for choice in sorted(path.stem for path in (config_folder() / "aggregator").glob("*.yaml")):
        assert choice in out
    examples = out.partition("== Examples ==\n")[2].partition("\n\n")[0].splitlines()
    assert len(examples) == 6
    assert all(line.startswith("fedrobust") for line in examples)
    assert "assumed_fraction: 0.2" in out
    assert list(tmp_path.iterdir()) == []
    module = subprocess.run(
        [sys.executable, "-m", "fedrobust", "--help"], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert (module.returncode, module.stdout, module.stderr) == (0, out, "")


def test_version_is_no_error(command):
    assert command("--version")[0] == 0


def test_what_goes_wrong_in_a_run_is_one_line_and_what_was_computed_stays(command, tmp_path):
    FailsLater.calls.clear()
    rule = "{_target_:" + __name__ + ".FailsLater}"
    code, out, err = command(f"{TINY} ~aggregator +aggregator='{rule}' checkpoint_every=0 hydra.run.dir=run")
    reason = "ValueError: FailsLater needs n >= 2f + 3, got n=4, f=1"
    folder = tmp_path / "run"
    assert (code, err) == (
        1,
        f"fedrobust: {reason}; what was computed, and the traceback in failure.json, are in {folder}\n",
    )
    assert "Traceback" not in out
    failure = json.loads((folder / "failure.json").read_text())
    assert failure["reason"] == reason
    assert failure["traceback"].startswith("Traceback (most recent call last):")
    assert [row["round"] for row in RunFolder(folder).read_rounds()] == [0, 1]
    checkpoint = RunFolder(folder).load_checkpoint()
    assert checkpoint is not None
    assert checkpoint.round == 1
    assert (folder / "model.safetensors").exists()
    # The second call is behind it: the run can go on from where it stopped, if somebody vouches for its rule.
    code, _, err = command("resume=run verbose=false")
    assert (code, "which is not run" in err) == (2, True)
    code, _, err = command(f"resume=run verbose=false trust={__name__}")
    assert (code, err) == (0, "")
    assert [row["round"] for row in RunFolder(folder).read_rounds()] == [0, 1, 2, 3]
    assert not (folder / "failure.json").exists()


def test_a_cell_that_fails_does_not_take_the_others_with_it(command, tmp_path):
    sweep = f"-m {TINY} verbose=false attack.data.trigger.top=8,0 num_rounds=1 hydra.sweep.dir=sweep"
    code, out, err = command(sweep)
    assert (code, err) == (1, "")
    assert "Traceback" not in out
    reason = "attack.data.trigger: must lie within the 8x8 picture, got rows 8 to 8 and columns 0 to 1 (dataset=digits)"
    assert f"sweep/0 failed: {reason}" in out
    assert out.splitlines()[-1] == "1 runs failed; see them with: fedrobust-report sweep"
    failed, finished = tmp_path / "sweep" / "0", tmp_path / "sweep" / "1"
    assert json.loads((failed / "failure.json").read_text()) == {"reason": reason}
    assert json.loads((failed / "choices.json").read_text())["attack"] == "dba"
    assert (failed / "config.yaml").exists()
    assert not (failed / "rounds.jsonl").exists()
    assert json.loads((finished / "summary.json").read_text())["num_rounds"] == 1
    assert not (finished / "failure.json").exists()


def test_two_cells_in_one_folder_do_not_overwrite_each_other(command, tmp_path):
    sweep = f"-m {TINY} verbose=false num_rounds=1 seed=0,1 hydra.sweep.dir=sweep hydra.sweep.subdir=cell"
    code, _, err = command(sweep)
    cell = tmp_path / "sweep" / "cell"
    assert code == 2
    assert err == (
        f"fedrobust: hydra.sweep.dir: '{cell}' holds a run with other settings (seed: 0 there, 1 in this command); "
        "choose another folder\n"
    )
    assert (cell / "summary.json").exists()
    assert "seed: 0" in (cell / "config.yaml").read_text()


def test_a_list_where_one_choice_belongs_fails_its_cell_alone(command, tmp_path):
    """Hydra merges the configs of a list: the last rule would run under the name of both."""
    code, _, err = command(f"-m {TINY} verbose=false num_rounds=1 aggregator=[mean,krum],mean hydra.sweep.dir=sweep")
    assert (code, err) == (1, "")
    reason = "aggregator: must be one choice, got [mean,krum]; to sweep over several: -m aggregator=A,B"
    failed, finished = tmp_path / "sweep" / "0", tmp_path / "sweep" / "1"
    assert json.loads((failed / "failure.json").read_text()) == {"reason": reason}
    assert json.loads((failed / "choices.json").read_text())["aggregator"] == "mean+krum"
    assert not (failed / "rounds.jsonl").exists()
    assert json.loads((finished / "choices.json").read_text())["preaggregator"] == "none"
    assert (finished / "summary.json").exists()


END_WHILE_IMPORTING = """
import os, signal, sys

NUMBER = signal.Signals[sys.argv[1]]
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell without job control starts jobs that ignore it

class Ending:
    def find_spec(self, name, path, target=None):
        if name == "fedrobust.runs.run":
            os.kill(os.getpid(), NUMBER)

sys.meta_path.insert(0, Ending())
from fedrobust.commands.cli import main
main(["seed=0"])
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_signal_while_libraries_are_imported_ends_the_process_at_once(tmp_path, name):
    """As an exception within an import it may be caught there, or leave a module half made: hundreds of lines."""
    done = subprocess.run(
        [sys.executable, "-c", END_WHILE_IMPORTING, name], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stdout, done.stderr) == (-signal.Signals[name], "", "")
