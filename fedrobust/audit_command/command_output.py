"""What `fedrobust-audit` shows: tables on standard output, progress on standard error."""

import csv
import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from fedrobust.audit_command.subject import Subject
from fedrobust.audits.base import DataReport
from fedrobust.audits.model import NeuralCleanseReport

_MAX_LINES = 12


def print_labels(report: NeuralCleanseReport, subject: Subject) -> None:
    """The labels with the smallest masks, and the verdict."""
    table = _new_table("label", "mask, pixels", "success", "anomaly index", "")
    order = report.found.l1_norms.nan_to_num(torch.inf).argsort().tolist()
    for label in order[:_MAX_LINES]:
        size, index = float(report.found.l1_norms[label]), float(report.scores[label])
        table.add_row(
            label_name(subject, label),
            "none found" if size != size else f"{size:.1f}",
            f"{100 * float(report.found.success_rates[label]):.1f} %",
            "" if index != index else f"{index:.2f}",
            "flagged" if bool(report.flagged[label]) else "",
        )
    _console().print(table)
    if len(order) > _MAX_LINES:
        print(f"... and {len(order) - _MAX_LINES} labels with larger masks")
    if report.warning:
        print(report.warning)
    elif report.is_backdoored:
        print(f"backdoored: {', '.join(label_name(subject, label) for label in report.flagged_labels)}")
    else:
        print(f"no backdoor found: no anomaly index above {report.threshold:g}")


def print_classes(report: DataReport, names: Sequence[str]) -> None:
    """The verdict on each class."""
    table = _new_table("class", "pictures", "flagged", report.statistic_name, "verdict")
    for one in report.verdicts:
        num_flagged = int(report.flagged[report.labels == one.label].sum())
        verdict = {True: "poisoned", False: "", None: one.reason or "not judged"}[one.is_poisoned]
        statistic = "" if one.statistic != one.statistic else f"{one.statistic:.3g}"
        table.add_row(names[one.label], str(one.num_examples), str(num_flagged), statistic, verdict)
    _console().print(table)
    if report.statistic_threshold is not None:
        print(f"no class is convicted at or below {report.statistic_threshold:.3g}")
    if report.uncalibrated:
        print(f"not calibrated, so that verdicts have no stated rate of false alarms: {report.uncalibrated}")


def table_of_pictures(report: DataReport, names: Sequence[str], paths: Sequence[Path]) -> str:
    """Comma-separated, the most suspicious first."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["path", "class", "score", "flagged"])
    for row in report.scores.nan_to_num(-torch.inf).argsort(descending=True).tolist():
        score = float(report.scores[row])
        name = names[int(report.labels[row])]
        writer.writerow([paths[row], name, "" if score != score else score, int(report.flagged[row])])
    return text.getvalue()


def label_name(subject: Subject, label: int) -> str:
    """The label, and the name of its class where it is another."""
    known = label < len(subject.class_names) and subject.class_names[label] != str(label)
    return f"{label} ({subject.class_names[label]})" if known else str(label)


def _new_table(*headings: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for position, heading in enumerate(headings):
        table.add_column(heading, justify="right" if 0 < position < len(headings) - 1 else "left")
    return table


def _console() -> Console:
    return Console(highlight=False, soft_wrap=True)


@contextmanager
def progress(what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on standard error, for what tells how much of it is done."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:3.0f} %"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, of: bar.update(task, completed=done, total=of)


@contextmanager
def spinner(what: str) -> Iterator[None]:
    """A sign of life on standard error, for what tells nothing."""
    with Console(stderr=True).status(what):
        yield
