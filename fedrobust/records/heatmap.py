"""The grid as heat maps, one panel a metric, side by side."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from fedrobust.figures.style import new_figure, save_figure
from fedrobust.records.formatting import is_rate, title
from fedrobust.records.grid import Cell, Grid


def plot_heatmaps(path: Path, grid: Grid, metrics: Sequence[str]) -> Path:
    """Write one PNG with a panel per metric: each cell's mean ± std, hatched where there is none."""
    longest = max(len(label) for label in grid.rows)
    tallest = max(len(label) for label in grid.columns)
    panel = max(3.6, 1.05 * len(grid.columns) + 0.6)
    height = max(2.8, 0.55 * len(grid.rows) + 1.2 + 0.055 * tallest)
    figure = new_figure(panel * len(metrics) + 0.08 * longest + 0.5, height)
    axes = figure.subplots(1, len(metrics), squeeze=False, sharey=True)[0]
    for number, (panel_axes, metric) in enumerate(zip(axes, metrics, strict=True)):
        _draw(panel_axes, grid, metric, is_first=number == 0)
    return save_figure(figure, path)


def _draw(axes: Axes, grid: Grid, metric: str, *, is_first: bool) -> None:
    found = {key: cell.statistics(metric) for key, cell in grid.cells.items()}
    means = np.full((len(grid.rows), len(grid.columns)), np.nan)
    for (row, column), statistics in found.items():
        if statistics is not None:
            means[grid.rows.index(row), grid.columns.index(column)] = statistics.mean
    known = means[~np.isnan(means)]
    low, high = (0.0, 1.0) if is_rate(metric) or not known.size else (float(known.min()), float(known.max()))
    # What the attacker gains is orange, as in the plots of a single run; everything else blue.
    colors = "Oranges" if "attack" in metric else "Blues"
    axes.imshow(means, cmap=colors, vmin=low, vmax=high, aspect="auto")
    axes.set_title(title(metric), loc="left", fontsize=11, fontweight="bold")
    plain: dict[str, Any] = {"fontsize": 9, "parse_math": False}  # a setting's text may contain $
    axes.set_xticks(range(len(grid.columns)), grid.columns, rotation=30, ha="right", rotation_mode="anchor", **plain)
    axes.set_yticks(range(len(grid.rows)), grid.rows, **plain)
    axes.set_xlabel(grid.columns_key)
    if is_first:
        axes.set_ylabel(grid.rows_key)
    axes.set_xticks(np.arange(0.5, len(grid.columns) - 1), minor=True)
    axes.set_yticks(np.arange(0.5, len(grid.rows) - 1), minor=True)
    axes.grid(which="minor", color="white", linewidth=2)
    axes.tick_params(which="both", length=0)
    axes.spines[:].set_visible(False)
    for (row, column), cell in grid.cells.items():
        y, x = grid.rows.index(row), grid.columns.index(column)
        if found[row, column] is None:
            axes.add_patch(
                Rectangle((x - 0.49, y - 0.48), 0.98, 0.96, facecolor="#F2F2F2", edgecolor="#C8C8C8", hatch="///", lw=0)
            )
        dark = not np.isnan(means[y, x]) and (means[y, x] - low) / max(high - low, 1e-12) > 0.6
        text = _annotation(cell, metric)
        axes.text(x, y, text, ha="center", va="center", fontsize=8, color="white" if dark else "black")


def _annotation(cell: Cell, metric: str) -> str:
    lines: list[str] = []
    statistics = cell.statistics(metric)
    if statistics is not None:
        scale, digits = (100.0, ".1f") if is_rate(metric) else (1.0, ".3g")
        lines.append(f"{scale * statistics.mean:{digits}}{' %' if is_rate(metric) else ''}")
        if statistics.std is not None:
            lines.append(f"± {scale * statistics.std:{digits}}")
    elif cell.finished:
        lines.append("no value")
    if cell.failures:
        what = "failed" if any(run.status == "failed" for run in cell.failures) else "unfinished"
        lines.append(f"{len(cell.failures)} {what}")
    return "\n".join(lines)
