"""Write `docs/rules/`: a page for each rule, pre-aggregator and server optimiser from its docstring, and a table.

    python docs/build_rules.py

A docstring's paragraphs that begin with a label of `LABELS` become the sections of the page. Server optimisers have no
breakdown point of their own.
"""

import dataclasses
import inspect
import re
import sys
from dataclasses import dataclass
from pathlib import Path

from fedrobust.aggregators import RULES
from fedrobust.config.building import config_folder
from fedrobust.preaggregators import PREAGGREGATORS
from fedrobust.server_optimizers import OPTIMIZERS

GROUPS: dict[str, tuple[type, ...]] = {
    "aggregator": RULES,
    "preaggregator": PREAGGREGATORS,
    "server_optimizer": OPTIMIZERS,
}
TITLES = {
    "aggregator": ("Rules", ("Cost", "Breakdown point")),
    "preaggregator": ("Pre-aggregators, before any rule", ("Cost", "Breakdown point")),
    "server_optimizer": ("Server optimisers, after any rule", ("Formula", "Cost")),
}
"""Of each group its heading in the table, and the sections that are its columns."""

LABELS = ("Formula", "Cost", "Breakdown point", "Assumes", "Fails when", "Source", "Departs")
FOLDER = Path(__file__).parent / "rules"


@dataclass(frozen=True)
class Page:
    """What a page says.

    Attributes:
        name: the choice of the config group.
        group: a key of `GROUPS`.
        kind: the class.
        summary: its first sentence.
        prose: free paragraphs.
        sections: by label.
        fields: by name, what the docstring says of them.
    """

    name: str
    group: str
    kind: type
    summary: str
    prose: tuple[str, ...]
    sections: dict[str, str]
    fields: dict[str, str]

    @property
    def file(self) -> str:
        """The page's file name: `adam` alone would not say of what."""
        return f"server_{self.name}.md" if self.group == "server_optimizer" else f"{self.name}.md"

    @property
    def labels(self) -> tuple[str, ...]:
        """The sections that it must have."""
        return tuple(label for label in LABELS if self.group != "server_optimizer" or label != "Breakdown point")


def pages() -> list[Page]:
    """All rules, then all pre-aggregators, then all server optimisers, each sorted by name."""
    found = []
    for group, kinds in GROUPS.items():
        found += sorted((read_page(group, kind) for kind in kinds), key=lambda page: page.name)
    return found


def read_page(group: str, kind: type) -> Page:
    """Read the docstring of `kind`.

    Raises:
        ValueError: a label is missing, or there is no config of that name.
    """
    configs = (config_folder() / group).glob("*.yaml")
    target = re.compile(rf"_target_: fedrobust\.{group}s\.{kind.__name__}$", re.MULTILINE)
    name = next((path.stem for path in configs if target.search(path.read_text())), None)
    if name is None:
        raise ValueError(f"{kind.__name__} has no file in conf/{group}")
    text, _, attributes = inspect.cleandoc(kind.__doc__ or "").partition("\nAttributes:\n")
    summary, *paragraphs = [" ".join(part.split()) for part in re.split(r"\n\s*\n|\n(?=[A-Z][a-z ]+: )", text)]
    sections: dict[str, str] = {}
    prose: list[str] = []
    for paragraph in filter(None, paragraphs):
        label, _, rest = paragraph.partition(": ")
        if label in LABELS:
            sections[label] = rest
        else:
            prose.append(paragraph)
    fields = {
        match[1]: " ".join(match[2].split())
        for match in re.finditer(r"^    (\w+): (.*(?:\n        .*)*)", attributes, re.MULTILINE)
    }
    page = Page(name, group, kind, summary, tuple(prose), sections, fields)
    missing = [label for label in page.labels if label not in sections]
    if missing:
        raise ValueError(f"the docstring of {kind.__name__} has no {', '.join(missing)}")
    return page


def render(page: Page) -> str:
    """The page as Markdown."""
    lines = [f"# {page.kind.__name__}", "", page.summary, ""]
    for paragraph in page.prose:
        lines += [paragraph, ""]
    for label in page.labels:
        text = page.sections[label]
        first = text[0] if label == "Formula" else text[0].upper()  # x is not X
        lines += [f"**{label}.** {first}{text[1:]}", ""]
    own = [field for field in dataclasses.fields(page.kind) if field.init]
    if own:
        lines += ["| field | default | meaning |", "|---|---|---|"]
        for field in own:
            default = "required" if field.default is dataclasses.MISSING else f"`{field.default!r}`"
            lines.append(f"| `{field.name}` | {default} | {_cell(page.fields[field.name])} |")
        lines.append("")
    arguments = "assumed_fraction=0.2" if any(field.name == "assumed_fraction" for field in own) else ""
    choice = f"[{page.name}]" if page.group == "preaggregator" else page.name
    lines += [
        "```",
        f"fedrobust {page.group}={choice}    # or from Python: fedrobust.{page.group}s.{page.kind.__name__}",
        "```",
        "",
    ]
    if page.group == "aggregator" and re.search(r"\bcontext\.|\bcontext or", inspect.getsource(page.kind.__call__)):
        lines += [f"It reads the round's context: `{page.kind.__name__}({arguments})(updates, weights, context)`.", ""]
    return "\n".join(lines)


def render_table(all_pages: list[Page]) -> str:
    """The table of all rules as Markdown."""
    lines = [
        "# Rules, pre-aggregators and server optimisers",
        "",
        "Written from the docstrings by `python docs/build_rules.py`. n clients, d parameters, f = ⌊εn⌋ assumed",
        "malicious; Δ is a rule's answer.",
        "",
    ]
    for group, (title, columns) in TITLES.items():
        heads = " | ".join(label.lower() for label in columns)
        lines += [f"## {title}", "", f"| | what | {heads} |", "|---" * (2 + len(columns)) + "|"]
        for page in all_pages:
            if page.group == group:
                cells = (page.summary, *(page.sections[label] for label in columns))
                lines.append(f"| [{page.name}]({page.file}) | " + " | ".join(map(_cell, cells)) + " |")
        lines.append("")
    return "\n".join(lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def files() -> dict[str, str]:
    """All files of `docs/rules/` by name."""
    found = pages()
    return {page.file: render(page) for page in found} | {"README.md": render_table(found)}


def main() -> int:
    """Write them; files of rules that are gone are deleted."""
    FOLDER.mkdir(exist_ok=True)
    written = files()
    for path in FOLDER.glob("*.md"):
        if path.name not in written:
            path.unlink()
    for name, text in written.items():
        (FOLDER / name).write_text(text)
    print(f"{len(written)} files in {FOLDER}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
