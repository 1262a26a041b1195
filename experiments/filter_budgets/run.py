"""How filters end: the step that exceeds their budget refused, taken unseen, or taken and looked at; and when to stop.

    python experiments/filter_budgets/run.py [--quick]

Prints the tables of this folder's README and writes them to `table.md`. `--quick` takes one seed and the small shapes,
and writes nothing.
"""

import itertools
import logging
import math
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import track

from fedrobust._linalg.gram import gram_matrix
from fedrobust.filters.filtering import relative_projections
from fedrobust.filters.soft_filter import gram_direction
from fedrobust.seeds import numpy_generator
from fedrobust.statistics import bounded_covariance_mean, covariance_agnostic_mean
from fedrobust.study import markdown_table, study_parser

HERE = Path(__file__).parent
Array = NDArray[np.float64]
SHAPES = ((10, 20), (20, 1000), (50, 50), (100, 200))
CONSTANT_SHAPES = {"first shapes": ((250, 5), (400, 20), (60, 200)), "other shapes": ((300, 8), (1000, 30), (100, 50))}
LAWS = ("isotropic", "anisotropic", "t3", "two groups")
FRACTIONS = (0.1, 0.2, 0.3)
TOLD = (0.4, 0.5, 0.75, 1.0, 1.5)
ADVERSARIES = ("copies", "near copies", "noisy", "subtle", "two places", "random", "aside", "flip")
CONSTANTS = (1.2, 1.5, 2.0, 3.0, 4.0, 6.0)
LOOSE = 1e-6


def good_points(n: int, d: int, law: str, generator: np.random.Generator) -> Array:
    """A sample of a law with covariance of the order of the identity."""
    x = generator.standard_normal((n, d))
    if law == "anisotropic":
        x *= np.linspace(0.1, 3, d)
    elif law == "t3":
        x /= np.sqrt(generator.chisquare(3, (n, 1)) / 3)
    elif law == "two groups":
        x *= 0.3
        x[:, 0] += 3 * np.where(np.arange(n) % 2 == 0, 1.0, -1.0)
    return x


def bad_points(good: Array, m: int, adversary: str, epsilon: float, generator: np.random.Generator) -> Array:
    """Draw m rows that know the good ones."""
    d = good.shape[1]
    scale = float(np.sqrt(good.var(axis=0).mean()))
    first, second = generator.standard_normal((2, d))
    first /= np.linalg.norm(first)
    second -= (second @ first) * first
    second /= np.linalg.norm(second)
    noise = scale * generator.standard_normal((m, d))
    if adversary == "copies":
        return np.tile(1e3 * first, (m, 1))
    if adversary == "near copies":
        return 100 * first + 0.1 * noise
    if adversary == "noisy":
        return 30 * math.sqrt(d) * scale * first + noise
    if adversary == "subtle":
        return good.mean(axis=0) + 2 * math.sqrt(2 * math.log(1 / epsilon)) * scale * first + 0.1 * noise
    if adversary == "two places":
        return np.where((np.arange(m) % 3 == 0)[:, None], 50 * first, 40 * second) + 0.01 * noise
    if adversary == "random":
        return 50 * generator.standard_normal((m, d))
    if adversary == "aside":  # at rest along the top direction, as far out as remains unseen
        centred = good - good.mean(axis=0)
        _, values, rows = np.linalg.svd(centred, full_matrices=False)
        aside = first - (first @ rows[0]) * rows[0]
        reach = 0.95 * values[0] / math.sqrt(len(good) * epsilon)
        return np.tile(good.mean(axis=0) + reach * aside / np.linalg.norm(aside), (m, 1))
    return -3 * good[:m]


def without_last_look(x: Array, f: int) -> Array:
    """The mean by the covariance-agnostic filter that never looks at the weighting beyond its budget of 2f.

    Whether that last step is refused or taken unseen, the answer is the best weighting before it.
    """
    direction, n = gram_direction(gram_matrix(torch.from_numpy(x)), None), len(x)
    weights = torch.ones(n, dtype=torch.float64)
    smallest, best = math.inf, weights
    while n - float(weights.sum()) <= 2 * f + LOOSE:
        top = direction(weights)
        if top.eigenvalue < smallest:
            smallest, best = top.eigenvalue, weights
        if top.eigenvalue <= 0:
            break
        factors = 1 - relative_projections(top, weights)
        weights = weights * factors.where(factors > LOOSE, 0.0)
    mean: Array = (best[:, None].numpy() * x).sum(axis=0) / float(best.sum())
    return mean


