"""The runs below a folder, read back from what each left in its own."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from fedrobust.config.foreign import read_foreign
from fedrobust.config.settings import FREE, leaves

# What may differ between two runs of the same scenario: the seed, where, how loudly and to whom a run reports, and
# whether a benign twin is played after it.
_NOT_THE_SCENARIO = frozenset({"seed", "hydra", "logger", "verbose", "resume", "control"})
_PLACES = ("folder", "_dir", "path")
_OF_A_RUN = ("config.yaml", "choices.json", "rounds.jsonl")


@dataclass(frozen=True)
class Run:
    """One run.

    Attributes:
        folder: where it lies.
        choices: the option chosen of each config group.
        settings: the config's leaves by dotted name, as text, without the seed and what does not define the scenario.
        seed: the scenario's seed.
        status: whether it finished, failed, or left neither a summary nor a failure.
        reason: why it did not finish; empty if it did.
        summary: its final figures; empty if it did not finish.
        started_at: ISO 8601, UTC; empty if unknown.
    """

    folder: Path
    choices: Mapping[str, str]
    settings: Mapping[str, str]
    seed: int
    status: Literal["finished", "failed", "unfinished"]
    reason: str
    summary: Mapping[str, Any]
    started_at: str

    def value(self, key: str) -> str | None:
        """What was chosen for the config group `key`, or the setting of that dotted name; `None` if absent."""
        return self.choices.get(key, self.settings.get(key))


def find_runs(root: Path) -> tuple[list[Run], dict[Path, str]]:
    """The runs in `root` and the folders below it, sorted by path, and the folders that are damaged, with the reason.

    Raises:
        ValueError: there is no run that can be read.
    """
    # Hydra writes a config.yaml too, in .hydra/, and a twin has rounds, but neither has two of these.
    candidates = {path.parent for name in _OF_A_RUN for path in root.rglob(name)}
    folders = sorted(one for one in candidates if sum((one / name).exists() for name in _OF_A_RUN) >= 2)
    runs: list[Run] = []
    damaged: dict[Path, str] = {}
    for folder in folders:
        try:
            runs.append(_read(folder))
        except Exception as error:  # what the YAML parser raises has no type in OmegaConf's terms
            damaged[folder] = " ".join(str(error).split())[:200]
    if not runs:
        more = f"; {len(damaged)} are damaged, such as {next(iter(damaged.items()))}" if damaged else ""
        raise ValueError(f"no runs below {root} (a run is a folder with config.yaml and choices.json){more}")
    return runs, damaged


def _read(folder: Path) -> Run:
    for name in ("config.yaml", "choices.json"):
        if not (folder / name).is_file():
            raise ValueError(f"{folder / name}: is missing")
    config = read_foreign(folder / "config.yaml")
    seed = config.get("seed")
    if not isinstance(seed, int):
        raise ValueError(f"{folder / 'config.yaml'}: seed must be an integer, got {seed!r}")
    choices = {group: option for group, option in _json(folder / "choices.json").items() if _is_scenario(group)}
    summary, failure = folder / "summary.json", folder / "failure.json"
    status: Literal["finished", "failed", "unfinished"] = "unfinished"
    reason = "still running, or killed"
    if failure.exists():
        status, reason = "failed", " ".join(str(_json(failure).get("reason", "no reason given")).split())
    elif summary.exists():
        status, reason = "finished", ""
    found = _json(summary) if status == "finished" else {}
    if status == "finished":
        _check_summary(found, folder)
    environment = folder / "environment.json"
    return Run(
        folder=folder,
        choices=choices,
        settings={name: str(value) for name, value in leaves(config) if _is_scenario(name)} | _changes(folder),
        seed=seed,
        status=status,
        reason=reason,
        summary=found,
        started_at=str(_json(environment).get("started_at", "")) if environment.exists() else "",
    )


def _check_summary(summary: Mapping[str, Any], folder: Path) -> None:
    """Look whether a summary's figures are those of the last evaluation in rounds.jsonl, if there is one.

    Raises:
        ValueError: they are not.
    """
    path = folder / "rounds.jsonl"
    rows: list[dict[str, Any]] = [json.loads(one) for one in path.read_bytes().splitlines()] if path.is_file() else []
    last = next((row for row in reversed(rows) if row.get("clean_accuracy") is not None), None)
    for name in ("clean_accuracy", "attack_success_rate"):
        if last is not None and repr(summary.get(name)) != repr(last.get(name)):  # NaN is NaN
            raise ValueError(
                f"{folder / 'summary.json'}: does not fit rounds.jsonl: {name} is {summary.get(name)!r}, "
                f"and {last.get(name)!r} in its last evaluation"
            )


def _changes(folder: Path) -> dict[str, str]:
    """What was changed while the run was played, as a setting of its own: it is no run under either."""
    path = folder / "changes.jsonl"
    notes = [json.loads(line) for line in path.read_bytes().splitlines()] if path.exists() else []
    changes = [
        f"{name} after round {note['after_round']}"
        for note in notes
        for name in note["changes"]
        if not name.startswith(FREE)
    ]
    return {"changed": ", ".join(changes)} if changes else {}


def _is_scenario(name: str) -> bool:
    first, last = name.replace("/", ".").split(".")[0], name.split(".")[-1]
    return first not in _NOT_THE_SCENARIO and not last.endswith(_PLACES)


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not JSON ({error})") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path}: not a JSON object")
    return content
