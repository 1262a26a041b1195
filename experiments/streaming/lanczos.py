"""The filters' weights at n = 1000 by the package's way to the top eigenpair, and by NumPy's full decomposition.

`run.py --part lanczos` beside this file calls it.
"""

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fedrobust._linalg.gram import recentre, robust_gram_matrix
from fedrobust._linalg.spectral import TopDirection
from fedrobust.aggregators import Sever
from fedrobust.filters.hard_filter import hard_filter
from fedrobust.filters.soft_filter import soft_filter, soft_filter_along
from fedrobust.seeds import torch_generator

COLUMNS = 20_000
FRACTION = 0.2


def points_with_outliers(n: int, seed: int) -> Tensor:
    """N(0, 1) rows; the last fifth lies off in five directions, each outlier by a distance of its own."""
    generator = torch_generator(seed, "lanczos", n)
    points = torch.randn(n, COLUMNS, generator=generator)
    f = int(FRACTION * n)
    directions = torch.linalg.qr(torch.randn(COLUMNS, 5, generator=generator)).Q
    far = 20 + 40 * torch.rand(f, generator=generator)
    points[n - f :] += far[:, None] * directions[:, torch.arange(f) % 5].T
    return points


class FullDecomposition:
    """All eigenpairs of √w·K_c·√w, of which the last one is used."""

    def __init__(self, gram: Tensor) -> None:
        self.gram = gram
        self.num_decompositions = 0

    def __call__(self, weights: Tensor, near: TopDirection | None = None) -> TopDirection:
        """The last of them under `weights`; `near` does not help."""
        normalised = weights / weights.sum()
        root = normalised.sqrt().numpy()
        centred = recentre(self.gram, normalised).numpy()
        values, vectors = np.linalg.eigh(root[:, None] * centred * root[None, :])
        self.num_decompositions += 1
        projections = centred @ (root * vectors[:, -1]) / values[-1] ** 0.5
        return TopDirection(float(values[-1]), torch.from_numpy(projections**2), vectors[:, -1])


def drop_farthest(direction: FullDecomposition, n: int, drops: Sequence[int]) -> Tensor:
    """SEVER's filter as its paper says it: in each round the farthest of those left."""
    weights = torch.ones(n, dtype=torch.float64)
    for drop in drops:
        scores = direction(weights).squared_projections.where(weights > 0, -1.0)
        weights[scores.sort(descending=True, stable=True).indices[:drop]] = 0.0
    return weights


Filter = tuple[Callable[[], Tensor], Callable[[FullDecomposition], Tensor]]
"""The weights by the package, and by full decompositions."""


def filters(gram: Tensor) -> dict[str, Filter]:
    n = len(gram)
    f = int(FRACTION * n)
    # Twice the top eigenvalue of the noise alone (Marchenko and Pastur).
    limit = 2 * (1 + (COLUMNS / n) ** 0.5) ** 2
    three_rounds = Sever(assumed_fraction=FRACTION, num_rounds=3).drops(f)
    one_by_one = Sever(assumed_fraction=FRACTION).drops(f)

    def soft(max_eigenvalue: float | None) -> Filter:
        options = {"max_removed": 2.0 * f, "max_eigenvalue": max_eigenvalue}
        return (
            lambda: soft_filter(gram, **options).weights,
            lambda full: soft_filter_along(full, n, **options).weights,
        )

    def hard(drops: Sequence[int]) -> Filter:
        return lambda: hard_filter(gram, drops).weights, lambda full: drop_farthest(full, n, drops)

    return {
        "spectral_filter, no bound": soft(None),
        "spectral_filter, bound": soft(limit),
        "sever, 3 rounds": hard(three_rounds),
        "sever, one client a round": hard(one_by_one),
    }


def compare(n: int, seeds: Sequence[int]) -> list[dict[str, Any]]:
    """Both ways to the weights of each filter."""
    rows = []
    for seed in seeds:
        gram = robust_gram_matrix(points_with_outliers(n, seed))
        for name, (fast, slow) in filters(gram).items():
            full = FullDecomposition(gram)
            seconds, weights = _timed(fast)
            seconds_full, expected = _timed(partial(slow, full))
            rows.append(
                {
                    "filter": name,
                    "n": n,
                    "seed": seed,
                    "seconds": seconds,
                    "seconds_full": seconds_full,
                    "num_decompositions": full.num_decompositions,
                    "mass_removed": n - float(expected.sum()),
                    "largest_difference": float((weights - expected).abs().max()),
                }
            )
            print(rows[-1], flush=True)
    return rows


def _timed(call: Callable[[], Tensor]) -> tuple[float, Tensor]:
    started = time.perf_counter()
    answer = call()
    return time.perf_counter() - started, answer
