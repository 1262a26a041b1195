"""The command `fedrobust`: compose, check, instantiate, run.

What is wrong with a config is one line on standard error and exit code 2; nothing has been trained by then. What goes
wrong in a run is one line, too, and exit code 1; what was computed stays in the folder, with the traceback.
"""

import contextlib
import io
import logging
import os
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from hydra._internal.utils import get_args_parser  # private, but the only way to know Hydra's flags
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fedrobust.commands.composition_errors import explain
from fedrobust.config.building import ConfigError, Root, config_folder, plain, register_schema
from fedrobust.config.compose import check_lists, chosen, settle
from fedrobust.config.foreign import check_entries, check_foreign, check_links, read_foreign, read_trust
from fedrobust.config.settings import flat_settings
from fedrobust.records.full_disk import explain_full_disk
from fedrobust.records.lock import FolderInUseError, locked
from fedrobust.records.sweep import BAD_CONFIG, FAILED, CellState, SweepReport, state_of_cell, stop
from fedrobust.records.versions import version_line

if TYPE_CHECKING:
    from fedrobust.records.run_folder import RunFolder
    from fedrobust.runs.resuming import Resumption

log = logging.getLogger("fedrobust")

INTERRUPTED = 130
_RESUMABLE_CHANGES = ("num_rounds", "verbose", "data_root")
_STOPS = (signal.SIGTERM, *((signal.SIGHUP,) if hasattr(signal, "SIGHUP") else ()))
"""What ends a run as Ctrl-C does: a scheduler, a terminal that is closed."""
_RESUME_OPTIONS = ("from", "accept_changes", "trust")


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line; exits with 0, 1 (a run failed), 2 (a config that cannot run) or 130 (Ctrl-C)."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    os.environ["HYDRA_FULL_ERROR"] = "1"  # let exceptions reach this function, which reports them in one line
    # Small models on shared cores: threads that spin while they wait make rounds many times slower. Read when torch
    # is first imported, so nothing above may import it.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # Huge pages for tensors: fresh memory is most of the cost of a large one, a third of it in them. Also read then.
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    logging.raiseExceptions = False  # a log on a full disk, or a closed terminal: no traceback for each line
    for number in _STOPS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup sets it
            signal.signal(number, _interrupt)
    register_schema()
    SweepReport.num_failed, SweepReport.num_in_use, SweepReport.num_cells = 0, 0, None
    try:
        if arguments in (["--version"], ["version"]):
            print(version_line())
            return
        if arguments[:1] == ["list"]:  # no KEY=VALUE: nothing for Hydra
            from fedrobust.commands.registry import print_list  # imports torch

            print_list(arguments[1:])
            return
        _check_flags(arguments)
        if any(argument.startswith("resume=") for argument in arguments):
            _resume(arguments)
        elif any(argument.startswith("trust=") for argument in arguments):
            raise ConfigError("trust: goes with resume=FOLDER; a command line of one's own may name any component")
        else:
            sys.argv = [sys.argv[0], *arguments]
            hydra.main(version_base="1.3", config_path=str(config_folder()), config_name="config")(_task)()
    except ConfigError as error:
        stop(str(error))
    except (HydraException, OmegaConfBaseException, ValueError, OSError) as error:
        if full := explain_full_disk(error, Path.cwd()):
            stop(full, FAILED)
        stop(explain(error, arguments))  # of composing: `_run` has dealt with those of running
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    finally:
        SweepReport.locks.close()
    if SweepReport.num_failed or SweepReport.num_in_use:
        sys.exit(FAILED)


def _task(config: DictConfig) -> None:
    """What Hydra runs, once for a run and once for each cell of a sweep."""
    from fedrobust.records.run_folder import RunFolder

    context = HydraConfig.get()
    folder = RunFolder(Path(context.runtime.output_dir))
    if context.mode == RunMode.MULTIRUN:
        _play_cell(config, context, folder)
        return
    try:
        folder.create()
    except FileExistsError as error:  # made since the start
        stop(f"hydra.run.dir: {error}")
    try:
        check_lists(context)
        message, code = _run(settle(config, context), folder, chosen(context, config))
    except ConfigError as error:  # told here: Hydra would add a line of its own
        message, code = str(error), BAD_CONFIG
    if code:
        stop(message, code)


def _play_cell(config: DictConfig, context: Any, folder: "RunFolder") -> None:
    """Play a cell of a sweep, or what is left of it; one that fails must not take the others with it."""
    total = "" if SweepReport.num_cells is None else f" of {SweepReport.num_cells}"
    name = f"cell {int(context.job.num) + 1}{total} ({context.job.override_dirname or 'no overrides'})"
    try:
        with locked(folder.path):
            _play_own_cell(config, context, folder, name)
    except FolderInUseError as error:  # somebody plays this cell: nothing in it is ours to write
        SweepReport.num_in_use += 1
        log.error("%s is left out: %s", name, error)


