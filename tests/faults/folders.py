"""A small run whose folder is damaged on purpose, and how a command that meets it ends."""

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from fedrobust.commands import cli
from fedrobust.records.run_folder import RunFolder

SCENARIO = [
    "num_clients=4",
    "num_rounds=4",
    "checkpoint_every=1",
    "attack.num_malicious=1",
    "aggregator=centred_clipping",  # which remembers, as does
    "server_optimizer=momentum",
    "control=false",
    "verbose=false",
    "plot_formats=[]",
    "model.hidden_sizes=[8]",
]
SAME = ("model.safetensors", "choices.json", "partition.json", "partition.safetensors")
"""Files that must come out byte for byte; rounds.jsonl is compared without its times."""


def command(arguments: Sequence[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """The exit code of `fedrobust ARGUMENTS`, and what it says on standard error."""
    capsys.readouterr()
    code, handlers = 0, list(logging.root.handlers)
    try:
        cli.main(list(arguments))
    except SystemExit as stop:
        code = int(stop.code or 0)
    for handler in logging.root.handlers:
        if handler not in handlers:  # writes to what pytest will have closed
            logging.root.removeHandler(handler)
    return code, capsys.readouterr().err


def rounds_without_times(folder: Path) -> list[dict[str, Any]]:
    rows = RunFolder(folder).read_rounds()
    return [{key: value for key, value in row.items() if not key.startswith("seconds")} for row in rows]


def assert_same_run(folder: Path, whole: Path) -> None:
    """The run in `folder` came out as the one that nobody disturbed."""
    for name in SAME:
        assert (folder / name).read_bytes() == (whole / name).read_bytes(), name
    assert rounds_without_times(folder) == rounds_without_times(whole)
    ours, theirs = (json.loads((one / "summary.json").read_text()) for one in (folder, whole))
    for key in (*ours.keys(), *theirs.keys()):
        if "seconds" not in key:
            assert ours[key] == theirs[key], key
    assert not list(folder.glob(".*.tmp"))


def assert_one_line(code: int, said: str, expected_code: int = 2) -> None:
    """What was said is one line of the command's, and no traceback."""
    assert code == expected_code, said
    lines = [line for line in said.splitlines() if line.strip()]
    assert len(lines) == 1, said
    assert lines[0].startswith("fedrobust: ")
    assert "Traceback" not in said


def without_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let runs of this process draw nothing."""
    for name in ("plot_run", "plot_partition", "plot_examples"):
        monkeypatch.setattr(f"fedrobust.runs.run.{name}", lambda *_args, **_kwargs: None)
