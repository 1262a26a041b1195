"""A bar for estimators that may take minutes, shown only where it is asked for."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

Report: TypeAlias = Callable[[str, float], None]
"""Told what goes on, and how much of it is done, from 0 to 1."""


def no_report(what: str, done: float) -> None:
    """Say nothing."""


@contextmanager
def progress_report(shown: bool) -> Iterator[Report]:
    """A bar on stderr while the block runs, or nothing at all."""
    if not shown:
        yield no_report
        return
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("starting", total=1.0)
        yield lambda what, done: bar.update(task, description=what, completed=done)
