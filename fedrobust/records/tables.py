"""A grid of runs as text: Markdown, CSV, JSON and the terminal."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from fedrobust.records.formatting import show, title
from fedrobust.records.grid import Cell, Grid


def cell_text(cell: Cell | None, metric: str) -> str:
    """What a table shows for a cell: mean ± std and n, and what failed; `None`, a cell never started, is empty."""
    if cell is None:
        return ""
    parts: list[str] = []
    found = cell.statistics(metric)
    if found is not None:
        parts.append(f"{show(metric, found.mean, found.std)} (n={found.n})")
    elif cell.finished:
        parts.append("no value")
    if cell.failures:
        reasons = list(dict.fromkeys(run.reason for run in cell.failures))
        what = "failed" if any(run.status == "failed" for run in cell.failures) else "unfinished"
        count = f"{len(cell.failures)} {what}"
        parts.append(count if cell.finished else f"{count}: {_shorten(reasons[0])}")
    return "; ".join(parts)


def terminal_table(grid: Grid, metric: str) -> Table:
    """The grid of one metric for the terminal."""
    table = Table(title=f"{title(metric)} (mean ± standard deviation over seeds)", title_justify="left")
    table.add_column(f"{grid.rows_key} / {grid.columns_key}", overflow="fold")
    for column in grid.columns:
        table.add_column(escape(column), justify="right", overflow="fold")
    for row in grid.rows:
        texts = [cell_text(grid.cells.get((row, column)), metric) for column in grid.columns]
        table.add_row(escape(row), *map(escape, texts))
    return table


def markdown(
    grid: Grid,
    metrics: Sequence[str],
    pictures: Sequence[str],
    figures: Sequence[str] = (),
    damaged: Mapping[Path, str] | None = None,
) -> str:
    """The report as one Markdown page.

    Args:
        grid: the runs.
        metrics: a table for each.
        pictures: names of files to show.
        figures: side by side in a table of their own.
        damaged: the reason by the folder of each run that could not be read.
    """
    lines = [f"# {grid.rows_key} x {grid.columns_key}", ""]
    if figures:
        heading, *cells = side_by_side(grid, figures)
        lines += ["Mean ± standard deviation (n - 1) over n seeds.", "", _line(heading), "|" + " --- |" * len(heading)]
        lines += [*map(_line, cells), ""]
    for metric in metrics:
        lines += [f"## {title(metric).capitalize()}", "", "Mean ± standard deviation (n - 1) over n seeds.", ""]
        lines.append(_line([f"{grid.rows_key} / {grid.columns_key}", *grid.columns]))
        lines.append("|" + " --- |" * (len(grid.columns) + 1))
        for row in grid.rows:
            lines.append(_line([row, *(cell_text(grid.cells.get((row, column)), metric) for column in grid.columns)]))
        lines.append("")
    lines += [line for picture in pictures for line in (f"![{picture}]({picture})", "")]
    failures = [(cell, run) for cell in _cells(grid) for run in cell.failures]
    if failures:
        lines += ["## Failed and unfinished runs", ""]
        lines.append(_line([grid.rows_key, grid.columns_key, "seed", "status", "reason", "folder"]))
        lines.append("|" + " --- |" * 6)
        for cell, run in failures:
            entries = [cell.row, cell.column, str(run.seed), run.status, run.reason, str(run.folder)]
            lines.append(_line(entries))
        lines.append("")
    if grid.superseded:
        lines += ["## Left out", "", "Started again later with the same settings and seed:", ""]
        lines += [f"- {run.folder} (seed {run.seed}, {run.status})" for run in grid.superseded] + [""]
    if damaged:
        lines += ["## Damaged", "", "Left out, since they cannot be read:", ""]
        lines += [f"- {folder}: {reason}" for folder, reason in damaged.items()] + [""]
    return "\n".join(lines)


def side_by_side(grid: Grid, metrics: Sequence[str]) -> list[list[str]]:
    """Every cell as a line, every metric as a column; the first line is the heading."""
    one_column = len(grid.columns) == 1
    heading = [grid.rows_key, *(() if one_column else (grid.columns_key,)), *map(title, metrics)]
    lines = [heading]
    for cell in _cells(grid):
        names = [cell.row] if one_column else [cell.row, cell.column]
        lines.append([*names, *(cell_text(cell, metric) for metric in metrics)])
    return lines


def terminal_side_by_side(grid: Grid, metrics: Sequence[str]) -> Table:
    """`side_by_side` for the terminal."""
    heading, *lines = side_by_side(grid, metrics)
    table = Table(title="mean ± standard deviation over seeds", title_justify="left")
    for number, name in enumerate(heading):
        table.add_column(escape(name), justify="left" if number == 0 else "right", overflow="fold")
    for line in lines:
        table.add_row(*map(escape, line))
    return table


def records(grid: Grid, metrics: Sequence[str]) -> list[dict[str, Any]]:
    """One plain dict per cell, with each metric's mean, std, n and values by seed."""
    return [
        {
            grid.rows_key: cell.row,
            grid.columns_key: cell.column,
            "num_finished": len(cell.finished),
            "num_failed": len(cell.failures),
            "seeds": [run.seed for run in cell.finished],
            "failures": {str(run.seed): f"{run.status}: {run.reason}" for run in cell.failures},
            "metrics": {metric: _statistics(cell, metric) for metric in metrics},
        }
        for cell in _cells(grid)
    ]


def comma_separated(grid: Grid, metrics: Sequence[str]) -> str:
    """One line per cell; an unknown figure is empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    figures = [(metric, name) for metric in metrics for name in ("mean", "std", "n")]
    fixed = ("num_finished", "num_failed", "seeds", "failures")
    writer.writerow([grid.rows_key, grid.columns_key, *fixed, *(f"{metric}_{name}" for metric, name in figures)])
    for record in records(grid, metrics):
        values = [record["metrics"][metric][name] for metric, name in figures]
        seeds = " ".join(str(seed) for seed in record["seeds"])
        failures = "; ".join(f"seed {seed}: {reason}" for seed, reason in record["failures"].items())
        counts = [record["num_finished"], record["num_failed"]]
        writer.writerow([record[grid.rows_key], record[grid.columns_key], *counts, seeds, failures, *values])
    return text.getvalue()


def _cells(grid: Grid) -> list[Cell]:
    ordered = [(row, column) for row in grid.rows for column in grid.columns]
    return [grid.cells[key] for key in ordered if key in grid.cells]


def _statistics(cell: Cell, metric: str) -> dict[str, Any]:
    found = cell.statistics(metric)
    values = {str(run.seed): run.summary.get(metric) for run in cell.finished}
    if found is None:
        return {"mean": None, "std": None, "n": 0, "values": values}
    return {"mean": found.mean, "std": found.std, "n": found.n, "values": values}


def _line(entries: Sequence[str]) -> str:
    return "| " + " | ".join(entry.replace("|", "\\|") for entry in entries) + " |"


def _shorten(reason: str, length: int = 60) -> str:
    return reason if len(reason) <= length else reason[: length - 1] + "…"
