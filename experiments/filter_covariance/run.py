"""The covariance filter against its rivals over the dimension: Figure 2 of the ICML'17 paper, both settings.

    python experiments/filter_covariance/run.py [--seeds 0 1 2 3 4] [--quick]

Writes `README.md` and `excess.png` beside this file (with --quick only prints).
"""

from collections.abc import Callable
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from rich.progress import track
from rivals import Floats, minimum_covariance_determinant, pruned_covariance, sample_covariance

from fedrobust.seeds import numpy_generator
from fedrobust.statistics import filter_covariance
from fedrobust.study import mean_and_deviation, study_parser

EPSILON = 0.05
SPIKE = 100
SETTINGS = ("isotropic", "spiked")
METHODS = ("sample", "pruning", "MCD", "filter")
HERE = Path(__file__).parent


def good_points(setting: str, n: int, d: int, generator: np.random.Generator) -> tuple[Floats, Floats]:
    """N(0, Σ) with Σ = I, or Σ₁₁ = 100."""
    variances = np.ones(d)
    if setting == "spiked":
        variances[0] = SPIKE
    return generator.standard_normal((n, d)) * np.sqrt(variances), variances


def noise(setting: str, m: int, d: int, generator: np.random.Generator) -> Floats:
    """Zeros; or the paper's grid points, of which one coordinate is as large as ±100, turned at random."""
    if setting == "isotropic":
        return np.zeros((m, d))
    half = d // 2
    blocks = [
        0.5 * generator.integers(-1, 2, (m, half)),
        0.8 * generator.integers(-2, 3, (m, d - half - 1)),
        1.0 * generator.integers(-SPIKE, SPIKE + 1, (m, 1)),
    ]
    turn = np.linalg.qr(generator.standard_normal((d, d)))[0]
    return np.concatenate(blocks, axis=1) @ turn


def error(estimate: Floats, variances: Floats) -> float:
    """‖Σ^{-½}SΣ^{-½} - I‖_F."""
    scale = 1 / np.sqrt(variances)
    return float(np.linalg.norm(estimate * scale[:, None] * scale - np.eye(len(scale))))


def estimators(seed: int) -> dict[str, Callable[[Floats], Floats]]:
    return {
        "sample": sample_covariance,
        "pruning": pruned_covariance,
        "MCD": lambda points: minimum_covariance_determinant(points, EPSILON, seed),
        "filter": lambda points: filter_covariance(points, EPSILON).covariance,
    }


def contaminated(setting: str, d: int, seed: int, methods: tuple[str, ...]) -> dict[str, float]:
    """The error of the inliers' sample covariance, and the others' in excess of it."""
    generator = numpy_generator(seed, "filter_covariance", setting, d)
    n = round(0.5 * d / EPSILON**2)
    good, variances = good_points(setting, round((1 - EPSILON) * n), d, generator)
    points = np.concatenate([good, noise(setting, round(EPSILON * n), d, generator)])
    inliers = error(sample_covariance(good), variances)
    found = estimators(seed)
    return {"inliers": inliers} | {name: error(found[name](points), variances) - inliers for name in methods}


def clean(d: int, seed: int) -> tuple[float, float, int]:
    """On clean points: the sample covariance's error, the filter's less that, and how many points it removed."""
    n = round(0.5 * d / EPSILON**2)
    points, variances = good_points("isotropic", n, d, numpy_generator(seed, "filter_covariance", "clean", d))
    result = filter_covariance(points, EPSILON)
    plain = error(sample_covariance(points), variances)
    return plain, error(result.covariance, variances) - plain, int((result.weights == 0).sum())


def cell(values: list[float]) -> str:
    return mean_and_deviation(values, 0 if max(map(abs, values)) >= 10 else 3)


def contaminated_table(results: dict[str, dict[int, dict[str, list[float]]]], setting: str) -> str:
    lines = ["| d | N | inliers' own error | " + " | ".join(METHODS) + " | filter, largest |"]
    lines.append("|" + "---|" * (len(METHODS) + 4))
    for d, row in results[setting].items():
        cells = [cell(row[name]) if name in row else "–" for name in METHODS]
        largest = f"{max(row['filter']):.3f}"
        lines.append(
            f"| {d} | {round(0.5 * d / EPSILON**2)} | {cell(row['inliers'])} | {' | '.join(cells)} | {largest} |"
        )
    return "\n".join(lines)


def clean_table(results: dict[int, list[tuple[float, float, int]]]) -> str:
    lines = ["| d | N | sample covariance's error | filter less sample, largest | points removed, in all samples |"]
    lines.append("|---|---|---|---|---|")
    for d, rows in results.items():
        plain, excess, removed = zip(*rows, strict=True)
        n = round(0.5 * d / EPSILON**2)
        lines.append(f"| {d} | {n} | {cell(list(plain))} | {max(excess):.2g} | {sum(removed)} of {n * len(rows)} |")
    return "\n".join(lines)


