"""The plot of a deployed model: what tampering did to it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.ticker import PercentFormatter

from fedrobust.figures.style import BLUE, GREEN, ORANGE, legend_below, new_figure, save_figure
from fedrobust.records.run_folder import RunFolder


def plot_deployment(folder: RunFolder, figures: Mapping[str, Any]) -> Path | None:
    """Accuracy and attack success of the model as released and as deployed, beside as many random flips of bits.

    Args:
        folder: the run's.
        figures: of `measure_tampering`; `None` among them is not drawn.

    Returns:
        The file; `None` where nothing was measured.
    """
    kinds = {"clean_accuracy": "clean accuracy", "attack_success_rate": "attack success"}
    known = {key: label for key, label in kinds.items() if figures.get(f"deployed_{key}") is not None}
    if not known:
        return None
    figure = new_figure(6.0, 4.0)
    axes = figure.add_subplot()
    heading = f"The model as released and as deployed ({figures.get('num_bit_flips')} bits flipped)"
    axes.set_title(heading, loc="left", fontsize=12, fontweight="bold")
    for place, (name, colour) in enumerate((("released", BLUE), ("deployed", ORANGE))):
        values = [figures[f"{name}_{key}"] or 0.0 for key in known]
        bars = axes.bar([x + 0.36 * (place - 0.5) for x in range(len(known))], values, 0.34, color=colour, label=name)
        axes.bar_label(bars, [f"{100 * value:.1f} %" for value in values], fontsize=9, padding=2)
    random = figures.get("random_flips_clean_accuracy")
    if random is not None:
        axes.plot([-0.36, 0.36], [random, random], color=GREEN, linestyle="--", label="after as many random flips")
    axes.set_xticks(range(len(known)), list(known.values()))
    axes.set_ylim(0, 1.1)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.grid(axis="y", color="#DDDDDD", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    legend_below(figure, axes)
    return save_figure(figure, folder.plots / "deployment.png")
