"""Composing a config outside the command line: the same groups, the same messages."""

import shlex
from collections.abc import Sequence
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from fedrobust.config import GROUPS, ConfigError, config_folder, plain, register_schema


def compose_config(overrides: Sequence[str]) -> tuple[dict[str, Any], dict[str, str]]:
    """The resolved root config under Hydra `overrides`, and which option of each group it chose.

    Raises:
        ConfigError: a list of choices where one belongs, or with a choice twice.
    """
    register_schema()
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        config = compose("config", overrides=list(overrides), return_hydra_config=True)
    check_lists(config.hydra)
    choices = chosen(config.hydra, config)
    OmegaConf.set_struct(config, False)
    config.pop("hydra")
    return plain(config), choices


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