METHODS: dict[str, Callable[[Array, int], Array]] = {
    "refused, or taken unseen (public code)": without_last_look,
    "taken and looked at (fedrobust)": lambda x, f: covariance_agnostic_mean(x, f / len(x)).mean,
}


def cases(quick: bool) -> Iterator[tuple[int, int, str, float, str, int]]:
    """Shape, law, fraction, adversary, seed."""
    shapes, seeds = (SHAPES[:2], 1) if quick else (SHAPES, 2)
    for (n, d), law, epsilon, adversary, seed in itertools.product(shapes, LAWS, FRACTIONS, ADVERSARIES, range(seeds)):
        yield n, d, law, epsilon, adversary, seed


def budget_table(quick: bool) -> str:
    """Errors in units of the good points' largest standard deviation, where the filter is told too little or enough."""
    errors: dict[tuple[str, str], list[float]] = {}
    for n, d, law, epsilon, adversary, seed in track(list(cases(quick)), description="budgets"):
        m = int(epsilon * n)
        generator = numpy_generator(seed, "budgets", n, d, law, int(100 * epsilon), adversary)
        good = good_points(n - m, d, law, generator)
        x = np.concatenate([bad_points(good, m, adversary, epsilon, generator), good])
        spread = float(np.linalg.svd(good - good.mean(axis=0), compute_uv=False)[0]) / math.sqrt(len(good))
        for told in TOLD:
            f = math.floor(told * epsilon * n + 1e-9)
            if f == 0 or n <= 2 * f:
                continue
            for name, method in METHODS.items():
                error = float(np.linalg.norm(method(x, f) - good.mean(axis=0))) / spread
                errors.setdefault((name, "less than the truth" if told < 1 else "enough"), []).append(error)
    heads = ["told", "the last step is", "cases", "median", "95 %", "largest"]
    rows = []
    for told in ("less than the truth", "enough"):
        for name in METHODS:
            values = np.array(errors[name, told])
            figures = [np.median(values), np.quantile(values, 0.95), values.max()]
            rows.append([told, name, str(len(values)), *(f"{one:.2f}" for one in figures)])
    return markdown_table(heads, rows)


def constant_table(quick: bool) -> str:
    """The same for `bounded_covariance_mean`, told the truth and the good points' own σ, by where it stops."""
    laws, seeds = ("isotropic", "anisotropic", "t3"), 1 if quick else 2
    errors: dict[tuple[str, str], list[float]] = {}
    names = [*(f"C = {constant:g}" for constant in CONSTANTS), "CAF, which needs no σ"]
    every = [
        (part, shape, law, epsilon, adversary, seed)
        for part, shapes in CONSTANT_SHAPES.items()
        for shape, law, epsilon, adversary, seed in itertools.product(
            shapes[: 1 if quick else None],
            laws,
            (0.05, *FRACTIONS),
            ("subtle", "noisy", "two places", "flip"),
            range(seeds),
        )
    ]
    for part, (n, d), law, epsilon, adversary, seed in track(every, description="constants"):
        m = int(epsilon * n)
        generator = numpy_generator(seed, "constants", n, d, law, int(100 * epsilon), adversary)
        good = good_points(n - m, d, law, generator)
        x = np.concatenate([bad_points(good, m, adversary, epsilon, generator), good])
        sigma = float(np.linalg.svd(good - good.mean(axis=0), compute_uv=False)[0]) / math.sqrt(len(good))
        answers = [bounded_covariance_mean(x, epsilon, sigma, stopping_factor=constant).mean for constant in CONSTANTS]
        answers.append(covariance_agnostic_mean(x, epsilon).mean)
        for name, answer in zip(names, answers, strict=True):
            errors.setdefault((part, name), []).append(float(np.linalg.norm(answer - good.mean(axis=0))) / sigma)
    rows = []
    for name in names:
        cells = [f"{np.quantile(errors[part, name], q):.2f}" for part in CONSTANT_SHAPES for q in (0.5, 0.95, 1.0)]
        rows.append([name, *cells])
    heads = [f"{part}: {figure}" for part in CONSTANT_SHAPES for figure in ("median", "95 %", "largest")]
    return markdown_table(["stops at Cσ²", *heads], rows)


def main() -> None:
    options = study_parser(__doc__, quick="one seed and the small shapes").parse_args()
    logging.getLogger("fedrobust").setLevel(logging.ERROR)  # that a budget is exceeded is what is measured
    torch.set_num_threads(1)
    text = f"{budget_table(options.quick)}\n\n{constant_table(options.quick)}\n"
    print(text)
    if not options.quick:
        (HERE / "table.md").write_text(text)


if __name__ == "__main__":
    main()
