"""The picture of a Neural Cleanse report: the index of each label above the triggers that were found."""

import math
from typing import TYPE_CHECKING

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from fedrobust.figures.style import BLUE, ORANGE, new_figure

if TYPE_CHECKING:
    from fedrobust.audits.model.neural_cleanse import NeuralCleanseReport

_COLUMNS, _MAX_PICTURES = 11, 44


def plot_triggers(report: "NeuralCleanseReport") -> Figure:
    """Bars of the anomaly index; below, the triggers, smallest mask first, on grey where the mask lets none through."""
    order = report.found.l1_norms.nan_to_num(math.inf).argsort().tolist()[:_MAX_PICTURES]
    columns = min(len(order), _COLUMNS)
    lines = -(-len(order) // columns)
    figure = new_figure(max(7.0, 0.95 * columns), 3.2 + 1.25 * lines)
    parts = figure.subfigures(2, 1, squeeze=False, height_ratios=[3.2, 1.25 * lines])
    _draw_index(report, parts[0, 0].subplots())
    grid = parts[1, 0].subplots(lines, columns, squeeze=False)
    for position, axes in enumerate(grid.flat):
        axes.set(xticks=[], yticks=[])
        if position < len(order):
            _draw_trigger(report, order[position], axes)
        else:
            axes.axis("off")
    return figure


def _draw_index(report: "NeuralCleanseReport", axes: Axes) -> None:
    labels = range(len(report.scores))
    judged = not report.warning
    heights = (report.scores if judged else report.found.l1_norms).nan_to_num(0.0).tolist()
    colours = [ORANGE if flagged else BLUE for flagged in report.flagged.tolist()]
    axes.bar(labels, heights, color=colours, width=0.8)
    if judged:
        axes.axhline(report.threshold, color="#444444", linewidth=1, linestyle="--")
        axes.axhline(0, color="#444444", linewidth=0.7)
        axes.annotate(
            f"threshold {report.threshold:g}", (1, report.threshold), xycoords=("axes fraction", "data"),
            xytext=(-2, 3), textcoords="offset points", ha="right", fontsize=9,
        )  # fmt: skip
    if report.flagged_labels:
        heading = f"Backdoored: label {', '.join(map(str, report.flagged_labels))} needs an unusually small mask"
    else:
        heading = "No label needs an unusually small mask" if judged else "No verdict"
    axes.set_title(heading, loc="left", fontsize=12, fontweight="bold")
    axes.set_ylabel("anomaly index" if judged else "mask size, pixels")
    axes.set_xlabel("label")
    axes.set_xlim(-0.6, len(report.scores) - 0.4)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=22, integer=True))
    axes.grid(axis="y", color="#DDDDDD", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _draw_trigger(report: "NeuralCleanseReport", label: int, axes: Axes) -> None:
    found = report.found
    mask, pattern = found.masks[label], found.patterns[label]
    # On grey: black is a colour of triggers, too.
    shown = (mask * pattern + (1 - mask) * 0.5).clamp(0, 1)
    picture = shown[0] if len(shown) != 3 else shown.permute(1, 2, 0)
    axes.imshow(picture.numpy(), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    size = float(found.l1_norms[label])
    axes.set_title(f"{label}: {size:.1f} px" if size == size else f"{label}: none", fontsize=8, pad=3)
    is_flagged = bool(report.flagged[label])
    axes.spines[:].set(color=ORANGE if is_flagged else "#999999", linewidth=2.5 if is_flagged else 0.8)