def _play_own_cell(config: DictConfig, context: Any, folder: "RunFolder", name: str) -> None:
    """Play the cell called `name`, whose folder is locked."""
    from fedrobust.runs.resuming import Resumption

    choices = chosen(context, config)
    config = settle(config, context)
    try:
        values = plain(config)
        state = state_of_cell(folder.path, flat_settings(values))
    except ValueError as error:
        stop(f"hydra.sweep.dir: {error}")
    log.info("%s %s", name, state.value)
    if state is CellState.SKIP:
        return
    # Known before the run, so that the table can show a cell that fails.
    folder.write_choices(choices)
    if state is CellState.PLAY:
        folder.write_config(OmegaConf.to_yaml(OmegaConf.create(values)))
    try:
        check_lists(context)
        message, code = _run(config, folder, choices, Resumption() if state is CellState.GO_ON else None)
    except ConfigError as error:
        message, code = str(error), BAD_CONFIG
    except KeyboardInterrupt:
        log.info("stopped in %s; the same command with hydra.sweep.dir=%s goes on", name, context.sweep.dir)
        raise
    if code:
        if code == BAD_CONFIG:
            folder.write_failure(message)
        log.error("%s failed: %s", folder.path, message)


def _run(
    config: DictConfig, folder: "RunFolder", choices: Mapping[str, str], resumption: "Resumption | None" = None
) -> tuple[str, int]:
    """Run in `folder`, which is locked; returns why it failed and the exit code, or an empty message and 0."""
    with _plain_signals():
        from fedrobust.runs.failures import keep_failure
        from fedrobust.runs.run import run_config  # torch and flwr take seconds to import: not for --help

    try:
        if resumption is None:
            run_config(plain(config), folder.path, choices, is_locked=True)
        else:
            values = plain(config)
            run_config(values, folder.path, choices, resume=True, resumption=resumption, is_locked=True)
    except (ConfigError, OmegaConfBaseException) as error:
        return str(error) if isinstance(error, ConfigError) else explain(error, []), BAD_CONFIG
    except Exception as error:
        return keep_failure(error, folder), FAILED
    return "", 0


def _resume(arguments: Sequence[str]) -> None:
    from fedrobust.records.run_folder import RunFolder
    from fedrobust.runs.resuming import Resumption

    values: dict[str, str] = {}
    for argument in arguments:
        key, separator, value = argument.partition("=")
        allowed = (*_RESUMABLE_CHANGES, *_RESUME_OPTIONS)
        if not separator or key not in ("resume", *allowed):
            raise ConfigError(f"{argument}: cannot be combined with resume; allowed: {', '.join(allowed)}")
        values[key] = value
    folder = RunFolder(Path(values.pop("resume")))
    from_round, accept = values.pop("from", None), values.pop("accept_changes", "false")
    if from_round is not None and not from_round.isdecimal():
        raise ConfigError(f"from: must be a round, 0 or that of a checkpoint, got {from_round!r}")
    if accept not in ("true", "false"):
        raise ConfigError(f"accept_changes: must be true or false, got {accept!r}")
    resumption = Resumption(None if from_round is None else int(from_round), accept == "true")
    if not (folder.path / "config.yaml").is_file():
        raise ConfigError(f"resume: must be the folder of a run (no config.yaml in {str(folder.path)!r})")
    trust = read_trust(values.pop("trust")) if "trust" in values else ()
    check_entries(folder.path)
    try:
        with locked(folder.path):
            message, code = _run_again(folder, values, resumption, trust)
    except FolderInUseError as error:
        raise ConfigError(f"resume: {error}") from None
    if code:
        stop(message, code)


def _run_again(
    folder: "RunFolder", values: Mapping[str, str], resumption: "Resumption", trust: tuple[str, ...]
) -> tuple[str, int]:
    """Resume in `folder`, which is locked, with some root keys changed to `values`; returns as `_run` does."""
    try:
        saved = read_foreign(folder.path / "config.yaml")
    except ConfigError as error:
        raise ConfigError(f"resume: {error}") from None
    check_foreign(saved, trust, str(folder.path / "config.yaml"))
    check_links(folder.path)
    config = OmegaConf.merge(OmegaConf.structured(Root), saved)
    assert isinstance(config, DictConfig)
    config.merge_with_dotlist([f"{key}={value}" for key, value in values.items()])
    played = max(folder.sound_checkpoints(), default=0) if resumption.from_round is None else 0
    if config.num_rounds < played:
        raise ConfigError(f"num_rounds: must be at least {played}, the rounds already played, got {config.num_rounds}")
    logging.basicConfig(level=logging.INFO, format="[%(asctime)s][%(name)s][%(levelname)s] - %(message)s")
    return _run(config, folder, folder.read_choices(), resumption)


def _check_flags(arguments: Sequence[str]) -> None:
    """Let Hydra's parser look at the flags now: what it says of a wrong one fills a screen."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            get_args_parser().parse_args(arguments)
    except SystemExit as stop:
        if not stop.code:  # --version
            raise
        reason = said.getvalue().rpartition("error: ")[2].strip()
        raise ConfigError(f"{reason}; allowed: KEY=VALUE, and the flags of fedrobust --hydra-help") from None


@contextlib.contextmanager
def _plain_signals() -> Iterator[None]:
    """Let Ctrl-C and SIGTERM end the process at once: an exception amid imports is caught by libraries, or half heard.

    There is nothing to keep yet.
    """
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, *_STOPS)}
    ours = {number: handler for number, handler in handlers.items() if callable(handler)}  # not ignored, as by nohup
    try:
        for number in ours:
            signal.signal(number, signal.SIG_DFL)
        yield
    finally:
        for number, handler in ours.items():
            signal.signal(number, handler)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt
