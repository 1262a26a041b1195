"""Least squares under attack: Sever, and gradient descent with the gradients' mean, robust or not.

    python experiments/robust_gradient_descent/run.py [--seeds 0 1 2 3 4] [--quick]

Writes `README.md`, `results.json` and `convergence.png` beside this file.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from report import write_report
from rich.progress import track
from sklearn.linear_model import LinearRegression

from fedrobust.aggregators import CoordinateMedian, GeometricMedian, Mean, TrimmedMean
from fedrobust.seeds import numpy_generator
from fedrobust.statistics import Sever, covariance_agnostic_mean, robust_gradient_descent
from fedrobust.statistics.sever.per_sample_gradients import Floats

HERE = Path(__file__).parent
DIMENSIONS, NUM_SAMPLES, NUM_TEST, NOISE = 50, 2000, 20_000, 0.1
EPSILON = 0.05
NUM_STEPS = 150
LEARNING_RATE = {"mean": 0.05}
"""By rule, else 0.3: the far-out samples make the mean diverge at 0.1; medians of gradients are short."""


def caf(gradients: torch.Tensor) -> Any:
    """The covariance-agnostic filter at the true ε."""
    return covariance_agnostic_mean(gradients, EPSILON)


RULES: dict[str, Callable[..., Any]] = {
    "mean": Mean(),
    "coordinate median": CoordinateMedian(),
    "trimmed mean": TrimmedMean(assumed_fraction=EPSILON),
    "geometric median": GeometricMedian(),
    "CAF": caf,
}


def corrupted(attack: str, features: Floats, y: Floats, slope: Floats, generator: np.random.Generator) -> None:
    """Replace the last εn samples, in place."""
    num_bad = int(EPSILON * len(y))
    good, bad = slice(None, -num_bad), slice(-num_bad, None)
    if attack == "cancel":
        # Sever's authors' attack on ridge regression with s = 1: it takes away the gradient at 0.
        direction = y[good] @ features[good] / num_bad
        noise = np.linalg.norm(direction) * generator.normal(size=(num_bad, len(slope))) / (10 * len(slope) ** 0.5)
        features[bad], y[bad] = direction + noise, -1.0
    else:
        # Ordinary features, targets of the opposite slope: nothing to see in the features or in the targets alone.
        y[bad] = -features[bad] @ slope + NOISE * generator.normal(size=num_bad)


def play(attack: str, seed: int, num_steps: int) -> list[dict[str, Any]]:
    """Test errors, seconds and the way there of all methods on one sample."""
    generator = numpy_generator(seed, "least squares", attack)
    slope = generator.normal(size=DIMENSIONS) / DIMENSIONS**0.5
    features = generator.normal(size=(NUM_SAMPLES, DIMENSIONS))
    y = features @ slope + NOISE * generator.normal(size=NUM_SAMPLES)
    num_bad = int(EPSILON * NUM_SAMPLES)
    new = generator.normal(size=(NUM_TEST, DIMENSIONS))
    new_y = new @ slope + NOISE * generator.normal(size=NUM_TEST)
    corrupted(attack, features, y, slope, generator)

    def row(method: str, theta: Floats, seconds: float, lengths: list[float] | None = None) -> dict[str, Any]:
        error = float(np.mean((new @ theta - new_y) ** 2))
        return {
            "attack": attack,
            "seed": seed,
            "method": method,
            "error": error,
            "seconds": seconds,
            "lengths": lengths or [],
        }

    plain = LinearRegression(fit_intercept=False)
    rows = [row("least squares on the clean", plain.fit(features[:-num_bad], y[:-num_bad]).coef_, 0.0)]
    begin = time.perf_counter()
    theta = plain.fit(features, y).coef_
    rows.append(row("least squares on all", theta, time.perf_counter() - begin))
    begin = time.perf_counter()
    sever = Sever(plain, contamination=EPSILON).fit(features, y)
    rows.append(row("Sever", sever.estimator_.coef_, time.perf_counter() - begin))

    data = torch.from_numpy(features), torch.from_numpy(y)
    for name, rule in RULES.items():
        begin = time.perf_counter()
        found = robust_gradient_descent(
            lambda theta: (data[0] @ theta - data[1])[:, None] * data[0],
            torch.zeros(DIMENSIONS, dtype=torch.float64),
            rule=rule,
            learning_rate=LEARNING_RATE.get(name, 0.3),
            num_steps=num_steps,
        )
        seconds = time.perf_counter() - begin
        lengths = [step.statistic for step in found.iterations]
        rows.append(row(f"gradient descent, {name}", found.parameters.numpy(), seconds, lengths))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--quick", action="store_true", help="10 steps and one seed, nothing written")
    options = parser.parse_args()
    seeds, num_steps = ([0], 10) if options.quick else (options.seeds, NUM_STEPS)
    rows = []
    for attack, seed in track(
        [(attack, seed) for attack in ("cancel", "opposite") for seed in seeds], description="least squares"
    ):
        rows += play(attack, seed, num_steps)
    if options.quick:
        for one in rows:
            print(one["attack"], one["method"], f"{one['error']:.4f}", f"{one['seconds']:.2f} s")
        return
    (HERE / "results.json").write_text(json.dumps(rows, indent=1) + "\n")
    write_report(HERE, rows)


if __name__ == "__main__":
    main()
