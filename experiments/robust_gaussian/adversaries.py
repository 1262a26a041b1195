"""The adversaries: rules that place the corrupted points, in coordinates in which the good points are N(0, I).

The first four are the usual ones. The others were chosen for this experiment and frozen: written down, with their
constants, before the estimator was run against any of them, and not changed after.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Adversary = Callable[[Floats, np.random.Generator], Floats]


def direction(d: int, generator: np.random.Generator) -> Floats:
    vector = generator.standard_normal(d)
    return np.asarray(vector / np.linalg.norm(vector))


def far(points: Floats, generator: np.random.Generator) -> Floats:
    """A tight cluster a hundred standard deviations away."""
    return 100 * direction(points.shape[1], generator) + 0.1 * points


def shell(points: Floats, generator: np.random.Generator) -> Floats:
    """All at one point, at the distance √d at which good points lie."""
    d = points.shape[1]
    return np.sqrt(d) * direction(d, generator) + 0 * points


def constant(points: Floats, generator: np.random.Generator) -> Floats:
    """All at one point, at two standard deviations."""
    return 2 * direction(points.shape[1], generator) + 0 * points


def inflate(points: Floats, generator: np.random.Generator) -> Floats:
    """Good points, three times as far out."""
    return 3 * points


def shifted(points: Floats, generator: np.random.Generator) -> Floats:
    """Good points moved by two and a half standard deviations in one direction: no radius betrays them."""
    return points + 2.5 * direction(points.shape[1], generator)


def stretched(points: Floats, generator: np.random.Generator) -> Floats:
    """Good points stretched fourfold along one direction."""
    vector = direction(points.shape[1], generator)
    return points + 3 * np.outer(points @ vector, vector)


def masking(points: Floats, generator: np.random.Generator) -> Floats:
    """A tenth of them gross, at a million in random directions, to hide a cluster at four standard deviations."""
    subtle = 4 * direction(points.shape[1], generator) + 0.5 * points
    gross = len(points) // 10
    subtle[:gross] = 1e6 * points[:gross]
    return subtle


def subspace(points: Floats, generator: np.random.Generator) -> Floats:
    """Good points doubled in half of the dimensions and set to zero in the others."""
    d = points.shape[1]
    basis = np.linalg.qr(generator.standard_normal((d, d)))[0]
    turned = points @ basis
    turned[:, : d // 2] *= 2
    turned[:, d // 2 :] = 0
    return np.asarray(turned @ basis.T)


def clusters(points: Floats, generator: np.random.Generator) -> Floats:
    """Five tight clusters at five standard deviations, in random directions."""
    centres = np.stack([5 * direction(points.shape[1], generator) for _ in range(5)])
    return np.asarray(centres[generator.integers(0, 5, len(points))] + 0.2 * points)


def heavy_tailed(points: Floats, generator: np.random.Generator) -> Floats:
    """Student's t with one and a half degrees of freedom in every direction: from the middle to the far end."""
    return points / np.sqrt(generator.chisquare(1.5, (len(points), 1)) / 1.5)


USUAL: dict[str, Adversary] = {"far": far, "shell": shell, "constant": constant, "inflate": inflate}
FROZEN: dict[str, Adversary] = {
    "shifted": shifted,
    "stretched": stretched,
    "masking": masking,
    "subspace": subspace,
    "clusters": clusters,
    "heavy-tailed": heavy_tailed,
}
