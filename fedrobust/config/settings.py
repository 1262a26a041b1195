"""A config as flat settings: what two runs, or two parts of one, are compared by."""

from collections.abc import Iterator, Mapping
from typing import Any

from fedrobust.config.secrets import masked

FREE = ("num_rounds", "verbose", "plot_formats", "data_root", "resume", "logger.")
"""Settings that a later part of a run may have otherwise: how far, how loud, where data lie, who is told."""


def leaves(config: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted names and values of all that is no mapping."""
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def flat_settings(config: Mapping[Any, Any]) -> dict[str, str]:
    """The config's leaves as text, by dotted name, with `***` for what is secret in them."""
    return {name: masked([f"{name}={value}"])[0].partition("=")[2] for name, value in leaves(config)}
