"""Configs that somebody else wrote: what may be built of them.

A `_target_` names code that runs. Of a folder's config nothing is built but fedrobust's own components and those of
modules that the user trusts, nothing in it is looked up in this process's environment, and nothing of it is imported
before it has been checked.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from fedrobust.config import ConfigError

_OWN = "fedrobust"
_PLACES = {"logger.tracking_uri", "logger.folder"}
_LOGGER = "logger"
"""To be trusted by this name: where a folder's config says that figures go."""


def check_foreign(config: Any, trust: Sequence[str], source: str) -> None:
    """Look through the config of a folder before anything is built of it.

    Args:
        config: plain containers, interpolations as they are written.
        trust: names of modules whose components may be built; `logger` also lets figures leave the folder.
        source: the file, for messages.

    Raises:
        ConfigError: the first key that is not allowed, and what would allow it.
    """
    for key, value in _walk(config, ""):
        if isinstance(value, str) and "${" in value:
            said = f"{key} must be a value, got {_short(value)}: nothing is looked up for a folder"
            raise ConfigError(f"{source}: {said}")
        if key.endswith("_target_") and not is_trusted(value, trust):
            module = str(value).partition(".")[0]
            raise ConfigError(
                f"{source}: {key} must be one of fedrobust's own, got {_short(value)}, which is not run; "
                f"trust={module} allows what this module holds"
            )
        if key in _PLACES and value is not None and _LOGGER not in trust:
            raise ConfigError(f"{source}: {key} points out of the folder, to {_short(value)}; trust=logger allows it")


def is_trusted(target: Any, trust: Sequence[str]) -> bool:
    """Whether a `_target_` names something of fedrobust's, or of a module in `trust`."""
    if not isinstance(target, str) or not all(part.isidentifier() for part in target.split(".")):
        return False
    return any(target.startswith(f"{module}.") for module in (_OWN, *trust))


def read_trust(text: str) -> tuple[str, ...]:
    """The modules in `a,b.c`.

    Raises:
        ConfigError: what is no name of a module.
    """
    names = tuple(name.strip() for name in text.split(","))
    for name in names:
        if not all(part.isidentifier() for part in name.split(".")):
            raise ConfigError(f"trust: must be names of modules, as my_module,other.module, got {text!r}")
    return names


def _walk(node: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    if isinstance(node, Mapping):
        for key, value in node.items():
            path = f"{prefix}.{key}" if prefix else str(key)
            yield f"{path}'s name", str(key)  # it can hold an interpolation, too
            if str(key) == "_target_":
                yield path, value  # whole, whatever it is
            else:
                yield from _walk(value, path)
    elif isinstance(node, list | tuple):
        for index, value in enumerate(node):
            yield from _walk(value, f"{prefix}[{index}]")
    else:
        yield prefix, node


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:76]}...'"
