"""The median and the scaled median absolute deviation under far contamination: bias and total variation against ε.

    python experiments/median_mad/run.py [--seeds 0 1 2 3 4] [--num-samples 10000] [--quick]

A part ε of a standard Gaussian sample is put far out on one side. Writes `results.md` and `median_mad.png` here.
"""

import math
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from rich.progress import track
from scipy.optimize import brentq
from scipy.stats import norm

from fedrobust.seeds import numpy_generator
from fedrobust.statistics import (
    Gaussian,
    gaussian_total_variation_1d,
    median_bias,
    median_bias_bound,
    median_tail_bound,
    robust_gaussian_1d,
)
from fedrobust.study import mean_and_deviation, study_parser

HERE = Path(__file__).parent
FAR = 1e6
CONFIDENCE = 0.95
STANDARD = Gaussian(0.0, 1.0)
BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "0.45"


def estimate(n: int, eps: float, seed: int) -> Gaussian:
    """The robust Gaussian of one contaminated sample."""
    x = numpy_generator(seed, "median_mad", n).standard_normal(n)
    x[: round(eps * n)] = FAR
    return robust_gaussian_1d(x)


def in_the_limit(eps: float) -> Gaussian:
    """What the estimates tend to: half of all mass lies below the median, and half within the deviation of it."""
    bias, half = median_bias(eps), 1 / (2 * (1 - eps))
    deviation = brentq(lambda s: norm.cdf(bias + s) - norm.cdf(bias - s) - half, 0.0, 20.0)
    return Gaussian(bias, deviation / norm.ppf(0.75))


def guaranteed(n: int, eps: float) -> float:
    """The smallest t, in σ, for which the tail bound says Pr[|median - μ| > tσ] <= 5 %; infinite if there is none."""
    if median_tail_bound(n, eps, 40.0) > 1 - CONFIDENCE:
        return math.inf
    return float(brentq(lambda t: median_tail_bound(n, eps, t) - (1 - CONFIDENCE), 0.0, 40.0))


def draw(found: dict[float, list[Gaussian]], n: int, path: Path) -> None:
    """Bias and distance against ε: each seed, and the laws as lines."""
    figure = Figure(figsize=(10.5, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    grid = np.linspace(0, max(found), 200)
    points = [(eps, one) for eps, of_eps in found.items() for one in of_eps]
    style = {"s": 22, "color": ORANGE, "alpha": 0.7, "zorder": 3, "label": "measured, each seed"}
    left.scatter([eps for eps, _ in points], [one.mean for _, one in points], **style)
    left.plot(grid, [median_bias(eps) for eps in grid], color=BLUE, label="exact law Φ⁻¹(1 / (2(1 - ε)))")
    left.plot(grid, [median_bias_bound(eps) for eps in grid], color=GREY, ls="--", label="bound Φ⁻¹(½ + ε)")
    left.plot(grid, [guaranteed(n, eps) for eps in grid], color=GREY, ls=":", label=f"tail bound, 95 %, n = {n:,}")
    left.set(ylabel="median, in σ", title="Bias of the median")
    right.scatter(
        [eps for eps, _ in points], [gaussian_total_variation_1d(one, STANDARD) for _, one in points], **style
    )
    limit = [gaussian_total_variation_1d(in_the_limit(eps), STANDARD) for eps in grid]
    right.plot(grid, limit, color=BLUE, label="in the limit of many samples")
    right.plot(grid, grid, color=GREY, ls=":", label="ε")
    right.set(ylabel="total variation from N(0, 1)", title="Distance of the robust Gaussian")
    for axes in (left, right):
        axes.set(xlabel="contamination ε", xlim=(0, None), ylim=(0, None))
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, loc="upper left")
    figure.savefig(path, dpi=150)


def main() -> None:
    parser = study_parser(__doc__, quick="fewer ε, two seeds, 1,000 samples; writes nothing", seeds=range(5))
    parser.add_argument("--num-samples", type=int, default=10_000)
    options = parser.parse_args()
    epsilons = [0.0, 0.1, 0.3] if options.quick else [0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4]
    seeds, n = ([0, 1], 1000) if options.quick else (options.seeds, options.num_samples)
    work = [(eps, seed) for eps in epsilons for seed in seeds]
    found: dict[float, list[Gaussian]] = {}
    for eps, seed in track(work, description="median and MAD"):
        found.setdefault(eps, []).append(estimate(n, eps, seed))
    lines = [
        "| ε | median, σ | exact law | bound Φ⁻¹(½ + ε) | tail bound, 95 % | sigma from the MAD | its limit "
        "| total variation | its limit |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for eps, of_eps in found.items():
        limit = in_the_limit(eps)
        row = [
            f"{eps:.2f}",
            mean_and_deviation((one.mean for one in of_eps), 3),
            f"{median_bias(eps):.3f}",
            f"{median_bias_bound(eps):.3f}",
            f"{guaranteed(n, eps):.3f}",
            mean_and_deviation((one.sigma for one in of_eps), 3),
            f"{limit.sigma:.3f}",
            mean_and_deviation((gaussian_total_variation_1d(one, STANDARD) for one in of_eps), 3),
            f"{gaussian_total_variation_1d(limit, STANDARD):.3f}",
        ]
        lines.append("| " + " | ".join(row) + " |")
    table = "\n".join(lines)
    print(table)
    if not options.quick:
        draw(found, n, HERE / "median_mad.png")
        title = f"n = {n:,}; seeds {', '.join(map(str, seeds))}; mean ± standard deviation."
        (HERE / "results.md").write_text(f"{title}\n\n{table}\n")


if __name__ == "__main__":
    main()
