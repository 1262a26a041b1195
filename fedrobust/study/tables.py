"""Tables and pages in Markdown."""

from collections.abc import Iterable, Mapping, Sequence


def markdown_table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown, with no line break at its end.

    Raises:
        ValueError: a row with more or fewer cells than there are heads.
    """
    lines = [heads, *rows]
    for cells in lines:
        if len(cells) != len(heads):
            raise ValueError(f"a row must have {len(heads)} cells, got {len(cells)}: {list(cells)}")
    first, *others = ("| " + " | ".join(cells) + " |" for cells in lines)
    return "\n".join([first, "|---" * len(heads) + "|", *others])


def marked_sections(page: str, names: Sequence[str], changed: Mapping[str, str]) -> dict[str, str]:
    """The marked sections of a page, with those that were measured now in the place of what was there.

    Args:
        page: the page as it is; may be empty.
        names: of its sections, such as `cpu` and `cuda`.
        changed: the new text of some.

    Returns:
        The text of each section between its marks, which are comments, to be put into the new page.
    """
    sections = {}
    for name in names:
        start, end = f"<!-- {name} -->\n", f"\n<!-- end {name} -->"
        known = page.partition(start)[2].partition(end)[0] or "Not measured."
        sections[name] = start + changed.get(name, known) + end
    return sections
