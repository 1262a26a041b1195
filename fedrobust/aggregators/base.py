"""What every aggregation rule takes and returns.

A rule is a frozen dataclass called as `rule(updates, weights) -> Aggregate`. It never learns who is malicious: what the
server believes is one number, `assumed_fraction`.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import torch

from fedrobust.types import Updates, Vector, Weights


@dataclass(frozen=True)
class Aggregate:
    """The answer of an aggregation rule.

    Attributes:
        update: `(d,)`, what is added to the global model (times the server's learning rate).
        shares: `(n,)`, summing to 1: how much of each client is in the answer; a client is kept if its share is
            positive. `None` for a coordinate-wise rule, which keeps no client as a whole.
        scores: `(n,)`, larger is more suspicious, or `None` where the rule has no such thing.
        diagnostics: numbers worth a line in the log, by name.
    """

    update: Vector
    shares: Weights | None = None
    scores: Weights | None = None
    diagnostics: Mapping[str, float] = field(default_factory=dict)


@runtime_checkable
class Aggregator(Protocol):
    """An aggregation rule."""

    def __call__(self, updates: Updates, weights: Weights | None = None) -> Aggregate:
        """Aggregate `updates` `(n, d)` under the server's `weights` `(n,)` (uniform if `None`)."""
        ...


def assumed_count(assumed_fraction: float, n: int) -> int:
    """Count f = ⌊εn + 1e-9⌋, the clients out of n that the server believes malicious."""
    return math.floor(assumed_fraction * n + 1e-9)


def checked(updates: Updates, weights: Weights | None) -> Weights:
    """Check a rule's input and return the weights normalised to sum 1, `(n,)` float64 on the updates' device.

    Raises:
        ValueError: updates that are not a floating `(n, d)` tensor with n, d >= 1; weights of another length, negative,
            not finite, or all zero. Non-finite updates are rejected by the server before a rule sees them.
    """
    if updates.ndim != 2 or not updates.is_floating_point():
        raise ValueError(f"updates must be a floating (n, d) tensor, got {updates.dtype} {tuple(updates.shape)}")
    n, d = updates.shape
    if n == 0 or d == 0:
        raise ValueError(f"updates must have at least one client and one parameter, got shape ({n}, {d})")
    if weights is None:
        return torch.full((n,), 1 / n, dtype=torch.float64, device=updates.device)
    if weights.shape != (n,):
        raise ValueError(f"weights must have shape ({n},), got {tuple(weights.shape)}")
    normalised = weights.to(device=updates.device, dtype=torch.float64)
    total = normalised.sum()
    if not bool(torch.isfinite(normalised).all()) or bool((normalised < 0).any()) or float(total) == 0.0:
        raise ValueError("weights must be finite, non-negative and not all zero")
    return normalised / total
