"""The mean and the covariance of a weighted sample of many points, kept up to date as weights fall."""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedrobust._linalg.rows import Chunks, like_chunks, over_rows
from fedrobust.types import Vector, Weights

TOO_LARGE = "x must have squared norms below 1e308"

_PILOT_ROWS = 256

_FAR = 100.0
"""A centre whose squared distance from the mean is so many traces of the covariance is moved: two digits are lost."""

_FEW = 0.25
"""Up to this part of the points is taken out of the sums; beyond, they are added up anew."""

_LEFT = 1e-2
"""And anew when this part of the variance is left: the rounding of what was taken out would no longer be small."""

_BLOCK = 256


class Moments:
    """Σ w(x - c) and the scatter Σ w(x - c)(x - c)ᵀ in float64, about a centre c near the mean."""

    def __init__(self, points: Tensor) -> None:
        """Nothing is computed yet; `points` `(n, d)`, float, on any device, are not changed."""
        self._points = points
        self._centre = points[:_PILOT_ROWS].double().mean(dim=0)
        self._weights: Weights | None = None
        self._total = 0.0
        self._highest_variance = 0.0

    def update(self, weights: Weights) -> None:
        """Move on to `weights` `(n,)` float64 on the CPU, non-negative, not all zero.

        Raises:
            ValueError: points whose squares overflow float64.
        """
        if self._weights is None or not self._take_out(self._weights - weights):
            self._add_up(weights)
        self._weights, self._total = weights, float(weights.sum())

    def mean(self) -> Vector:
        """μ_w, `(d,)` float64 on the points' device."""
        return self._centre + self._sum / self._total

    def covariance(self) -> NDArray[np.float64]:
        """Σ w(x - μ_w)(x - μ_w)ᵀ / Σ w, `(d, d)`."""
        shift = (self._sum / self._total).cpu().numpy()
        covariance: NDArray[np.float64] = self._scatter.cpu().numpy() / self._total
        for start in range(0, len(shift), _BLOCK):  # the outer product as a whole would be one more copy
            block = slice(start, start + _BLOCK)
            covariance[block] -= shift[block, None] * shift
        return covariance

    def _add_up(self, weights: Weights) -> None:
        total = float(weights.sum())
        d, device = self._points.shape[1], self._points.device
        for _ in range(3):
            self._sum = torch.zeros(d, dtype=torch.float64, device=device)
            self._scatter = torch.zeros(d, d, dtype=torch.float64, device=device)
            self._add(weights, 1)
            squared_shift, variance = self._spread(total)
            if not math.isfinite(squared_shift) or not math.isfinite(variance):
                raise ValueError(TOO_LARGE)
            if squared_shift <= _FAR * variance:
                break
            self._centre = self._centre + self._sum / total
        self._highest_variance = variance

    def _take_out(self, lost: Weights) -> bool:
        """Take the weight `lost` out of the sums; false if they must be added up anew."""
        changed = lost.nonzero().squeeze(1)
        if bool((lost < 0).any()) or len(changed) > _FEW * len(lost):
            return False
        self._add(lost, -1, changed)
        squared_shift, variance = self._spread(self._total - float(lost.sum()))
        return variance > _LEFT * self._highest_variance and squared_shift <= _FAR * variance

    def _spread(self, total: float) -> tuple[float, float]:
        """‖μ_w - c‖² and the trace of the covariance."""
        squared_shift = float((self._sum / total).square().sum())
        return squared_shift, max(float(self._scatter.trace()) / total - squared_shift, 0.0)

    def _add(self, weights: Weights, sign: int, rows: Tensor | None = None) -> None:
        """Add, or take away, wᵢ(xᵢ - c) and wᵢ(xᵢ - c)(xᵢ - c)ᵀ of all `rows`."""
        roots = like_chunks((weights if rows is None else weights[rows]).sqrt(), self._points)

        @np.errstate(over="ignore", invalid="ignore")  # the sums show it, and are looked at
        def add_up(chunks: Chunks) -> tuple[Tensor, Tensor]:
            total = scatter = None
            for where, chunk in chunks:
                root = roots[where]
                if (root != 1).any():
                    chunk *= root[:, None]
                product = chunk.T @ chunk  # NumPy sees the same matrix twice and does half of the work
                if scatter is None:
                    total, scatter = root @ chunk, product
                else:
                    total += root @ chunk
                    scatter += product
            return torch.as_tensor(total), torch.as_tensor(scatter)

        if rows is None or len(rows):
            for total, scatter in over_rows(self._points, self._centre, add_up, rows):
                self._sum += sign * total
                self._scatter.add_(scatter, alpha=sign)
