"""The command `fedrobust`: compose, check, instantiate, run.

What is wrong with a config is one line on standard error and exit code 2; nothing has been trained by then.
"""

import difflib
import logging
import os
import re
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fedrobust.config import GROUPS, ConfigError, Root, config_folder, plain, register_schema

log = logging.getLogger("fedrobust")

BAD_CONFIG, FAILED, INTERRUPTED = 2, 1, 130
_RESUMABLE_CHANGES = ("num_rounds", "verbose")


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line; exits with 0, 1 (a run failed), 2 (a config that cannot run) or 130 (Ctrl-C)."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    os.environ["HYDRA_FULL_ERROR"] = "1"  # let exceptions reach this function, which reports them in one line
    # Small models on shared cores: threads that spin while they wait made rounds up to 40 times slower. Read when torch
    # is first imported, so nothing above may import it.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    signal.signal(signal.SIGTERM, _interrupt)
    register_schema()
    try:
        if any(argument.startswith("resume=") for argument in arguments):
            _resume(arguments)
        else:
            sys.argv = [sys.argv[0], *arguments]
            hydra.main(version_base="1.3", config_path=str(config_folder()), config_name="config")(_task)()
    except ConfigError as error:
        _exit(str(error))
    except (HydraException, OmegaConfBaseException) as error:
        _exit(explain(error))
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    if SweepReport.num_failed:
        sys.exit(FAILED)


def _task(config: DictConfig) -> None:
    """What Hydra runs, once for a run and once for each cell of a sweep."""
    from fedrobust.records.run_folder import RunFolder
    from fedrobust.run import run_config  # torch and flwr take seconds to import: not for --help

    context = HydraConfig.get()
    folder = RunFolder(Path(context.runtime.output_dir))
    choices = {group: str(context.runtime.choices[group]) for group in GROUPS}
    if context.mode != RunMode.MULTIRUN:
        try:
            run_config(plain(config), folder.path, choices)
        except ConfigError as error:  # not through Hydra, which would add lines of its own
            _exit(str(error))
        return
    # A cell of a sweep that fails must not take the others with it: its reason is kept, and reported at the end.
    try:
        folder.path.mkdir(parents=True, exist_ok=True)
        folder.write_choices(choices)
        folder.write_config(OmegaConf.to_yaml(config))
        run_config(plain(config), folder.path, choices)
    except Exception as error:
        expected = isinstance(error, ConfigError)
        reason = str(error) if expected else f"{type(error).__name__}: {error}"
        folder.write_failure(" ".join(reason.split()))
        log.error("%s failed: %s", folder.path, reason, exc_info=not expected)


class SweepReport(Callback):
    """At the end of a sweep: how many cells failed, and how to see the table."""

    num_failed = 0

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        """Count the failures that the sweep's cells left in their folders."""
        folder = Path(config.hydra.sweep.dir)
        failures = sorted(folder.glob("**/failure.json"))
        SweepReport.num_failed = len(failures)
        print(f"{len(failures)} runs failed" if failures else "all runs finished", end="; ")
        print(f"see them with: fedrobust-report {folder}")


def _resume(arguments: Sequence[str]) -> None:
    from fedrobust.records.run_folder import RunFolder
    from fedrobust.run import run_config

    values: dict[str, str] = {}
    for argument in arguments:
        key, separator, value = argument.partition("=")
        if not separator or key not in ("resume", *_RESUMABLE_CHANGES):
            raise ConfigError(f"{argument}: cannot be combined with resume; allowed: {', '.join(_RESUMABLE_CHANGES)}")
        values[key] = value
    folder = Path(values.pop("resume"))
    if not (folder / "config.yaml").is_file():
        raise ConfigError(f"resume: must be the folder of a run (no config.yaml in {str(folder)!r})")
    changes = OmegaConf.from_dotlist([f"{key}={value}" for key, value in values.items()])
    config = OmegaConf.merge(OmegaConf.structured(Root), OmegaConf.load(folder / "config.yaml"), changes)
    assert isinstance(config, DictConfig)
    logging.basicConfig(level=logging.INFO, format="[%(asctime)s][%(name)s][%(levelname)s] - %(message)s")
    run_config(plain(config), folder, RunFolder(folder).read_choices(), resume=True)


def explain(error: Exception) -> str:
    """One line for what Hydra or OmegaConf has to say, with what is allowed."""
    text = str(error)
    if error.__cause__ is not None and str(error.__cause__) not in text:
        text = f"{text} {error.__cause__}"
    missing = re.search(r"Could not find '([^']+)'", text)
    if missing is not None and "/" in missing[1]:
        group, _, choice = missing[1].rpartition("/")
        options = sorted(path.stem for path in (config_folder() / group).glob("*.yaml"))
        near = difflib.get_close_matches(choice, options, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        return f"{group}={choice}: unknown choice; {hint}allowed: {', '.join(options)}"
    unknown = re.search(r"Key '([^']+)' is not in struct(?:.*?full_key: (\S+))?", text, re.DOTALL)
    group_override = re.search(r"Could not override '([^']+)'.*?No match in the defaults list", text, re.DOTALL)
    key = unknown[1] if unknown else group_override[1] if group_override else None
    if key is not None:
        full_key = unknown[2] if unknown and unknown[2] else key
        allowed = _siblings(full_key)
        near = difflib.get_close_matches(key, allowed, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        return f"{full_key}: unknown key; {hint}allowed: {', '.join(allowed)}"
    return " ".join(text.split())


def _siblings(full_key: str) -> list[str]:
    """The keys beside `full_key` under the default choices: a guess that helps, since the choice is not known here."""
    from fedrobust.compose import compose_config

    node: Any = {**compose_config([])[0], "experiment": None}
    for part in full_key.split(".")[:-1]:
        node = node.get(part) if isinstance(node, dict) else None
    return sorted(key for key in node if key != "_target_") if isinstance(node, dict) else []


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _exit(message: str) -> None:
    print(f"fedrobust: {message}", file=sys.stderr)
    sys.exit(BAD_CONFIG)
