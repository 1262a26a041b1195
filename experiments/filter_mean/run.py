"""The filter for an unknown mean against its rivals: Figure 1 of "Being Robust (in High Dimensions) Can Be Practical".

    python experiments/filter_mean/run.py [--seeds 0 1 2] [--dimensions 100 150 ...] [--quick]

A tenth of the sample is noise. Prints, for each dimension and estimator, how much farther the estimate is from the true
mean than the mean of the good points alone is. Writes `results.md` and `filter_mean.png` here.
"""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from rich.progress import track

from fedrobust.seeds import numpy_generator
from fedrobust.statistics import (
    coordinate_median,
    covariance_agnostic_mean,
    filter_mean,
    geometric_median,
    lrv_mean,
    pruned_mean,
    trimmed_mean,
)
from fedrobust.study import mean_and_deviation, study_parser

HERE = Path(__file__).parent
EPSILON = 0.1
ACCEPTED = 0.045
Array = NDArray[np.float64]

ESTIMATORS: dict[str, Callable[[Array], Array]] = {
    "mean": lambda x: x.mean(axis=0),
    "filter": lambda x: filter_mean(x, EPSILON).mean,
    "CAF": lambda x: covariance_agnostic_mean(x, EPSILON).mean,
    "CAF, entropy": lambda x: covariance_agnostic_mean(x, EPSILON, direction="quantum_entropy").mean,
    "LRV": lambda x: lrv_mean(x, EPSILON).mean,
    "pruning": lambda x: pruned_mean(x).mean,
    "geometric median": lambda x: geometric_median(x).mean,
    "coordinate median": lambda x: coordinate_median(x).mean,
    "trimmed mean": lambda x: trimmed_mean(x, EPSILON).mean,
}
STYLES = {
    "mean": ("0.55", "-", "s"),
    "filter": ("#0072B2", "-", "o"),
    "CAF": ("#D55E00", "-", "^"),
    "CAF, entropy": ("#E69F00", "--", "v"),
    "LRV": ("#009E73", "-", "D"),
    "pruning": ("#CC79A7", "-", "P"),
    "geometric median": ("#56B4E9", "-", "X"),
    "coordinate median": ("black", "--", "<"),
    "trimmed mean": ("0.35", ":", ">"),
}


def sample_size(d: int) -> int:
    """N = 10⌊d/ε²⌋."""
    return 10 * math.floor(d / EPSILON**2 + 1e-9)


def sample(d: int, seed: int) -> tuple[Array, Array]:
    """`sample_size(d)` points, and the mean of the good ones among them, N(1, I).

    Half of the noise is uniform on {0, 1}^d, half is the point (12, -2, 0, ..., 0).
    """
    n = sample_size(d)
    num_half = round(EPSILON * n / 2)
    generator = numpy_generator(seed, "filter_mean", d)
    x = np.empty((n, d))
    good = x[: n - 2 * num_half]
    generator.standard_normal(out=good)
    good += 1
    x[len(good) : len(good) + num_half] = generator.integers(0, 2, (num_half, d), dtype=np.int8)
    x[len(good) + num_half :] = 0
    x[len(good) + num_half :, :2] = 12, -2
    return x, good.mean(axis=0)


def exponent(dimensions: list[int], excess: list[float]) -> float:
    """The p of excess ∝ d^p that fits best."""
    return float(np.polyfit(np.log(dimensions), np.log(excess), 1)[0])


def draw(excess: dict[str, dict[int, list[float]]], path: Path) -> None:
    """Excess error against d; on the left all, on the right those near zero."""
    figure = Figure(figsize=(11, 4.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    for axes in (left, right):
        for name, of_dimension in excess.items():
            colour, line, marker = STYLES[name]
            axes.errorbar(
                list(of_dimension),
                [np.mean(one) for one in of_dimension.values()],
                [np.std(one, ddof=1) if len(one) > 1 else 0.0 for one in of_dimension.values()],
                color=colour,
                ls=line,
                marker=marker,
                ms=5,
                capsize=2,
                label=name,
            )
        axes.set(xlabel="dimension d", ylabel="excess L2 error, in σ")
        axes.spines[["top", "right"]].set_visible(False)
    left.set(ylim=(-0.03, None), title="All estimators")
    right.set(ylim=(-0.01, 0.2), title="The same, close to zero")
    right.axhline(ACCEPTED, color="0.7", lw=0.8, ls=":")
    right.text(right.get_xlim()[1], ACCEPTED, f"{ACCEPTED}", ha="right", va="bottom", color="0.5", fontsize=8)
    figure.legend(*left.get_legend_handles_labels(), loc="outside right center", frameon=False)
    figure.savefig(path, dpi=150)


def main() -> None:
    parser = study_parser(__doc__, quick="d = 50 and 100, one seed; writes nothing")
    parser.add_argument("--dimensions", type=int, nargs="+", default=list(range(100, 401, 50)))
    options = parser.parse_args()
    dimensions, seeds = ([50, 100], [0]) if options.quick else (options.dimensions, options.seeds)
    inlier: dict[int, list[float]] = {d: [] for d in dimensions}
    excess: dict[str, dict[int, list[float]]] = {name: {d: [] for d in dimensions} for name in ESTIMATORS}
    for d, seed in track([(d, seed) for d in dimensions for seed in seeds], description="unknown mean"):
        x, good_mean = sample(d, seed)
        inlier[d].append(float(np.linalg.norm(good_mean - 1)))
        for name, estimate in ESTIMATORS.items():
            error = float(np.linalg.norm(estimate(x) - 1))
            excess[name][d].append(error - inlier[d][-1])
        del x
    lines = ["| d | N | good points' mean | " + " | ".join(ESTIMATORS) + " |", "|---" * (len(ESTIMATORS) + 3) + "|"]
    for d in dimensions:
        cells = [mean_and_deviation(excess[name][d], 3) for name in ESTIMATORS]
        lines.append(f"| {d} | {sample_size(d):,} | {mean_and_deviation(inlier[d], 3)} | {' | '.join(cells)} |")
    lines += ["", "| | largest excess of a dimension | last d over first d | exponent p of d^p |", "|---|---|---|---|"]
    for name, of_dimension in excess.items():
        means = [float(np.mean(of_dimension[d])) for d in dimensions]
        grows = f"{exponent(dimensions, means):.2f}" if min(means) > 0 else "-"
        lines.append(f"| {name} | {max(means):.3f} | {means[-1] / means[0]:.2f} | {grows} |")
    table = "\n".join(lines)
    print(table)
    if not options.quick:
        draw(excess, HERE / "filter_mean.png")
        title = f"ε = {EPSILON}; excess L2 error; seeds {', '.join(map(str, seeds))}; mean ± standard deviation."
        (HERE / "results.md").write_text(f"{title}\n\n{table}\n")


if __name__ == "__main__":
    main()
