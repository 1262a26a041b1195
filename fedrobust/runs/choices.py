"""The chosen option of each config group, when the file that says it is lost, or says what is no longer so."""

from collections.abc import Mapping
from typing import Any

from omegaconf import OmegaConf

from fedrobust.config.building import GROUPS, ConfigError, config_folder
from fedrobust.config.compose import chosen
from fedrobust.records.run_folder import RunFolder


def known_choices(records: RunFolder, values: Mapping[str, Any], *candidates: Mapping[str, str]) -> dict[str, str]:
    """The choices of a run that is resumed, by what its config names now.

    Args:
        records: its folder.
        values: its config.
        candidates: what they may be, the best first; an empty one is none.

    Raises:
        ConfigError: nothing says what they were.
    """
    for choices in (*candidates, _of_hydra(records, values)):
        if choices:
            return {group: _option(group, choices[group], values[group]) for group in GROUPS if group in choices}
    raise ConfigError(
        f"resume: {records.path / 'choices.json'} does not say which option of each config group was chosen, and no "
        'other file does: write it, such as {"dataset": "digits", "attack": "dba", "aggregator": "mean"}'
    )


def _of_hydra(records: RunFolder, values: Mapping[str, Any]) -> dict[str, str]:
    """What Hydra has noted beside a run of the command line; nothing where that is lost, too."""
    try:
        noted = OmegaConf.load(records.path / ".hydra" / "hydra.yaml")
        return chosen(noted.hydra, OmegaConf.create({"preaggregator": dict(values["preaggregator"])}))
    except Exception:  # lost, cut or of another kind: what the YAML parser raises has no type in OmegaConf's terms
        return {}


def _option(group: str, option: str, node: Mapping[str, Any]) -> str:
    """`option`, unless the config names another component than it does: then the one that does, or the component."""
    if group == "preaggregator":
        return "+".join(node) or "none"
    targets = {path.stem: _target(path.read_text("utf-8")) for path in sorted((config_folder() / group).glob("*.yaml"))}
    target = node.get("_target_")
    if targets.get(option) in (None, target):  # an option of the user's own is not among them
        return option
    fitting = [name for name, other in targets.items() if other == target]
    return fitting[0] if len(fitting) == 1 else str(target).rpartition(".")[2]


def _target(text: str) -> str | None:
    lines = [line.partition(":") for line in text.splitlines()]
    return next((value.split("#")[0].strip() for key, _, value in lines if key == "_target_"), None)
