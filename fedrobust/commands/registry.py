"""What there is to choose from, as tables: `fedrobust list attacks`, `list aggregators`, `list watermarks`.

Everything is read from where it is defined: choices from the conf/ files, the stage of an attack from its config, what
attackers must know from the attack, papers from the docstrings.
"""

import inspect
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hydra import compose, initialize_config_dir
from rich.console import Console
from rich.table import Table

from fedrobust.attacks.base import UpdateAttack
from fedrobust.attacks.deployed_model import DeployedModelAttack
from fedrobust.config.building import ConfigError, build, config_folder, plain

LISTS = ("aggregators", "attacks", "audits", "watermarks")

_NO_STAGE = ("schedule", "training")
"""Components of an attack that say when and how it trains, not at which stage it acts."""


@dataclass(frozen=True)
class AttackEntry:
    """A choice of the group `attack`.

    Attributes:
        name: the choice.
        stages: the stages at which it acts, in the order of a round.
        knowledge: what attackers must know, and what they can make use of.
        papers: the sources of its parts.
    """

    name: str
    stages: tuple[str, ...]
    knowledge: str
    papers: tuple[str, ...]


@dataclass(frozen=True)
class AggregatorEntry:
    """A choice of the group `aggregator`: its name, what it does in a sentence, and its source."""

    name: str
    summary: str
    paper: str


@dataclass(frozen=True)
class WatermarkEntry:
    """A choice of the group `watermark`: its name, what its triggers are, how they are labelled, and its source."""

    name: str
    summary: str
    labels: str
    paper: str


@dataclass(frozen=True)
class AuditEntry:
    """A choice of the group `audit`: its name, what it looks at, what it does in a sentence, and its source."""

    name: str
    kind: str
    summary: str
    paper: str


def attack_entries() -> list[AttackEntry]:
    """Every choice of the group `attack`, by name."""
    return [_attack_entry(name, node) for name, node in _configs("attack").items()]


def aggregator_entries() -> list[AggregatorEntry]:
    """Every choice of the group `aggregator`, by name."""
    entries = []
    for name, node in _configs("aggregator").items():
        kind = type(build(node, "aggregator"))
        summary = inspect.getdoc(kind) or ""
        entries.append(AggregatorEntry(name, _one_line(summary.split("\n\n")[0]), source(kind)))
    return entries


def watermark_entries() -> list[WatermarkEntry]:
    """Every choice of the group `watermark` but none, by name."""
    entries = []
    for name, node in _configs("watermark").items():
        if "trigger_set" in node:
            kind = type(build(node["trigger_set"], "watermark.trigger_set"))
            label = node["trigger_set"].get("target_label")
            labels = "random" if label is None else "one for all"
            summary = inspect.getdoc(kind) or ""
            entries.append(WatermarkEntry(name, _one_line(summary.split("\n\n")[0]), labels, source(kind)))
    return entries


def audit_entries() -> list[AuditEntry]:
    """Every choice of the group `audit` but none, by name."""
    entries = []
    for name, node in _configs("audit").items():
        plan = build(node, "audit")
        if plan.method is not None:
            summary = _one_line((inspect.getdoc(type(plan.method)) or "").split("\n\n")[0])
            entries.append(AuditEntry(name, plan.kind, summary, source(type(plan.method))))
    return entries


def source(kind: type) -> str:
    """The paper that a class names: its docstring's `Source:`, or what of its module's docstring has an address."""
    text = inspect.getdoc(kind) or ""
    found = re.search(r"^Source: (.*?)(?=\n\n|\n[A-Z][a-z ]+:|\Z)", text, re.MULTILINE | re.DOTALL)
    if found:
        return _one_line(found[1])
    paragraphs = (inspect.getdoc(sys.modules[kind.__module__]) or "").split("\n\n")
    cited = next((paragraph for paragraph in paragraphs if "https://" in paragraph), "")
    return _one_line(re.split(r"\nDeparts:", cited)[0])


def print_list(arguments: Sequence[str]) -> None:
    """Print the table that the command line asks for.

    Raises:
        ConfigError: no list of that name, or more than one.
    """
    if len(arguments) != 1 or arguments[0] not in LISTS:
        got = repr(" ".join(arguments)) if arguments else "nothing"
        raise ConfigError(f"list: must be followed by one of {', '.join(LISTS)}, got {got}")
    columns, rows = _table(arguments[0])
    table = Table(title=arguments[0].capitalize(), title_justify="left", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in columns:
        table.add_column(column, no_wrap=column == "name", overflow="fold")
    for row in rows:
        table.add_row(*row)
    Console(width=None if sys.stdout.isatty() else 160).print(table)


def _table(name: str) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Headings and rows of a list."""
    rows: list[tuple[str, ...]]
    if name == "attacks":
        rows = [(one.name, ", ".join(one.stages), one.knowledge, "\n".join(one.papers)) for one in attack_entries()]
        return ("name", "stage", "knowledge", "paper"), rows
    if name == "audits":
        rows = [(audit.name, audit.kind, audit.summary, audit.paper) for audit in audit_entries()]
        return ("name", "looks at", "what", "paper"), rows
    if name == "watermarks":
        rows = [(mark.name, mark.summary, mark.labels, mark.paper) for mark in watermark_entries()]
        return ("name", "triggers", "labels", "paper"), rows
    return ("name", "what", "paper"), [(rule.name, rule.summary, rule.paper) for rule in aggregator_entries()]


def _configs(group: str) -> dict[str, Any]:
    """The config of each choice of a group, composed by itself."""
    names = sorted(path.stem for path in (config_folder() / group).glob("*.yaml"))
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        return {name: plain(compose(f"{group}/{name}"))[group] for name in names}


def _attack_entry(name: str, node: dict[str, Any]) -> AttackEntry:
    stages = {key: value for key, value in node.items() if key not in _NO_STAGE and _is_component(value)}
    parts = [build(value, f"attack.{key}") for key, value in stages.items()]
    papers = dict.fromkeys(filter(None, (source(type(part)) for part in parts)))
    return AttackEntry(name, tuple(stages), _knowledge(parts), tuple(papers))


def _knowledge(parts: Sequence[Any]) -> str:
    """What the update attack among the parts must know: a model's trainer knows its own update."""
    for part in parts:
        if isinstance(part, UpdateAttack):
            return part.needs if part.needs == part.uses else f"{part.needs}; uses {part.uses}"
    if any(isinstance(part, DeployedModelAttack) for part in parts):
        return "own; the trained model"
    return "own" if parts else ""


def _is_component(value: Any) -> bool:
    return isinstance(value, dict) and "_target_" in value


def _one_line(text: str) -> str:
    return " ".join(text.split())
