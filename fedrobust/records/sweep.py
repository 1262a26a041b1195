"""Sweeps: which cells there are, which are done, and which are left when the same command comes again.

Hydra makes one run of each combination of values, a cell, in a folder of its own. A cell that has finished is skipped,
one that was cut goes on, one that failed or never began is played.
"""

import contextlib
import sys
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Any, NoReturn

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper  # private, but it alone knows the grid
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf, open_dict

from fedrobust.config.settings import flat_settings
from fedrobust.records.full_disk import explain_full_disk
from fedrobust.records.lock import FolderInUseError, free_folder, locked
from fedrobust.records.results import is_taken

BAD_CONFIG, FAILED = 2, 1
_OWN = ("hydra.", "verbose", "plot_formats", "resume")


class CellState(Enum):
    """What is to be done with a cell."""

    PLAY = "plays"
    GO_ON = "goes on"
    SKIP = "is done"


class SweepReport(Callback):
    """Before Hydra writes into a folder: whether it may. After a sweep: how many cells failed."""

    num_failed = 0
    num_in_use = 0
    num_cells: int | None = None
    locks = contextlib.ExitStack()
    """Of the folder of this process' run or sweep."""

    def on_run_start(self, config: DictConfig, **_: Any) -> None:
        """Claim a folder of the run's own; refuse that of another run."""
        folder = Path(config.hydra.run.dir)
        if not _is_chosen(config, "hydra.run.dir"):
            folder = _claim("hydra.run.dir", folder)
            _set(config, "run", folder)
        self._hold("hydra.run.dir", folder)
        if is_taken(folder):
            stop(f"hydra.run.dir: must be a folder without a run, got {str(folder)!r}; to go on: resume={folder}")

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Claim a folder of the sweep's own, or go on in that of the same sweep; refuse any other."""
        folder = Path(config.hydra.sweep.dir)
        if not _is_chosen(config, "hydra.sweep.dir"):
            folder = _claim("hydra.sweep.dir", folder)
            _set(config, "sweep", folder)
        self._hold("hydra.sweep.dir", folder)
        if (folder / "rounds.jsonl").exists():
            stop(f"hydra.sweep.dir: must be a folder without a run of its own, got {str(folder)!r}")
        cells = grid(_task_overrides(config)) if "basic_sweeper" in str(config.hydra.sweeper._target_).lower() else None
        SweepReport.num_cells = None if cells is None else len(cells)
        if cells is None or not _is_numbered(config):
            return
        for number, before in _overrides_of_cells(folder).items():
            now = cells[number] if number < len(cells) else None
            if now is None or _essence(now) != _essence(before):
                shown = "nothing" if now is None else " ".join(now)
                stop(
                    f"hydra.sweep.dir: {str(folder)!r} holds another sweep: cell {number} is {' '.join(before)} there, "
                    f"and {shown} in this command; choose another folder, or give the command as it was"
                )

    def _hold(self, key: str, folder: Path) -> None:
        """Lock a run's or a sweep's folder before Hydra writes into it."""
        try:
            SweepReport.locks.enter_context(locked(folder))
        except FolderInUseError as error:
            stop(f"{key}: {error}")
        except OSError as error:
            stop(*explain_unwritable(key, error, folder))

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        """Count the failures that the sweep's cells left in their folders."""
        folder = Path(config.hydra.sweep.dir)
        failures = sorted(folder.glob("**/failure.json"))
        SweepReport.num_failed = len(failures)
        said = [f"{len(failures)} runs failed"] if failures else []
        if SweepReport.num_in_use:
            said.append(f"{SweepReport.num_in_use} left out, another process plays them")
        print(", ".join(said) or "all runs finished", end="; ")
        print(f"see them with: fedrobust-report {folder}")


def grid(overrides: list[str]) -> list[list[str]]:
    """The overrides of each cell of a sweep, in the order of their numbers.

    Example:
        >>> grid(["aggregator=mean,krum", "seed=0"])
        [['aggregator=mean', 'seed=0'], ['aggregator=krum', 'seed=0']]
    """
    parsed = OverridesParser.create().parse_overrides(overrides)
    return [list(cell) for batch in BasicSweeper.split_arguments(parsed, None) for cell in batch]