def plot(results: dict[str, dict[int, dict[str, list[float]]]]) -> None:
    figure, axes = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
    styles = {"sample": ("C7", "x"), "pruning": ("C1", "s"), "MCD": ("C0", "^"), "filter": ("C3", "o")}
    for axis, setting in zip(axes, SETTINGS, strict=True):
        for name in METHODS:
            ds = [d for d, row in results[setting].items() if name in row]
            values = [results[setting][d][name] for d in ds]
            means = [np.mean(value) for value in values]
            low, high = [np.min(value) for value in values], [np.max(value) for value in values]
            colour, marker = styles[name]
            axis.plot(ds, means, color=colour, marker=marker, markersize=5, label=name)
            axis.fill_between(ds, low, high, color=colour, alpha=0.2, linewidth=0)
        axis.set(xlabel="dimension d", title=f"{setting}, ε = {EPSILON}, N = d / 2ε²")
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("error in excess of the inliers' own\n(Mahalanobis–Frobenius norm)")
    axes[1].set_yscale("symlog", linthresh=0.01)
    axes[0].legend()
    figure.savefig(HERE / "excess.png", dpi=150)


README = """# The covariance filter over the dimension (Figure 2)

**Claim** (Diakonikolas, Kamath, Kane, Li, Moitra and Stewart, ICML 2017, https://arxiv.org/abs/1703.00893, Figure 2):
with a part ε = 0.05 of the points corrupted, the filter's error is close to that of the good points' own sample
covariance in every dimension, isotropic or not, where the sample covariance and naive pruning are not.

**Setting**, as in the authors' code: N = ½ d/ε² points of mean zero. *Isotropic*: Σ = I, the corrupted points are
zeros. *Spiked*: Σ = I but Σ₁₁ = 100; corrupted points have coordinates from grids, one as large as ±100, all turned by
a random rotation. The error is ‖Σ^(-½) S Σ^(-½) - I‖_F; shown is what it has in excess of the good points' sample
covariance. `filter` is `fedrobust.statistics.filter_covariance`; `pruning` is the paper's; `MCD` is scikit-learn's
`MinCovDet`, told ε and that the mean is zero{mcd}.

```
python experiments/filter_covariance/run.py
```

**Seeds** {seeds} (one sample each); mean ± standard deviation. **Hardware**: 2 CPU cores (AMD EPYC), no GPU.

## Isotropic

{isotropic}

## Spiked

{spiked}

![Excess error over the dimension](excess.png)

(Lines are means, bands go from the smallest to the largest of the seeds; the right axis is linear below 0.01.)

## Clean data

The same N without a single corrupted point, told ε = 0.05; {clean_seeds} samples for each d:

{clean}
"""


def main() -> None:
    parser = study_parser(__doc__, quick="d = 10, 20 and 30, two seeds; prints only", seeds=range(5))
    parser.add_argument("--mcd-up-to", type=int, default=50, help="the largest d at which scikit-learn's MCD is run")
    options = parser.parse_args()
    seeds = [0, 1] if options.quick else options.seeds
    ds = range(10, 40, 10) if options.quick else range(10, 110, 10)
    results: dict[str, dict[int, dict[str, list[float]]]] = {setting: {} for setting in SETTINGS}
    clean_results: dict[int, list[tuple[float, float, int]]] = {}
    work = [(d, seed) for d in ds for seed in seeds]
    for d, seed in track(work, description="filter_covariance"):
        methods = tuple(name for name in METHODS if name != "MCD" or d <= options.mcd_up_to)
        for setting in SETTINGS:
            for name, value in contaminated(setting, d, seed, methods).items():
                results[setting].setdefault(d, {}).setdefault(name, []).append(value)
        clean_results.setdefault(d, []).append(clean(d, seed))
    isotropic, spiked = (contaminated_table(results, setting) for setting in SETTINGS)
    print(isotropic, spiked, clean_table(clean_results), sep="\n\n")
    if not options.quick:
        plot(results)
        limit = "" if options.mcd_up_to >= max(ds) else f" (up to d = {options.mcd_up_to}, for its time)"
        text = README.format(
            mcd=limit,
            seeds=", ".join(map(str, seeds)),
            isotropic=isotropic,
            spiked=spiked,
            clean=clean_table(clean_results),
            clean_seeds=len(seeds),
        )
        (HERE / "README.md").write_text(text)


if __name__ == "__main__":
    main()
