"""Tukey's median beside the coordinate-wise one: depth in the plane, and the error against the dimension.

    python experiments/tukey/run.py [--seeds 0 1 2 3 4] [--quick]

A tenth of a standard Gaussian sample is moved by 5√d σ, either along the first axis or along the diagonal: the same
sample but for a rotation. Writes `results.md`, `contours.png` and `error.png` here.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from rich.progress import track

from fedrobust.seeds import numpy_generator
from fedrobust.statistics import covariance_agnostic_mean, median_bias, tukey_depth, tukey_median
from fedrobust.study import mean_and_deviation, study_parser

HERE = Path(__file__).parent
EPS = 0.1
DIMENSIONS = [2, 3, 5, 10, 20, 50, 100]
MAX_TUKEY = 20
Floats = NDArray[np.float64]
Cell = tuple[str, str, int]

RULES: dict[str, Callable[[Floats, int], Floats]] = {
    "coordinate median": lambda x, _: np.median(x, axis=0),
    "Tukey median": lambda x, seed: tukey_median(x, seed=seed, allow_high_dimension=True).median,
    "covariance-agnostic filter": lambda x, _: covariance_agnostic_mean(x, EPS).mean,
}
COLOURS = {"coordinate median": "#D55E00", "Tukey median": "#0072B2", "covariance-agnostic filter": "#009E73"}
STYLES = {"diagonal": "-", "axis": "--"}


def sample(n: int, d: int, towards: str, seed: int) -> Floats:
    """N(0, I), of which the first tenth is moved by 5√d."""
    x = numpy_generator(seed, "tukey", n, d).standard_normal((n, d))
    moved = round(EPS * n)
    if towards == "diagonal":
        x[:moved] += 5.0
    else:
        x[:moved, 0] += 5.0 * np.sqrt(d)
    return x


def measure(dimensions: list[int], seeds: list[int], samples_per_dimension: int) -> dict[Cell, list[float]]:
    """‖estimate - true mean‖ by rule, direction of the contamination and dimension."""
    work = [
        (rule, towards, d, seed)
        for rule in RULES
        for d in dimensions
        if rule != "Tukey median" or d <= MAX_TUKEY
        for towards in STYLES
        for seed in seeds
    ]
    errors: dict[Cell, list[float]] = {}
    for rule, towards, d, seed in track(work, description="error against d"):
        n = max(1000, samples_per_dimension * d)
        found = RULES[rule](sample(n, d, towards, seed), seed)
        errors.setdefault((rule, towards, d), []).append(float(np.linalg.norm(found)))
    return errors


def draw_errors(errors: dict[Cell, list[float]], path: Path) -> None:
    """Mean and spread over seeds, on logarithmic axes."""
    figure = Figure(figsize=(8.5, 5.0), layout="constrained")
    axes = figure.add_subplot()
    for rule in RULES:
        for towards, style in STYLES.items():
            dimensions = sorted(d for one, other, d in errors if (one, other) == (rule, towards))
            values = np.array([errors[rule, towards, d] for d in dimensions])
            deviation = values.std(axis=1, ddof=1 if values.shape[1] > 1 else 0)
            axes.errorbar(
                dimensions, values.mean(axis=1), deviation, color=COLOURS[rule], ls=style, marker="o", ms=4,
                capsize=2, label=f"{rule}, outliers along the {towards}",
            )  # fmt: skip
    grid = np.array([2, max(d for _, _, d in errors)])
    axes.plot(grid, median_bias(EPS) * np.sqrt(grid), color="0.5", ls=":", label="Φ⁻¹(1 / (2(1 - ε))) √d")
    ticks = sorted({d for _, _, d in errors})
    axes.set(
        xscale="log", yscale="log", ylim=(0.015, 3.0), xlabel="dimension d", ylabel="distance from the true mean, in σ"
    )
    axes.set_xticks(ticks, [str(d) for d in ticks])
    axes.set_xticks([], minor=True)
    heights = [0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0]
    axes.set_yticks(heights, [f"{height:g}" for height in heights])
    axes.set_yticks([], minor=True)
    axes.set_title(f"Error against the dimension, ε = {EPS}", loc="left", fontweight="bold")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8, loc="upper left")
    figure.savefig(path, dpi=150)


def draw_contours(seed: int, path: Path, cells: int = 240) -> str:
    """Exact depth over the plane for 300 correlated points of which a fifth is a cluster; a line with the distances."""
    n, shift = 300, np.array([4.5, -4.5])
    root = np.array([[1.0, 0.0], [0.85, np.sqrt(1 - 0.85**2)]])
    generator = numpy_generator(seed, "contours")
    x = generator.standard_normal((n, 2)) @ root.T
    moved = n // 5
    x[:moved] = shift + 0.4 * generator.standard_normal((moved, 2))
    across, up = np.linspace(-4.0, 6.6, cells), np.linspace(-6.2, 4.4, cells)
    grid = np.stack(np.meshgrid(across, up), axis=-1)
    depth = tukey_depth(grid.reshape(-1, 2), x).depth.reshape(cells, cells)
    tukey = tukey_median(x)
    marks = {
        "true mean": (np.zeros(2), "P", "black"),
        "mean": (x.mean(axis=0), "X", "#CC79A7"),
        "coordinate median": (np.median(x, axis=0), "s", COLOURS["coordinate median"]),
        f"Tukey median (depth {tukey.depth:.3f})": (tukey.median, "D", COLOURS["Tukey median"]),
    }
    figure = Figure(figsize=(7.2, 6.2), layout="constrained")
    axes = figure.add_subplot()
    axes.scatter(*x[moved:].T, s=7, color="0.55", label="clean points")
    axes.scatter(*x[:moved].T, s=7, color="#E69F00", label="contamination, a fifth")
    levels = [0.01, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4]
    lines = axes.contour(across, up, depth, levels=levels, cmap="viridis", linewidths=1.2)
    figure.colorbar(lines, ax=axes, label="half-space depth", shrink=0.8)
    for label, (place, marker, colour) in marks.items():
        axes.scatter(*place, s=80, marker=marker, color=colour, edgecolor="white", zorder=5, label=label)
    axes.set(xlabel="first coordinate, in σ", ylabel="second coordinate, in σ", aspect="equal")
    axes.set_title("Depth contours of a contaminated sample", loc="left", fontweight="bold")
    axes.legend(frameon=False, fontsize=8, loc="upper left")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)
    distances = ", ".join(f"{label} {np.linalg.norm(place):.3f}" for label, (place, _, _) in list(marks.items())[1:])
    return f"Distance from the true mean in the plane (seed {seed}): {distances}."


def table(errors: dict[Cell, list[float]]) -> str:
    """Mean ± standard deviation over seeds."""
    dimensions = sorted({d for _, _, d in errors})
    lines = ["| rule | outliers along the | " + " | ".join(f"d = {d}" for d in dimensions) + " |"]
    lines.append("|---|---|" + "---|" * len(dimensions))
    for rule in RULES:
        for towards in STYLES:
            cells = []
            for d in dimensions:
                cells.append(mean_and_deviation(errors.get((rule, towards, d), []), 3))
            lines.append(f"| {rule} | {towards} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = study_parser(__doc__, quick="two dimensions, two seeds; writes nothing", seeds=range(5))
    options = parser.parse_args()
    if options.quick:
        print(table(measure([2, 3], [0, 1], 100)))
        return
    seeds: list[int] = options.seeds
    planar = draw_contours(seeds[0], HERE / "contours.png")
    errors = measure(DIMENSIONS, seeds, 100)
    draw_errors(errors, HERE / "error.png")
    text = table(errors)
    title = f"n = max(1000, 100 d), ε = {EPS}; seeds {', '.join(map(str, seeds))}; mean ± standard deviation."
    (HERE / "results.md").write_text(f"{title}\n\n{text}\n\n{planar}\n")
    print(text, planar, sep="\n\n")


if __name__ == "__main__":
    main()
