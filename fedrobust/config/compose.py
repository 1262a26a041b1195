"""Composing a config outside the command line: the same groups, the same messages."""

import copy
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from fedrobust.config.building import GROUPS, ConfigError, config_folder, plain, register_schema
from fedrobust.config.settings import leaves

_ATTACKERS = ("num_malicious", "malicious_fraction", "malicious_clients")
_PATHS = frozenset({"data_root", "file", "folder", "detector_file"})
"""Keys, at any depth, that hold the path of a file or a folder."""


def compose_config(overrides: Sequence[str], *, needs_all: bool = True) -> tuple[dict[str, Any], dict[str, str]]:
    """The resolved root config under Hydra `overrides`, and which option of each group it chose.

    Args:
        overrides: as on the command line.
        needs_all: whether values that must be given may be missing, marked by `???`.

    Raises:
        ConfigError: a list of choices where one belongs, or with a choice twice.
    """
    register_schema()
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        config = compose("config", overrides=list(overrides), return_hydra_config=True)
    check_lists(config.hydra)
    choices = chosen(config.hydra, config)
    settled = settle(config, config.hydra)
    return plain(settled, needs_all=needs_all), choices


def settle(config: DictConfig, hydra: Any) -> DictConfig:
    """A composed config as it is meant: without Hydra's own part, paths absolute, what was given before what was not.

    Attackers are counted, or a fraction, or named: one of the three that is given alone takes the default's place.
    Paths are taken from the folder where the command was typed, so that a run can be resumed from any other.

    Args:
        config: composed; not changed.
        hydra: its `hydra` node, which knows what was given.
    """
    settled = copy.deepcopy(config)
    OmegaConf.set_struct(settled, False)
    settled.pop("hydra", None)
    typed = OmegaConf.to_container(hydra.overrides.task, resolve=False)
    given = {str(one).partition("=")[0].lstrip("+") for one in typed or ()}
    values = OmegaConf.to_container(settled, resolve=False)
    assert isinstance(values, dict)
    wanted = [name for name in _ATTACKERS if f"attack.{name}" in given]
    attack = values.get("attack")
    if len(wanted) == 1 and isinstance(attack, dict):
        for name in _ATTACKERS:
            if name not in wanted and name in attack:
                OmegaConf.update(settled, f"attack.{name}", None)
    for key, value in leaves(values):
        is_path = key.rpartition(".")[2] in _PATHS and isinstance(value, str)
        if is_path and not any(mark in value for mark in ("${", "://", "???")):
            OmegaConf.update(settled, key, str(Path(value).expanduser().absolute()))
    return settled


def compose_overrides(overrides: str) -> tuple[dict[str, Any], dict[str, str]]:
    """As `compose_config`, for overrides in one string, separated as a shell does."""
    return compose_config(shlex.split(overrides))


def chosen(hydra: Any, config: Any) -> dict[str, str]:
    """Which option of each group a config chose; of pre-aggregators all, in their order: `clipping+bucketing`, `none`.

    Args:
        hydra: the config's `hydra` node, which knows all choices but those that are lists.
        config: the config itself.
    """
    choices = {**hydra.runtime.choices, **{group: "+".join(names) for group, names in _lists(hydra).items()}}
    choices["preaggregator"] = "+".join(map(str, config.preaggregator)) or "none"
    return {group: choices[group] for group in GROUPS if group in choices}


def check_lists(hydra: Any) -> None:
    """Refuse lists of choices that Hydra would merge into one.

    Args:
        hydra: a config's `hydra` node.

    Raises:
        ConfigError: several options of a group that has one, or the same pre-aggregator twice.
    """
    for group, names in _lists(hydra).items():
        given = f"[{','.join(names)}]"
        if group != "preaggregator" and len(names) != 1:
            raise ConfigError(f"{group}: must be one choice, got {given}; to sweep over several: -m {group}=A,B")
        if len(set(names)) < len(names):
            raise ConfigError(f"{group}: must name each choice once, got {given}")


def _lists(hydra: Any) -> dict[str, list[str]]:
    """The choices that are lists, by group, from the overrides: Hydra keeps them nowhere else."""
    written = OmegaConf.to_container(hydra.overrides.task, resolve=False)  # as typed: `${...}` is no key of these
    assert isinstance(written, list)
    overrides = OverridesParser.create().parse_overrides([str(one) for one in written])
    values = {one.key_or_group: one.value() for one in overrides if one.key_or_group in GROUPS}
    return {group: [str(name) for name in names] for group, names in values.items() if isinstance(names, list)}
