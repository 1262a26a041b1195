"""From a composed config to components: every key is checked before anything is loaded or trained.

The root's types are checked by OmegaConf against `Root`; every node with a `_target_` is checked against the fields of
the component it names. What is wrong is told in one line with the key, the value and what is allowed.
"""

import dataclasses
import difflib
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import hydra.utils
from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, DictConfig, OmegaConf

from fedrobust.config.component import FieldError, check_fields

GROUPS = (
    "dataset",
    "partition",
    "model",
    "client",
    "attack",
    "preaggregator",
    "aggregator",
    "server",
    "server_optimizer",
    "watermark",
    "audit",
    "engine",
    "logger",
)


class ConfigError(ValueError):
    """A config that cannot run; the message is one line that names the key."""


@dataclass
class Root:
    """The keys of the root config; `conf/config.yaml` says what they mean."""

    seed: int = 0
    num_clients: int = 20
    num_rounds: int = 30
    evaluate_every: int = 1
    checkpoint_every: int = 10
    control: Any = "auto"
    device: str = "auto"
    devices: list[str] | None = None
    data_root: str | None = None
    verbose: bool = True
    plot_formats: list[str] = field(default_factory=lambda: ["png"])
    resume: str | None = None
    dataset: dict[str, Any] = field(default_factory=dict)
    partition: dict[str, Any] = field(default_factory=dict)
    model: dict[str, Any] = field(default_factory=dict)
    client: dict[str, Any] = field(default_factory=dict)
    attack: dict[str, Any] = field(default_factory=dict)
    preaggregator: dict[str, Any] = field(default_factory=dict)
    aggregator: dict[str, Any] = field(default_factory=dict)
    server: dict[str, Any] = field(default_factory=dict)
    server_optimizer: dict[str, Any] = field(default_factory=dict)
    watermark: dict[str, Any] = field(default_factory=dict)
    audit: dict[str, Any] = field(default_factory=dict)
    engine: dict[str, Any] = field(default_factory=dict)
    logger: dict[str, Any] = field(default_factory=dict)


def register_schema() -> None:
    """Make the root's schema known to Hydra as `schema`."""
    ConfigStore.instance().store(name="schema", node=Root)


def config_folder() -> Path:
    """Where the Hydra groups lie: in the installed package, or beside it in a checkout."""
    package = Path(__file__).parent.parent
    installed = package / "conf"
    return installed if installed.is_dir() else package.parent / "conf"


def build(node: Any, path: str) -> Any:
    """Build the component that a config node names, and those inside it.

    Args:
        node: plain containers; a mapping with `_target_` becomes a component.
        path: the node's key in the config, for messages.

    Raises:
        ConfigError: an unknown target or key, a missing key, a wrong type, a value out of range.
    """
    if isinstance(node, list):
        return [build(item, f"{path}[{index}]") for index, item in enumerate(node)]
    if not isinstance(node, Mapping) or "_target_" not in node:
        return node
    target = _locate(node["_target_"], path)
    values = {str(key): value for key, value in node.items() if key != "_target_"}
    empty = dataclasses.MISSING
    fields = [one for one in dataclasses.fields(target) if one.init]
    allowed = {one.name: one.default is empty and one.default_factory is empty for one in fields}
    for key in values:
        if key not in allowed:
            raise ConfigError(unknown_key(f"{path}.{key}", key, list(allowed)))
    missing = [name for name, required in allowed.items() if required and name not in values]
    if missing:
        raise ConfigError(f"{path}.{missing[0]}: is required by {target.__name__}, and not set")
    built = {key: build(value, f"{path}.{key}") for key, value in values.items()}
    try:
        return target(**built)
    except FieldError as error:
        raise ConfigError(f"{join(path, error.field)}: {error.message}") from None
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{path}: {error}") from None


@contextmanager
def errors_under(path: str, dataset: str | None = None) -> Iterator[None]:
    """Name the key below `path` of a field that turns out wrong only now, and the data set that it depends on.

    Raises:
        ConfigError: in a `FieldError`'s place.
    """
    try:
        yield
    except FieldError as error:
        where = "" if dataset is None else f" (dataset={dataset})"
        raise ConfigError(f"{join(path, error.field)}: {error.message}{where}") from None


def join(path: str, name: str) -> str:
    """`path.name`, or `path` where the name is empty."""
    return f"{path}.{name}" if name else path


def unknown_key(full_key: str, key: str, allowed: Sequence[str]) -> str:
    """The message for a key that does not exist, with the nearest one that does."""
    return f"{full_key}: unknown key; {_suggest(key, allowed)}"


def unknown_choice(group: str, choice: str, allowed: Sequence[str]) -> str:
    """The message for a choice that a config group does not have, with the nearest one that it has."""
    return f"{group}={choice}: unknown choice; {_suggest(choice, allowed)}"


def plain(config: DictConfig, *, needs_all: bool = True) -> dict[str, Any]:
    """The config with interpolations resolved, as plain containers."""
    resolved = OmegaConf.to_container(config, resolve=True, throw_on_missing=needs_all)
    assert isinstance(resolved, dict)
    return {str(key): value for key, value in resolved.items()}


def check_root(values: Mapping[str, Any], scenario: type[Any]) -> None:
    """Check the root's own values against the fields of the scenario that they become.

    Raises:
        ConfigError: an unknown key, a wrong type, a value out of range.
    """
    allowed = [one.name for one in dataclasses.fields(scenario)]
    for key in values:
        if key not in allowed:
            raise ConfigError(unknown_key(key, key, allowed))
    try:
        check_fields(scenario, values)
    except FieldError as error:
        raise ConfigError(str(error)) from None


def _locate(target: Any, path: str) -> Any:
    said = logging.getLogger("hydra.utils")  # it logs what it raises, over several lines
    was_disabled, said.disabled = said.disabled, True
    try:
        found = hydra.utils.get_object(str(target))
    except Exception as error:  # whatever the import of a module may raise
        reason = " ".join(str(error).split())
        raise ConfigError(f"{path}._target_: cannot import {target!r} ({reason})") from None
    finally:
        said.disabled = was_disabled
    is_ours, module = str(target).startswith("fedrobust."), str(getattr(found, "__module__", ""))
    if is_ours and not module.startswith("fedrobust."):  # reached by way of what a module of ours imports
        raise ConfigError(f"{path}._target_: must name a component of fedrobust, got {target!r}, which is {module}'s")
    if not (isinstance(found, type) and dataclasses.is_dataclass(found)):
        raise ConfigError(f"{path}._target_: must name a component (a dataclass), got {target!r}")
    return found


def _suggest(name: str, allowed: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, allowed, n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    return f"{hint}allowed: {', '.join(sorted(allowed)) or 'none'}"


__all__ = [
    "GROUPS",
    "MISSING",
    "ConfigError",
    "Root",
    "build",
    "check_root",
    "config_folder",
    "errors_under",
    "plain",
    "register_schema",
    "unknown_choice",
    "unknown_key",
]
