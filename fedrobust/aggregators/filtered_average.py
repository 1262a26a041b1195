"""From a filter's verdict to a rule's answer."""

from fedrobust.aggregators.base import Aggregate
from fedrobust.statistics.filtering import Filtered
from fedrobust.statistics.gram import weighted_combination
from fedrobust.types import Updates, Weights


def average_filtered(updates: Updates, weights: Weights, filtered: Filtered) -> Aggregate:
    """Average `updates` `(n, d)` with shares proportional to filter weight times server weight.

    Args:
        updates: `(n, d)`.
        weights: `(n,)` float64, the server's, normalised, on the updates' device.
        filtered: what the filter left of each client.

    Raises:
        ValueError: the server gives weight only to clients that were filtered.
    """
    left = filtered.weights.to(weights.device)
    shares = weights
    if bool((left < 1).any()):  # otherwise this is the mean, to the last bit
        shares = left * weights
        if float(shares.sum()) == 0.0:
            raise ValueError("every client of positive weight was filtered")
        shares = shares / shares.sum()
    return Aggregate(
        update=weighted_combination(updates, shares),
        shares=shares,
        scores=filtered.scores.to(weights.device),
        diagnostics={
            "first_top_eigenvalue": filtered.first_eigenvalue,
            "top_eigenvalue": filtered.eigenvalue,
            "num_steps": float(filtered.num_steps),
            "num_filtered": float((filtered.weights == 0).sum()),
            "removed_mass": float((1 - filtered.weights).sum()),
        },
    )
