"""`fedrobust-report`: many runs as tables and heat maps."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from fedrobust.records.files import to_json, write_atomically
from fedrobust.records.grid import arrange, is_figure
from fedrobust.records.heatmap import plot_heatmaps
from fedrobust.records.runs import Run, find_runs
from fedrobust.records.sweep import missing_cells
from fedrobust.records.tables import comma_separated, markdown, records, terminal_side_by_side, terminal_table
from fedrobust.records.versions import version_line

_SUCCESS, _CONTROL = "attack_success_rate", "control_attack_success_rate"
_ALWAYS = (_SUCCESS, _CONTROL, "clean_accuracy")  # the control where a benign twin was played

_EPILOG = """\
Every run below FOLDER is shown: a cell averages its seeds only, and says how many runs failed and why. Settings that
differ within a row or column, such as attack.num_malicious in a sweep, get rows or columns of their own.

examples:
  fedrobust-report multirun/2026-01-31/12-00-00
  fedrobust-report multirun --metric clean_accuracy --rows dataset --columns attack
  fedrobust-report multirun --rows attack.num_malicious
  fedrobust-report multirun --rows aggregator --columns attack --figures clean_accuracy detection_tpr
"""


def main(argv: list[str] | None = None) -> int:
    """Run the command; 0, 1 if runs were damaged and left out, 2 with one line if there is no report to make."""
    arguments = _parser().parse_args(argv)
    try:
        _, damaged = write_report(
            arguments.folder,
            metric=arguments.metric,
            rows=arguments.rows,
            columns=arguments.columns,
            figures=arguments.figures,
            output=arguments.output,
        )
    except ValueError as error:
        print(f"fedrobust-report: {error}", file=sys.stderr)
        return 2
    return 1 if damaged else 0


def write_report(
    folder: Path,
    *,
    metric: str = "attack_success_rate",
    rows: str = "attack",
    columns: str = "aggregator",
    figures: Sequence[str] = (),
    output: Path | None = None,
    console: Console | None = None,
) -> tuple[Path, dict[Path, str]]:
    """Print the runs below `folder` as a table; write report.md, report.csv, report.json and heatmap.png.

    Args:
        folder: where to look for runs.
        metric: the figure of the runs' summaries to show first; attack success, its control by
            benign twins where there are any, and clean accuracy are always there.
        rows: the config group or dotted setting that makes the rows.
        columns: the same for the columns.
        figures: further figures of the summaries, for a table with a line for each cell and a column for each of them.
        output: where the files go; `None` is report/ in `folder`.
        console: where the table goes; `None` is the standard output.

    Returns:
        The folder written to, and the folders of damaged runs, which are left out, with the reason.

    Raises:
        ValueError: `folder` holds no runs that can be read, or they have no such metric, group or setting.
    """
    runs, damaged = find_runs(folder)
    metrics = _metrics(runs, [metric, *figures])
    grid = arrange(runs, rows, columns)
    target = output or folder / "report"
    target.mkdir(parents=True, exist_ok=True)
    picture = plot_heatmaps(target / "heatmap.png", grid, metrics)
    write_atomically(target / "report.md", markdown(grid, metrics, [picture.name], figures, damaged).encode())
    write_atomically(target / "report.csv", comma_separated(grid, metrics).encode())
    write_atomically(target / "report.json", (to_json(records(grid, metrics), indent=2) + "\n").encode())

    console = console or Console()
    if figures:
        console.print(terminal_side_by_side(grid, figures))
    else:
        for shown in (_SUCCESS, _CONTROL) if metric == _SUCCESS and _CONTROL in metrics else (metric,):
            console.print(terminal_table(grid, shown))
    for cell in grid.cells.values():
        for run in cell.failures:
            console.print(f"{run.folder}: {run.status}: {run.reason}", markup=False, highlight=False, soft_wrap=True)
    for where, reason in damaged.items():
        console.print(f"{where}: damaged, left out: {reason}", markup=False, highlight=False, soft_wrap=True)
    if absent := missing_cells(folder):
        numbers = ", ".join(map(str, absent[:10])) + (", ..." if len(absent) > 10 else "")
        message = f"{folder}: {len(absent)} cells of the sweep are missing, they never began: {numbers}"
        console.print(message, markup=False, highlight=False, soft_wrap=True)
    for run in grid.superseded:
        message = f"{run.folder}: left out, started again with the same settings and seed"
        console.print(message, markup=False, highlight=False, soft_wrap=True)
    console.print(f"written to {target}", markup=False, highlight=False, soft_wrap=True)
    return target, damaged


def _metrics(runs: Sequence[Run], wanted: Sequence[str]) -> list[str]:
    """What is `wanted`, then attack success, its control and clean accuracy where there are any."""
    finished = [run for run in runs if run.status == "finished"]
    # A metric may be null in a run (attack success without an attack), which is not the same as unknown.
    known = {name for run in finished for name, value in run.summary.items() if value is None or is_figure(value)}
    for metric in wanted:
        if finished and metric not in known:
            raise ValueError(f"unknown metric {metric!r}; the runs have {', '.join(sorted(known))}")
    always = [name for name in _ALWAYS if name in known or (not finished and name != _CONTROL)]
    return list(dict.fromkeys([*wanted, *always]))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fedrobust-report",
        description="Collect the runs below a folder into a table over seeds, with heat maps.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=version_line())
    parser.add_argument("folder", metavar="FOLDER", type=Path, help="a folder with runs in it, at any depth")
    parser.add_argument(
        "--metric",
        default="attack_success_rate",
        help="a figure of the runs' summary.json to show first (default: attack_success_rate)",
    )
    parser.add_argument("--rows", default="attack", help="the config group or setting of the rows (default: attack)")
    parser.add_argument(
        "--columns", default="aggregator", help="the config group or setting of the columns (default: aggregator)"
    )
    parser.add_argument(
        "--figures",
        nargs="+",
        default=[],
        metavar="FIGURE",
        help="figures of summary.json to show side by side, a line for each row and column",
    )
    parser.add_argument("--output", type=Path, metavar="DIR", help="where the files go (default: FOLDER/report)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
