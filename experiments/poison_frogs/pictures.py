"""The pictures of this experiment."""

from collections.abc import Sequence
from pathlib import Path

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

COLOURS = ("#0072B2", "#009E73", "#E69F00", "#D55E00")


def show(axes: Axes, picture: Tensor) -> None:
    """A picture `(C, H, W)` in [0, 1], without scales."""
    channels = picture.permute(1, 2, 0).numpy()
    axes.imshow(channels if channels.shape[-1] == 3 else channels[..., 0], cmap="gray", vmin=0, vmax=1)
    axes.set(xticks=[], yticks=[])


def draw_rows(rows: Sequence[tuple[str, Tensor]], title: str, path: Path) -> None:
    """Base, target and poison(s), one example a column: rows of a name and pictures `(N, C, H, W)`."""
    columns = len(rows[0][1])
    figure = Figure(figsize=(1.15 * columns + 1.4, 1.2 * len(rows) + 0.6), layout="constrained")
    grid = figure.subplots(len(rows), columns, squeeze=False)
    for line, (name, pictures) in zip(grid, rows, strict=True):
        for axes, picture in zip(line, pictures, strict=True):
            show(axes, picture)
        line[0].set_ylabel(name, fontsize=10, rotation=0, ha="right", va="center")
    figure.suptitle(title, fontsize=11, fontweight="bold", x=0.01, ha="left")
    figure.savefig(path, dpi=120)


def draw_curves(curves: dict[float, dict[int, list[float]]], path: Path) -> None:
    """Success against the number of poisons, a line for each opacity: `{opacity: {number: rate of each seed}}`."""
    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    axes = figure.subplots()
    for colour, (opacity, points) in zip(COLOURS, curves.items(), strict=True):
        rates = 100 * torch.tensor([points[number] for number in points], dtype=torch.float64)
        spread = rates.std(dim=1) if rates.shape[1] > 1 else torch.zeros(len(rates))
        axes.errorbar(
            list(points), rates.mean(dim=1), yerr=spread, color=colour, marker="o", capsize=3, label=f"{opacity:.0%}"
        )
    axes.set(
        xlabel="poisons in the training set", ylabel="targets taken for the base's class (%)", ylim=(-4, 104),
        xticks=list(next(iter(curves.values()))),
    )  # fmt: skip
    axes.grid(alpha=0.3)
    axes.legend(title="opacity of the target")
    figure.suptitle("Poison Frogs, all layers trained on (digits)", fontsize=11, fontweight="bold")
    figure.savefig(path, dpi=120)
