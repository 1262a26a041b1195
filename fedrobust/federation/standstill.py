"""A run that stands still: no update could be used, so that its figures say nothing of its clients."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any


class StandstillError(RuntimeError):
    """A run in which no round changed the model: what its figures say is said of the initial model."""


def reason_for_standstill(played: Sequence[Mapping[str, Any]]) -> str | None:
    """Why none of the rounds that were `played` (round 0 is none) changed the model; `None` if one did."""
    if not played or any(row["num_received"] and row["refusal"] is None for row in played):
        return None
    reasons = [one["reason"] for row in played for one in row["rejected"]]
    reasons += [row["refusal"] for row in played if row["refusal"] is not None]
    reason, count = Counter(reasons).most_common(1)[0] if reasons else ("no client replied", len(played))
    return f"no update could be used in any of {len(played)} rounds; most often ({count} times): {reason}"
