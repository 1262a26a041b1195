"""What a pre-aggregator takes and returns: it changes the updates before the rule sees them.

Whatever a pre-aggregator does to the rows, it says which clients are in which of the new ones: so the shares and
scores of the rule, which speak of rows, become shares and scores of clients.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from torch import Tensor

from fedrobust._linalg.columns import Points
from fedrobust.aggregators.base import RoundContext, State
from fedrobust.types import Weights


@dataclass(frozen=True)
class Preaggregated:
    """The answer of a pre-aggregator, for n clients and m rows.

    Attributes:
        updates: `(m, d)`.
        weights: `(m,)` float64, normalised, on the updates' device.
        mixing: `(m, n)` float64 on the CPU, each row summing to 1: how much of each client is in each new row; `None`
            where row i is still client i.
        diagnostics: numbers worth a line in the log, by name.
        state: what it wants to find in its context next round; empty without memory.
    """

    updates: Points
    weights: Weights
    mixing: Tensor | None = None
    diagnostics: Mapping[str, float] = field(default_factory=dict)
    state: State = field(default_factory=dict)


@runtime_checkable
class Preaggregator(Protocol):
    """Something that changes the updates before the rule."""

    def __call__(
        self, updates: Points, weights: Weights | None = None, context: RoundContext | None = None
    ) -> Preaggregated:
        """Change `updates` `(n, d)` under the server's `weights` `(n,)`; the input itself is not written to."""
        ...

    def output_size(self, n: int) -> int:
        """How many rows n rows become.

        Raises:
            UnsuitableSizeError: too few rows to work with.
        """
        ...
