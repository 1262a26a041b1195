"""Write `docs/rules/`: a page for each rule and pre-aggregator from its docstring and fields, and a table of all.

    python docs/build_rules.py

A docstring's paragraphs that begin with a label of `LABELS` become the sections of the page.
"""

import dataclasses
import inspect
import re
import sys
import typing
from dataclasses import dataclass
from pathlib import Path

from fedrobust.aggregators import RULES
from fedrobust.config import config_folder
from fedrobust.preaggregators import PREAGGREGATORS

LABELS = ("Formula", "Cost", "Breakdown point", "Assumes", "Fails when", "Source", "Departs")
FOLDER = Path(__file__).parent / "rules"


@dataclass(frozen=True)
class Page:
    """What a page says.

    Attributes:
        name: the choice of the config group, and the page's file name.
        group: `aggregator` or `preaggregator`.
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


def pages() -> list[Page]:
    """All rules, then all pre-aggregators, each sorted by name."""
    found = []
    for group, kinds in (("aggregator", RULES), ("preaggregator", PREAGGREGATORS)):
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
    missing = [label for label in LABELS if label not in sections]
    if missing:
        raise ValueError(f"the docstring of {kind.__name__} has no {', '.join(missing)}")
    fields = {
        match[1]: " ".join(match[2].split())
        for match in re.finditer(r"^    (\w+): (.*(?:\n        .*)*)", attributes, re.MULTILINE)
    }
    return Page(name, group, kind, summary, tuple(prose), sections, fields)


def render(page: Page) -> str:
    """The page as Markdown."""
    lines = [f"# {page.kind.__name__}", "", page.summary, ""]
    for paragraph in page.prose:
        lines += [paragraph, ""]
    for label in LABELS:
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
    module = "aggregators" if page.group == "aggregator" else "preaggregators"
    choice = page.name if page.group == "aggregator" else f"[{page.name}]"
    lines += [
        "```",
        f"fedrobust {page.group}={choice}" + (f"    # or from Python: fedrobust.{module}.{page.kind.__name__}"),
        "```",
        "",
    ]
    if typing.get_type_hints(page.kind).get("uses_context") and page.group == "aggregator":
        lines += [f"It uses the round's context: `{page.kind.__name__}({arguments})(updates, weights, context)`.", ""]
    return "\n".join(lines)


def render_table(all_pages: list[Page]) -> str:
    """The table of all rules as Markdown."""
    lines = [
        "# Rules and pre-aggregators",
        "",
        "Written from the docstrings by `python docs/build_rules.py`. n clients, d parameters, f = ⌊εn⌋ assumed",
        "malicious.",
        "",
    ]
    for group, title in (("aggregator", "Rules"), ("preaggregator", "Pre-aggregators, before any rule")):
        lines += [f"## {title}", "", "| | what | cost | breakdown point |", "|---|---|---|---|"]
        for page in all_pages:
            if page.group == group:
                cells = (page.summary, page.sections["Cost"], page.sections["Breakdown point"])
                lines.append(f"| [{page.name}]({page.name}.md) | " + " | ".join(map(_cell, cells)) + " |")
        lines.append("")
    return "\n".join(lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def files() -> dict[str, str]:
    """All files of `docs/rules/` by name."""
    found = pages()
    return {f"{page.name}.md": render(page) for page in found} | {"README.md": render_table(found)}


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
