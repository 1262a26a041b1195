"""How every plot looks: one palette that colour-blind people can tell apart, one way to make and save a figure.

The palette is Okabe and Ito's, "Color Universal Design", 2008, https://jfly.uni-koeln.de/color/
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, PercentFormatter

BLUE = "#0072B2"
ORANGE = "#D55E00"
GREEN = "#009E73"
LIGHT_BLUE = "#56B4E9"
LIGHT_ORANGE = "#E69F00"
SHADE = "#FAF1DC"

_UNDATED: dict[str, dict[str, None]] = {
    ".png": {"Software": None},
    ".pdf": {"CreationDate": None},
    ".svg": {"Date": None},
}
_CAPTION_HEIGHT = 0.2
"""Inches."""
_about: ContextVar[tuple[str, tuple[str, ...]]] = ContextVar("about", default=("", ("png",)))


def new_figure(width: float = 8.0, height: float = 4.5) -> Figure:
    """An empty figure, `width` x `height` inches, whose parts make room for one another."""
    # The object API: pyplot keeps global state, and a window system where there is one.
    return Figure(figsize=(width, height), layout="constrained")


def round_axes(figure: Figure, heading: str, *, num_rounds: int, percent: bool = False) -> Axes:
    """Axes over the rounds 0 to `num_rounds`; with `percent`, values in [0, 1] are shown as 0 to 100 %."""
    axes = figure.add_subplot()
    axes.set_title(heading, loc="left", fontsize=12, fontweight="bold")
    axes.set_xlabel("round")
    axes.set_xlim(-0.6, num_rounds + 0.6)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(axis="y", color="#DDDDDD", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    if percent:
        axes.set_ylim(-0.03, 1.03)
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    return axes


def log_values(axes: Axes, values: Sequence[float]) -> None:
    """A logarithmic value axis for `values` > 0, with numbers as people write them; more of them for a short range."""
    axes.set_yscale("log")
    is_short = max(values) < 100 * min(values)
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if is_short else (1,)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def legend_below(figure: Figure, axes: Axes) -> None:
    """One legend under the axes, where it covers no data."""
    handles, labels = axes.get_legend_handles_labels()
    is_short = len(labels) <= 5 and sum(len(label) + 6 for label in labels) <= 110  # with its line, in characters
    columns = len(labels) if is_short else 3
    legend = figure.legend(
        handles, labels, loc="outside lower center", ncols=columns, frameon=False, fontsize=9, markerscale=1.3
    )
    for handle in legend.legend_handles:
        if isinstance(handle, PathCollection):
            handle.set_alpha(1.0)  # single points of a dense cloud are nearly transparent


@contextmanager
def figures_of(caption: str, formats: Sequence[str] = ("png",)) -> Iterator[None]:
    """Let every figure that is saved meanwhile say what it is of, and be written in these formats (png, pdf, svg).

    Without formats none is drawn.
    """
    token = _about.set((caption, tuple(formats)))
    try:
        yield
    finally:
        _about.reset(token)


def is_wanted() -> bool:
    """Whether figures are drawn at all: there is a format for them."""
    return bool(_about.get()[1])


def save_figure(figure: Figure, path: Path) -> Path:
    """Write `figure` as a PNG, or in the formats of `figures_of`, without dates that would make equal plots differ.

    Returns:
        The first file; `path` where no format is wanted, and nothing was written.
    """
    caption, formats = _about.get()
    if not formats:
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    if caption:
        _write_caption(figure, caption)
    written = [path.with_suffix(f".{one}") for one in formats]
    for target in written:
        with matplotlib.rc_context({"svg.hashsalt": "fedrobust"}):
            figure.savefig(target, dpi=150, metadata=_UNDATED[target.suffix])
    return written[0]


def _write_caption(figure: Figure, caption: str) -> None:
    """A small line below the figure, or above it where a legend stands below."""
    look: dict[str, Any] = {"fontsize": 7, "color": "#666666"}
    if not figure.legends:
        figure.supxlabel(caption, x=0.01, ha="left", **look)
        return
    width, height = figure.get_size_inches()
    whole = height + _CAPTION_HEIGHT
    figure.set_size_inches(width, whole)
    engine = figure.get_layout_engine()
    if isinstance(engine, ConstrainedLayoutEngine):
        engine.set(rect=(0, 0, 1, height / whole))
    figure.text(0.01, 1 - 0.05 / whole, caption, va="top", **look).set_in_layout(False)
