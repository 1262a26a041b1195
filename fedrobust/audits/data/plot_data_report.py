"""The picture of a data audit: every example's score, class by class, and what the verdicts went by."""

import math
from typing import TYPE_CHECKING

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from fedrobust.figures.style import BLUE, LIGHT_BLUE, ORANGE, legend_below, new_figure
from fedrobust.seeds import torch_generator

if TYPE_CHECKING:
    from fedrobust.audits.base import DataReport

_MAX_POINTS = 400
"""Of a class and kind that are drawn: more hide one another."""


def plot_data_report(report: "DataReport", poisoned: Tensor | None = None) -> Figure:
    """Left: scores by class, flagged ones in orange, known poison ringed; right: the verdicts' statistics."""
    figure = new_figure(10.0, 4.5)
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    figure.suptitle(_heading(report), x=0.01, ha="left", fontsize=12, fontweight="bold")
    for axes in (left, right):
        axes.grid(axis="y", color="#DDDDDD", linewidth=0.7)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_xlabel("label")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _draw_scores(left, report, poisoned)
    _draw_verdicts(right, report)
    legend_below(figure, left)
    return figure


def _heading(report: "DataReport") -> str:
    convicted = ", ".join(map(str, report.poisoned_labels)) or "none"
    num_flagged = int(report.flagged.sum())
    name = report.audit[0].upper() + report.audit[1:]
    rate = " (not calibrated)" if report.uncalibrated else ""
    return f"{name}: {num_flagged} of {len(report.flagged)} examples flagged; classes convicted: {convicted}{rate}"


def _draw_scores(axes: Axes, report: "DataReport", poisoned: Tensor | None) -> None:
    generator = torch_generator(0, "jitter")
    known = torch.zeros_like(report.flagged) if poisoned is None else poisoned.cpu()
    judged = report.scores.isfinite()
    kinds = [
        ("kept", judged & ~report.flagged & ~known, LIGHT_BLUE, LIGHT_BLUE),
        ("flagged", judged & report.flagged & ~known, ORANGE, ORANGE),
        ("poison, kept", judged & ~report.flagged & known, LIGHT_BLUE, "black"),
        ("poison, flagged", judged & report.flagged & known, ORANGE, "black"),
    ]
    for name, mask, face, edge in kinds:
        rows = mask.nonzero().squeeze(1)
        rows = rows[torch.randperm(len(rows), generator=generator)]
        of_class = torch.cat([rows[report.labels[rows] == label][:_MAX_POINTS] for label in report.labels.unique()])
        if len(of_class):
            across = report.labels[of_class] + 0.6 * torch.rand(len(of_class), generator=generator) - 0.3
            scores = report.scores[of_class]
            axes.scatter(across.numpy(), scores.numpy(), s=9, linewidth=0.6, facecolor=face, edgecolor=edge, label=name)
    if report.score_threshold is not None:
        axes.axhline(report.score_threshold, color="black", linewidth=1, linestyle="--", label="threshold")
    axes.set_ylabel(report.score_name)


def _draw_verdicts(axes: Axes, report: "DataReport") -> None:
    for verdict in report.verdicts:
        if verdict.is_poisoned is None:
            axes.annotate("?", (verdict.label, 0), ha="center", fontsize=9)
        elif math.isfinite(verdict.statistic):
            axes.bar(verdict.label, verdict.statistic, color=ORANGE if verdict.is_poisoned else BLUE, width=0.7)
    if report.statistic_threshold is not None:
        axes.axhline(report.statistic_threshold, color="black", linewidth=1, linestyle="--")
    axes.set_ylabel(report.statistic_name)
    labels = [verdict.label for verdict in report.verdicts]
    if labels:
        axes.set_xlim(min(labels) - 0.6, max(labels) + 0.6)
