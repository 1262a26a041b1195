"""Nearest neighbours from a matrix of distances; of equal distances the lower index is nearer."""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_ROWS_AT_ONCE = 64


def nearest(distances: Tensor, count: int) -> Tensor:
    """For each point the indices of the `count` points nearest to it, nearest first, `(n, count)` int64.

    Args:
        distances: `(n, n)`, squared or not, on the CPU.
        count: itself included, which always comes first; 1 <= count <= n.
    """
    found = np.empty((len(distances), count), dtype=np.int64)
    for start, rows in _itself_first(distances):
        found[start : start + len(rows)] = np.argsort(rows, axis=1, kind="stable")[:, :count]
    return torch.from_numpy(found)


def sums_of_nearest(distances: Tensor, count: int) -> Tensor:
    """For each point the sum of its `count` smallest distances to other points, `(n,)`.

    Args:
        distances: `(n, n)`, squared or not, on the CPU; what is given is what is added up.
        count: itself not included; 1 <= count < n.
    """
    parts = [np.sort(rows, axis=1)[:, 1 : count + 1].sum(axis=1) for _, rows in _itself_first(distances)]
    return torch.from_numpy(np.concatenate(parts))


def _itself_first(distances: Tensor) -> Iterator[tuple[int, NDArray[np.float64]]]:
    """The rows, copied a few at a time, and where they begin."""
    for start in range(0, len(distances), _ROWS_AT_ONCE):
        rows = distances[start : start + _ROWS_AT_ONCE].clone()
        rows[:, start : start + _ROWS_AT_ONCE].fill_diagonal_(-1.0)
        yield start, rows.numpy()