def missing_cells(folder: Path) -> list[int]:
    """Numbers of the cells of the sweep in `folder` that never began; none where no sweep of ours is found there."""
    try:
        written = OmegaConf.load(folder / "multirun.yaml")
        if not _is_numbered(written):
            return []
        cells = grid(_task_overrides(written))
    except Exception:  # no sweep, one of another sweeper, or a file that is damaged
        return []
    return [number for number in range(len(cells)) if not (folder / str(number) / "choices.json").exists()]


def state_of_cell(folder: Path, settings: Mapping[str, str]) -> CellState:
    """What is to be done with the cell in `folder`.

    Args:
        folder: it may not exist yet.
        settings: the cell's, by dotted name.

    Raises:
        ValueError: the folder holds a run with other settings.
    """
    rounds, config = folder / "rounds.jsonl", folder / "config.yaml"
    is_begun = rounds.exists() and rounds.stat().st_size > 0
    if not config.exists() or not (is_begun or (folder / "summary.json").exists()):
        return CellState.PLAY
    try:
        stored = OmegaConf.to_container(OmegaConf.load(config), resolve=False)
        before = flat_settings(stored) if isinstance(stored, dict) else {}
    except Exception as error:  # what the YAML parser raises has no type in OmegaConf's terms
        raise ValueError(f"cannot read {str(config)!r} ({' '.join(str(error).split())[:120]})") from None
    names = [name for name in sorted(before.keys() | settings.keys()) if not name.startswith(_OWN)]
    for name in names:
        if before.get(name) != settings.get(name):
            raise ValueError(
                f"{str(folder)!r} holds a run with other settings ({name}: {before.get(name)} there, "
                f"{settings.get(name)} in this command); choose another folder"
            )
    if (folder / "summary.json").exists() and not (folder / "failure.json").exists():
        return CellState.SKIP
    return CellState.GO_ON


def stop(message: str, code: int = BAD_CONFIG) -> NoReturn:
    """End the command with one line."""
    print(f"fedrobust: {message}", file=sys.stderr)
    sys.exit(code)


def explain_unwritable(key: str, error: OSError, folder: Path) -> tuple[str, int]:
    """Why `folder`, which `key` names, cannot be written, and the exit code that says so."""
    if full := explain_full_disk(error, folder):
        return full, FAILED
    return f"{key}: must be a folder that can be written, got {str(folder)!r} ({error.strerror})", BAD_CONFIG


def _claim(key: str, folder: Path) -> Path:
    """A new folder called `folder`, or that with a number after its name, or the end of the command."""
    try:
        return free_folder(folder)
    except OSError as error:
        stop(*explain_unwritable(key, error, folder))


def _is_chosen(config: DictConfig, key: str) -> bool:
    return any(str(one).lstrip("+").startswith(f"{key}=") for one in config.hydra.overrides.hydra)


def _set(config: DictConfig, mode: str, folder: Path) -> None:
    with open_dict(config):
        config.hydra[mode].dir = str(folder)
        config.hydra.overrides.hydra.append(f"hydra.{mode}.dir='{folder}'")  # Hydra composes each cell anew


def _is_numbered(config: Any) -> bool:
    """Whether a cell's folder is its number."""
    sweep = OmegaConf.to_container(config.hydra.sweep, resolve=False)
    return isinstance(sweep, dict) and str(sweep.get("subdir")) == "${hydra.job.num}"


def _task_overrides(config: Any) -> list[str]:
    written = OmegaConf.to_container(config.hydra.overrides.task, resolve=False)  # as typed
    return [str(one) for one in written] if isinstance(written, list) else []


def _overrides_of_cells(folder: Path) -> dict[int, list[str]]:
    found = {}
    for path in folder.glob("*/.hydra/overrides.yaml"):
        number = path.parent.parent.name
        if not number.isdecimal():
            continue
        try:
            written = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
        except Exception:  # cut by a kill: the cell's config says as much
            continue
        if isinstance(written, list):
            found[int(number)] = [str(one) for one in written]
    return dict(sorted(found.items()))


def _essence(overrides: list[str]) -> set[str]:
    return {one for one in overrides if not one.lstrip("+").startswith(_OWN)}
