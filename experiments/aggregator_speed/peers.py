"""Other people's rules on an `(n, d)` matrix, for the benchmark beside this file.

Each peer is called as its users call it, on an array that is already stacked; of Flower's strategies only the
arithmetic is timed, not the messages.
"""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import byzfl
import numpy as np
import scipy.linalg.blas
import torch
from flwr.serverapp.strategy.fedtrimmedavg import trim_mean
from flwr.serverapp.strategy.multikrum import compute_distances
from torch import Tensor

Call = Callable[[], object]

DIRECTION = "dnc_direction"
"""The part of DnC that an SVD would do: the squared projections on the top direction of one subsample."""

GRAM = "gram_matrix"
"""What rules that compare clients build; a matrix product is what others would do."""


def peers(rule: str, points: Tensor, f: int, *, svd_columns: int = 10_000) -> dict[str, Call]:
    """The calls that compete with `rule` on `points` `(n, d)` float32, by the peer's name; none if nobody has the rule.

    Args:
        rule: as in `conf/aggregator`.
        points: on the device of the benchmark; NumPy forms are left out on a GPU.
        f: the malicious clients that are assumed.
        svd_columns: the size of DnC's subsample.
    """
    on_cpu = points.device.type == "cpu"
    found: dict[str, Call] = {}
    makers: Mapping[str, Callable[[], Any]] = {
        "mean": byzfl.Average,
        "coordinate_median": byzfl.Median,
        "trimmed_mean": functools.partial(byzfl.TrMean, f),
        "meamed": functools.partial(byzfl.Meamed, f),
        "krum": functools.partial(byzfl.Krum, f),
        "multi_krum": functools.partial(byzfl.MultiKrum, f),
        "geometric_median": byzfl.GeometricMedian,
        "centred_clipping": functools.partial(byzfl.CenteredClipping, None, 3),
        "spectral_filter": functools.partial(byzfl.CAF, f),
        "mda": functools.partial(byzfl.MDA, f),
    }
    if rule in makers and (rule != "mda" or len(points) <= 20):
        found["byzfl torch"] = functools.partial(makers[rule](), points)
        if on_cpu:
            found["byzfl NumPy"] = functools.partial(makers[rule](), points.numpy())
    if rule == "mean":
        found["torch.mean"] = functools.partial(torch.mean, points, 0)
    if rule == "dnc":
        found["plain DnC"] = functools.partial(_plain_dnc, points, f, svd_columns)
    if rule == DIRECTION:
        found["torch.linalg.svd"] = functools.partial(_top_by_svd, points)
    if rule == GRAM and on_cpu:
        found["BLAS ssyrk"] = functools.partial(scipy.linalg.blas.ssyrk, 1.0, points.numpy().T, trans=1)
    if on_cpu:
        found |= _flower(rule, points.numpy(), f)
    return found


def _flower(rule: str, points: np.ndarray, f: int) -> dict[str, Call]:
    if rule == "trimmed_mean":
        return {"Flower": functools.partial(trim_mean, points, (f + 0.5) / len(points))}
    if rule == "coordinate_median":
        return {"Flower": functools.partial(np.median, points, axis=0)}  # what FedMedian does to each layer
    if rule in ("krum", "multi_krum"):
        return {"Flower": functools.partial(_flower_krum, points, f, 1 if rule == "krum" else len(points) - f)}
    return {}


@dataclass(frozen=True)
class _Record:
    """As much of an `ArrayRecord` as Flower's Krum looks at, without its serialisation."""

    row: np.ndarray

    def to_numpy_ndarrays(self) -> list[np.ndarray]:
        return [self.row]


def _flower_krum(points: np.ndarray, f: int, num_kept: int) -> np.ndarray:
    distances = compute_distances([_Record(row) for row in points])
    nearest = np.sort(distances, axis=1)[:, 1 : max(1, len(points) - f - 2) + 1]
    kept = np.argsort(nearest.sum(axis=1))[:num_kept]
    return points[kept].mean(axis=0)


def _plain_dnc(points: Tensor, f: int, num_columns: int, num_iterations: int = 5) -> Tensor:
    """Shejwalkar and Houmansadr's algorithm as it stands in their paper, with a full SVD of each subsample."""
    generator = torch.Generator().manual_seed(0)
    kept = torch.ones(len(points), dtype=torch.bool, device=points.device)
    for _ in range(num_iterations):
        columns = torch.randperm(points.shape[1], generator=generator)[:num_columns].to(points.device)
        sample = points[:, columns]
        centred = sample - sample.mean(dim=0)
        scores = (centred @ _top_by_svd(sample)).square()
        kept[scores.argsort(descending=True)[:f]] = False
    return points[kept].mean(dim=0)


def _top_by_svd(sample: Tensor) -> Tensor:
    return torch.linalg.svd(sample - sample.mean(dim=0), full_matrices=False).Vh[0]
