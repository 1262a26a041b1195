"""The arguments that studies have in common."""

import argparse
from collections.abc import Sequence
from pathlib import Path


def study_parser(
    description: str | None,
    *,
    quick: str,
    seeds: Sequence[int] = (0, 1, 2),
    data: str | None = None,
) -> argparse.ArgumentParser:
    """A parser with `--seeds`, `--quick` and, if the study reads files, `--data-root`.

    Args:
        description: what the study does, as its lines are.
        quick: what `--quick` does.
        seeds: the default.
        data: what lies below the data root; `None`: nothing is read.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(seeds))
    parser.add_argument("--quick", action="store_true", help=quick)
    if data is not None:
        where = f"where {data} lies; default: FEDROBUST_DATA, else the user's cache folder"
        parser.add_argument("--data-root", type=Path, help=where)
    return parser


def data_root_override(data_root: Path | None) -> list[str]:
    """The override that names the data root, if one is given."""
    return [] if data_root is None else [f"data_root={data_root}"]
