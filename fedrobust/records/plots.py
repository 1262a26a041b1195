"""The plots of one run: accuracy and attack success, detection, update norms over the rounds, and the partition."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from matplotlib.axes import Axes

from fedrobust.figures.style import (
    BLUE,
    GREEN,
    LIGHT_BLUE,
    LIGHT_ORANGE,
    ORANGE,
    SHADE,
    is_wanted,
    legend_below,
    log_values,
    new_figure,
    round_axes,
    save_figure,
)
from fedrobust.records.plot_audit import plot_client_audit
from fedrobust.records.plot_pictures import plot_examples, plot_partition
from fedrobust.records.run_folder import Row, RunFolder

__all__ = ["plot_examples", "plot_partition", "plot_run"]


def plot_run(
    folder: RunFolder, rows: Sequence[Row], *, control: Sequence[Row] | None = None, with_partition: bool = True
) -> list[Path]:
    """Write the plots of a run into its folder, those that it has the figures for.

    Args:
        folder: the run's folder.
        rows: its rounds.
        control: the rounds of its benign twin, drawn dashed beside it; `None` where none was played.
        with_partition: draw the partition, too, if one was written there.

    Returns:
        The PNGs written.
    """
    if not is_wanted():
        return []
    histogram = folder.read_histogram() if with_partition else None
    written = [
        _plot_accuracy(folder.plots / "accuracy.png", rows, control or []),
        _plot_detection(folder.plots / "detection.png", rows),
        _plot_norms(folder.plots / "norms.png", rows),
        plot_client_audit(folder.plots / "client_audit.png", rows),
        None if histogram is None else plot_partition(folder, histogram),
    ]
    return [path for path in written if path is not None]


def _plot_accuracy(path: Path, rows: Sequence[Row], control: Sequence[Row]) -> Path | None:
    curves = [_series(rows, key) for key in ("clean_accuracy", "attack_success_rate", "watermark_accuracy")]
    if not any(rounds for rounds, _ in curves):
        return None
    figure = new_figure()
    num_rounds = _last_round([*rows, *control])
    shown = [name for name, (rounds, _) in zip(("attack success", "watermark"), curves[1:]) if rounds]
    heading = "Clean accuracy" + (
        "" if not shown else f" and {shown[0]}" if len(shown) == 1 else f", {' and '.join(shown)}"
    )
    axes = round_axes(figure, heading, num_rounds=num_rounds, percent=True)
    axes.set_ylabel("share of test examples" if not curves[2][0] else "share of test examples, or of triggers")
    _shade_attack(axes, rows)
    for number, (rounds, values) in enumerate(_locals(rows)):
        label = None if number else "attack success, single triggers"
        axes.plot(rounds, values, color=ORANGE, linewidth=0.8, alpha=0.45, label=label)
    for key, color, label in (
        ("clean_accuracy", BLUE, "clean accuracy"),
        ("attack_success_rate", ORANGE, "attack success"),
        ("watermark_accuracy", GREEN, "watermark accuracy"),
    ):
        _draw(axes, control, key, color, f"{label}, benign twin", style="--")
        _draw(axes, rows, key, color, label)
    legend_below(figure, axes)
    return save_figure(figure, path)


def _plot_detection(path: Path, rows: Sequence[Row]) -> Path | None:
    if not any(_series(rows, key)[0] for key in ("detection_tpr", "detection_fpr")):
        return None
    figure = new_figure(height=4.0)
    axes = round_axes(figure, "Detection of malicious clients", num_rounds=_last_round(rows), percent=True)
    axes.set_ylabel("share of clients excluded")
    _shade_attack(axes, rows)
    _draw(axes, rows, "detection_tpr", GREEN, "malicious (true positive rate)")
    _draw(axes, rows, "detection_fpr", ORANGE, "benign (false positive rate)")
    legend_below(figure, axes)
    return save_figure(figure, path)


def _plot_norms(path: Path, rows: Sequence[Row]) -> Path | None:
    points = [(row["round"], norm, malicious) for row in rows for norm, malicious in _norms(row)]
    if not points:
        return None
    figure = new_figure()
    axes = round_axes(figure, "Size of the updates", num_rounds=_last_round(rows))
    axes.set_ylabel("Euclidean norm of the update")
    log_values(axes, [norm for _, norm, _ in points])
    _shade_attack(axes, rows)
    alpha = min(0.6, max(0.1, 1000 / len(points)))
    for is_malicious, color, light, marker, name, offset in (
        (False, BLUE, LIGHT_BLUE, "o", "benign", -0.15),  # side by side, so that neither kind hides the other
        (True, ORANGE, LIGHT_ORANGE, "^", "malicious", 0.15),
    ):
        own = [(number + offset, norm) for number, norm, malicious in points if malicious == is_malicious]
        if own:
            numbers, norms = zip(*own, strict=True)
            label = f"{name} client"
            axes.scatter(numbers, norms, s=12, color=light, marker=marker, alpha=alpha, linewidths=0, label=label)
        _draw(axes, rows, f"update_norm_{name}", color, f"{name}, mean", marker="D")
    legend_below(figure, axes)
    return save_figure(figure, path)


def _draw(
    axes: Axes, rows: Sequence[Row], key: str, color: str, label: str, *, style: str = "-", marker: str = "o"
) -> None:
    rounds, values = _series(rows, key)
    if rounds:
        size = 4 if style == "-" and len(rounds) <= 40 else 0
        axes.plot(rounds, values, color=color, label=label, ls=style, marker=marker, markersize=size, linewidth=1.6)


def _shade_attack(axes: Axes, rows: Sequence[Row]) -> None:
    """Shade the rounds in which the attack was active, one band a stretch."""
    active = sorted(row["round"] for row in rows if row.get("attack_active"))
    starts = [number for number in active if number - 1 not in active]
    ends = [number for number in active if number + 1 not in active]
    for start, end in zip(starts, ends, strict=True):
        label = "attack active" if start == starts[0] else None
        axes.axvspan(start - 0.5, end + 0.5, color=SHADE, linewidth=0, zorder=0, label=label)


def _series(rows: Sequence[Row], key: str) -> tuple[list[int], list[float]]:
    """The rounds that have the figure `key`, and its values there."""
    known = [(row["round"], row[key]) for row in rows if row.get(key) is not None]
    return [number for number, _ in known], [value for _, value in known]


def _locals(rows: Sequence[Row]) -> Iterator[tuple[list[int], list[float]]]:
    known = [(row["round"], row["local_attack_success_rates"]) for row in rows if row.get("local_attack_success_rates")]
    for trigger in range(max((len(rates) for _, rates in known), default=0)):
        yield [number for number, _ in known], [rates[trigger] for _, rates in known]


def _norms(row: Row) -> Iterator[tuple[float, bool]]:
    """Each client's update norm and whether it is malicious; zero and non-finite norms have no place on a log axis."""
    malicious = set(row.get("malicious_clients") or ())
    for client, norm in zip(row.get("clients") or (), row.get("update_norms") or (), strict=True):
        if norm is not None and norm > 0:
            yield norm, client in malicious


def _last_round(rows: Sequence[Row]) -> int:
    return max((row["round"] for row in rows), default=0)
