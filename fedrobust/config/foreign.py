"""Configs that somebody else wrote: what may be built of them.

A `_target_` names code that runs. Of a folder's config nothing is built but fedrobust's own components and those of
modules that the user trusts, nothing in it is looked up in this process's environment, and nothing of it is imported
before it has been checked.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf

from fedrobust.config.building import ConfigError
from fedrobust.error_text import clean_reason

_OWN = "fedrobust"
_PLACES = ("logger.tracking_uri", "logger.folder", "engine.address")
"""What a config says of where figures go, and whose cluster is spoken to; trusted by the name of the group."""
_OWN_CLUSTER = "auto"
_MAX_LINE = 500
_LOGGED_TO = ("tensorboard", "mlflow.db")
"""Where loggers write in the folder if their config does not say where."""


def read_foreign(path: Path) -> dict[str, Any]:
    """A config that somebody else wrote, as plain containers; runs write theirs resolved, so nothing is looked up.

    Raises:
        ConfigError: it cannot be read, is no mapping, or has aliases (which may unfold to any size) or interpolations.
    """
    try:
        with path.open(encoding="utf-8") as file:
            for event in yaml.parse(file, Loader=yaml.SafeLoader):
                if isinstance(event, yaml.AliasEvent):
                    raise ValueError(f"it must not hold aliases, got *{event.anchor}")
        config = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
    except Exception as error:  # what the YAML parser raises has no type in OmegaConf's terms
        raise ConfigError(f"cannot read {str(path)!r} ({clean_reason(str(error))})") from None
    if not isinstance(config, dict):
        raise ConfigError(f"{path}: must be a run's config, got {type(config).__name__}")
    for key, value in _walk(config, ""):
        if isinstance(value, str) and "${" in value:
            said = f"{path}: {key} must be a value, got {_short(value)}: nothing is looked up for a folder"
            raise ConfigError(clean_reason(said, _MAX_LINE))
    return {str(key): value for key, value in config.items()}


def check_foreign(config: Any, trust: Sequence[str], source: str, option: str = "trust=") -> None:
    """Look through the config of a folder before anything is built of it.

    Args:
        config: plain containers, from `read_foreign`.
        trust: names of modules whose components may be built; `logger` also lets figures leave the folder, and `engine`
            speaks to the cluster that it names.
        source: the file, for messages.
        option: how a name is trusted, for messages.

    Raises:
        ConfigError: the first key that is not allowed, and what would allow it.
    """
    for key, value in _walk(config, ""):
        said = ""
        if key.endswith("_target_") and not is_trusted(value, trust):
            said = f"{key} must be one of fedrobust's own, got {_short(value)}, which is not run; "
            said += f"{option}{_short(str(value).partition('.')[0])[1:-1]} allows what this module holds"
        if key in _PLACES and value not in (None, _OWN_CLUSTER) and key.partition(".")[0] not in trust:
            said = f"{key} points out of the folder, to {_short(value)}; {option}{key.partition('.')[0]} allows it"
        if said:
            raise ConfigError(clean_reason(f"{source}: {said}", _MAX_LINE))


def check_entries(folder: Path) -> None:
    """Refuse a run's folder in which something is neither a file nor a folder of its own.

    A pipe would be waited for without end; a link out of the folder would be written through.

    Raises:
        ConfigError: with the first such entry.
    """
    inside = folder.resolve()
    for path in sorted((*folder.iterdir(), *(folder / "control").glob("*"))):
        if path.name in _LOGGED_TO or (path.name.startswith(".") and path.name.endswith(".tmp")):
            continue  # links among these are looked at where they are used, or never followed
        if path.is_symlink() and not path.resolve().is_relative_to(inside):
            raise ConfigError(f"resume: {str(path)!r} is a link out of the folder, and is not written to")
        if not (path.is_file() or path.is_dir()):
            raise ConfigError(f"resume: {str(path)!r} must be a file or a folder")


def check_links(folder: Path) -> None:
    """Refuse to log through links that lead out of a run's folder.

    Raises:
        ConfigError: there is one where a logger would write.
    """
    for name in _LOGGED_TO:
        if not (folder / name).resolve().is_relative_to(folder.resolve()):
            raise ConfigError(f"logger: {str(folder / name)!r} is a link out of the folder, and is not written to")


def foreign_modules(config: Any) -> tuple[str, ...]:
    """The modules, besides fedrobust, whose components a config names: what a resume has to trust."""
    named = {str(value).partition(".")[0] for key, value in _walk(config, "") if key.endswith("_target_")}
    return tuple(sorted(named - {_OWN}))


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
