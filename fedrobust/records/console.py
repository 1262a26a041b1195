"""A run as it is watched: a progress bar with live figures, or plain log lines."""

import contextlib
import logging
import time
from collections.abc import Iterator
from types import TracebackType
from typing import Self

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from fedrobust.records.formatting import is_rate, show, title
from fedrobust.records.run_folder import Row

log = logging.getLogger("fedrobust")


class RunConsole:
    """Shows the rounds of one run; a context manager.

    A bar needs a terminal: with `verbose=False`, or where the output is a file or a pipe, every evaluated round is one
    line of the logger `fedrobust` instead, without control codes.
    """

    def __init__(
        self,
        verbose: bool,
        num_rounds: int,
        start_round: int = 0,
        *,
        label: str = "",
        console: Console | None = None,
    ) -> None:
        """Prepare to show rounds `start_round` + 1 to `num_rounds`.

        Args:
            verbose: with a bar, if there is a terminal.
            num_rounds: the last round.
            start_round: the last one that was played before.
            label: what is before every line, where this is not the run itself.
            console: by default the standard output.
        """
        self._label = f"{label}: " if label else ""
        self._console = console or Console()
        self._num_rounds = num_rounds
        self._start_round = start_round
        self._is_live = verbose and self._console.is_terminal
        self._known: dict[
            str, float
        ] = {}  # the latest figures: most rounds are not evaluated, the bar shows them still
        self._bar = Progress(
            TextColumn(f"{self._label}round"),
            MofNCompleteColumn(),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[figures]}"),
            TimeRemainingColumn(),
            console=self._console,
            disable=not self._is_live,
        )
        self._task: TaskID | None = None
        self._last = 0.0

    def __enter__(self) -> Self:
        """Show the bar."""
        self._last = time.perf_counter()
        self._bar.start()
        self._task = self._bar.add_task("", total=self._num_rounds, completed=self._start_round, figures="")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Leave the bar as it stands and give the terminal back, also after an error."""
        with contextlib.suppress(OSError):  # the terminal was closed: nobody is left to look, and the run is not to end
            self._bar.stop()

    def on_round(self, row: Row) -> None:
        """Show one round."""
        now = time.perf_counter()
        seconds, self._last = now - self._last, now
        self._known |= {name: row[name] for name in _SHOWN if row.get(name) is not None}
        figures = "  ".join([*_figures(self._known), f"{seconds:.2f} s/round"])
        if self._is_live and self._task is not None:
            with contextlib.suppress(OSError):
                self._bar.update(self._task, completed=row["round"], figures=figures)
        elif row.get("clean_accuracy") is not None:
            log.info("%sround %d/%d  %s", self._label, row["round"], self._num_rounds, figures)

    def message(self, text: str) -> None:
        """Show one line, above the bar."""
        if self._is_live:
            with contextlib.suppress(OSError):
                self._bar.console.print(text, markup=False, highlight=False)
        else:
            log.info("%s", text)


def print_summary(summary: Row, *, console: Console | None = None) -> None:
    """Print the final figures of a run, those that are single values, as a small table; `None` is shown as "-"."""
    table = Table(box=box.SIMPLE_HEAD, title="Result", title_justify="left")
    table.add_column("figure")
    table.add_column("value", justify="right")
    for name, value in summary.items():
        if isinstance(value, list | tuple | dict):
            continue
        is_figure = isinstance(value, float) or (isinstance(value, int) and is_rate(name))
        table.add_row(title(name), "-" if value is None else show(name, value) if is_figure else escape(str(value)))
    with contextlib.suppress(OSError):  # the terminal was closed; summary.json has it all
        (console or Console()).print(table)


_SHOWN = {
    "clean_accuracy": "accuracy",
    "attack_success_rate": "attack success",
    "watermark_accuracy": "watermark",
    "num_rejected": "rejected",
}


def _figures(known: dict[str, float]) -> Iterator[str]:
    for name, label in _SHOWN.items():
        if name in known:
            yield f"{label} {show(name, known[name])}"
