"""The largest cluster of a few points in a few dimensions, by mean shift with a flat kernel.

Comaniciu and Meer, "Mean Shift: A Robust Approach Toward Feature Space Analysis", IEEE TPAMI 2002,
https://doi.org/10.1109/34.1000236
"""

import numpy as np
import torch
from torch import Tensor

_SAME = 1e-6
_STOP = 1e-3
_MAX_STEPS = 300


def largest_cluster(features: Tensor) -> Tensor:
    """Which points are in the largest mean-shift cluster, `(n,)` boolean.

    Bandwidth and clusters are those of `sklearn.cluster.estimate_bandwidth` with `quantile=0.5` and of
    `sklearn.cluster.MeanShift` with `cluster_all=False`: here all windows move at once, and n = 1000 takes tenths of a
    second, not many seconds. Of clusters of one size the densest wins. Fewer than four points are one cluster, for
    their nearest neighbour would be themselves; so are points closer than 1e-6.

    Args:
        features: `(n, k)` float64, on the CPU, in comparable units.
    """
    n = len(features)
    everyone = torch.ones(n, dtype=torch.bool)
    if n < 4:
        return everyone
    bandwidth = float(_distances(features, features).kthvalue(n // 2, dim=1).values.mean())
    if bandwidth < _SAME:
        return everyone
    centres = _modes(features, bandwidth)
    nearest = _distances(features, centres).min(dim=1)
    reached = nearest.values <= bandwidth
    sizes = torch.bincount(nearest.indices[reached], minlength=len(centres))
    return reached & (nearest.indices == int(sizes.argmax()))  # of equal sizes the first, which is the densest


def _modes(features: Tensor, bandwidth: float) -> Tensor:
    """Where windows that start at every point come to rest, densest first, no two within a bandwidth."""
    centres = features.clone()
    counts = torch.ones(len(features), dtype=torch.float64)
    moving = torch.ones(len(features), dtype=torch.bool)
    for _ in range(_MAX_STEPS):
        inside = (_distances(centres[moving], features) <= bandwidth).double()
        counts[moving] = inside.sum(dim=1)
        means = inside @ features / counts[moving, None]
        shifts = torch.linalg.vector_norm(means - centres[moving], dim=1)
        centres[moving] = means
        moving[moving.clone()] = shifts > _STOP * bandwidth
        if not bool(moving.any()):
            break
    # By count, then by place: which of two equally dense windows stays must not depend on the order of the points.
    order = np.lexsort((*centres.T.flip(0).numpy(), counts.numpy()))[::-1].copy()
    found: list[Tensor] = []
    for centre in centres[torch.from_numpy(order)]:
        if all(float(torch.linalg.vector_norm(centre - other)) > bandwidth for other in found):
            found.append(centre)
    return torch.stack(found)


def _distances(first: Tensor, second: Tensor) -> Tensor:
    # Differences, not products, under which the distance between equal points is not exactly zero.
    return torch.cdist(first, second, compute_mode="donot_use_mm_for_euclid_dist")
