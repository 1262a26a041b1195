"""What Hydra and OmegaConf say of a config that cannot be composed, in one line: key, value, what is allowed."""

import re
import typing
from collections.abc import Sequence
from types import NoneType, UnionType
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, OverrideParseException
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException, ValidationError

from fedrobust.config.building import GROUPS, Root, config_folder, unknown_choice, unknown_key
from fedrobust.config.compose import compose_config
from fedrobust.records.sweep import grid

_CHOOSABLE = (*GROUPS, "attack/trigger", "experiment")
_MOST_CELLS = 50
_TYPE_NAMES = {
    int: "an integer",
    float: "a number",
    bool: "true or false",
    str: "text",
    list[str]: "a list",
    NoneType: "null",
}


def explain(error: Exception, arguments: Sequence[str]) -> str:
    """One line for an error of composing.

    Args:
        error: what Hydra, OmegaConf or the file system raised.
        arguments: the command line's, which say what the message leaves out.
    """
    text = str(error)
    if isinstance(error, OverrideParseException):
        form = "KEY=VALUE, GROUP=CHOICE, +KEY=VALUE or ~KEY, special characters in quotes"
        return f"{error.override}: cannot be read; allowed: {form}"
    if isinstance(error, OSError) and not isinstance(error, HydraException):
        key = "hydra.sweep.dir" if {"-m", "--multirun"} & set(arguments) else "hydra.run.dir"
        key = "resume" if any(one.startswith("resume=") for one in arguments) else key
        return f"{key}: must be a folder that can be written, got {error.filename!r} ({error.strerror})"
    if several := re.search(r"Ambiguous value for argument '([^']+)'", text):
        key, _, values = several[1].partition("=")
        as_list = f", or the list {key}=[{values}]" if key == "preaggregator" else ""
        return f"{several[1]}: names several values; allowed: one{as_list}, or a sweep over all of them with -m"
    if missing := re.search(r"Could not (?:find|load) '([^']+/[^']*)'", text):
        return _explain_choice(missing[1], text)
    if absent := re.search(r"Could not override '([\w/]+)'\. No match in the defaults list", text):
        if "/" in absent[1]:
            return f"{absent[1]}: is nothing to choose under this {absent[1].partition('/')[0]}"
        if (config_folder() / absent[1]).is_dir():
            return f"{absent[1]}: has no default; allowed: +{absent[1]}=CHOICE, one of {', '.join(_options(absent[1]))}"
        return _explain_key(absent[1], arguments)
    if deleted := re.search(r"Could not delete from config\. '([^']+)' does not exist", text):
        return f"~{deleted[1]}: must name a key that is there and is not null"
    cause = error if isinstance(error, OmegaConfBaseException) else error.__cause__
    if isinstance(cause, ConfigKeyError | ConfigAttributeError) and cause.full_key:
        return _explain_key(cause.full_key, arguments)
    if isinstance(cause, ValidationError) and cause.full_key:
        return _explain_type(cause, text, arguments)
    if isinstance(cause, OmegaConfBaseException) and cause.full_key:
        return f"{cause.full_key}: {str(cause).splitlines()[0]}"
    if isinstance(error, ValueError):  # Hydra's "Config group override must be a string or a list", which names no key
        for override in OverridesParser.create().parse_overrides(list(arguments)):
            key, value = override.key_or_group, override.value()
            if key in _CHOOSABLE and not isinstance(value, str | list):
                return unknown_choice(key, "null" if value is None else str(value), _options(key))
        return f"{' '.join(arguments)}: {_one_line(text)}"
    return _one_line(text if cause is None else f"{text} {cause}")


def _explain_choice(path: str, text: str) -> str:
    """For a file that is not there: Hydra lists what is, unless the choice was one of a list."""
    listed = re.search(r"Available options in '([^']+)'", text)
    group = listed[1] if listed else path.rpartition("/")[0]
    options = re.findall(r"^\t([\w/]+)$", text, re.MULTILINE) or _options(group)
    return unknown_choice(group, path.removeprefix(f"{group}/"), options)


def _explain_key(full_key: str, arguments: Sequence[str]) -> str:
    """For a key that is not there: the ones beside it, under the command line's choices, cell by cell of a sweep."""
    parent, _, key = full_key.rpartition(".")
    choices = [argument for argument in arguments if argument.partition("=")[0].lstrip("+") in _CHOOSABLE]
    node, cell = _first_without(full_key, choices)
    allowed = [name for name in node if name != "_target_"] if isinstance(node, dict) else []
    if not parent:
        allowed.append("experiment")
    group = full_key.partition(".")[0]
    chosen = [one for one in cell if one.partition("=")[0].lstrip("+").partition("/")[0] == group]
    said = unknown_key(full_key, key, allowed)
    return f"{said} (under {' '.join(chosen)})" if chosen and len(cell) and _is_sweep(choices) else said


def _first_without(full_key: str, choices: Sequence[str]) -> tuple[Any, Sequence[str]]:
    """What lies where the key should be, and the choices of the first cell in which it does not."""
    parent, _, key = full_key.rpartition(".")
    try:
        cells = grid(list(choices))[:_MOST_CELLS]
    except (HydraException, ValueError):
        cells = [list(choices)]
    node: Any = None
    for cell in cells:
        try:
            node = compose_config(cell, needs_all=False)[0]
        except (HydraException, OmegaConfBaseException, ValueError):  # another of the choices is wrong, too
            node = compose_config([])[0]
        for part in parent.split(".") if parent else ():
            node = node.get(part) if isinstance(node, dict) else None
        if not isinstance(node, dict) or key not in node:
            return node, cell
    return node, ()


def _is_sweep(choices: Sequence[str]) -> bool:
    try:
        return len(grid(list(choices))) > 1
    except (HydraException, ValueError):
        return False


def _explain_type(error: ValidationError, text: str, arguments: Sequence[str]) -> str:
    """For a value of the root that has the wrong type."""
    full_key = str(error.full_key)
    override = re.search(r"Error merging override (.*)", text)
    key, _, value = override[1].partition("=") if override else (full_key, "", "")
    if key.lstrip("+").startswith(f"{full_key}."):
        return unknown_key(key, key.rpartition(".")[2], [])
    hint = typing.get_type_hints(Root).get(full_key)
    kinds = typing.get_args(hint) if isinstance(hint, UnionType) else (hint,)
    allowed = [_TYPE_NAMES[kind] for kind in kinds if kind in _TYPE_NAMES] or [f"{full_key}=CHOICE or {full_key}.KEY"]
    got = f", got {value!r}" if override else f" ({str(error).splitlines()[0]})"
    return f"{full_key}: must be {' or '.join(allowed)}{got}"


def _options(group: str) -> list[str]:
    return sorted(path.stem for path in (config_folder() / group).glob("*.yaml"))


def _one_line(text: str) -> str:
    return " ".join(text.split())
