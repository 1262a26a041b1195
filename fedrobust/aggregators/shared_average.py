"""From how much a rule keeps of each client to its answer: the average under those shares."""

from collections.abc import Mapping

from torch import Tensor

from fedrobust._linalg.columns import Points
from fedrobust._linalg.gram import weighted_combination
from fedrobust.aggregators.base import Aggregate
from fedrobust.types import UnusableUpdatesError, Weights


def average_kept(
    updates: Points,
    weights: Weights,
    kept: Tensor,
    *,
    scores: Tensor | None = None,
    diagnostics: Mapping[str, float] | None = None,
) -> Aggregate:
    """Average `updates` `(n, d)` with shares proportional to what is kept of each client times its server weight.

    Args:
        updates: `(n, d)`.
        weights: `(n,)` float64, the server's, normalised, on the updates' device (what `checked` returns).
        kept: `(n,)` in [0, 1], boolean or float, on any device: what is left of each client.
        scores: `(n,)`, larger is more suspicious.
        diagnostics: numbers for the log; `num_filtered`, the clients of which nothing is kept, is added.

    Raises:
        UnusableUpdatesError: the server gives weight only to clients of whom nothing is kept.
    """
    left = kept.to(weights.device, weights.dtype)
    shares = weights
    if bool((left < 1).any()):  # otherwise this is the mean, to the last bit
        shares = left * weights
        if bool(shares.sum() == 0):
            raise UnusableUpdatesError("every client of positive weight was filtered")
        shares = shares / shares.sum()
    return Aggregate(
        update=weighted_combination(updates, shares),
        shares=shares,
        scores=None if scores is None else scores.to(weights.device),
        diagnostics={**(diagnostics or {}), "num_filtered": float((left == 0).sum())},
    )
