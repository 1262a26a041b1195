"""What an audit of clients is: it looks at one round's updates and says how suspicious each client is."""

from typing import Protocol, runtime_checkable

from torch import Tensor

from fedrobust.aggregators.base import Aggregate
from fedrobust.types import Updates


@runtime_checkable
class ClientAudit(Protocol):
    """Looks at the updates of one round, as the server sees them; it never learns who is malicious."""

    def suspicion(self, updates: Updates, aggregate: Aggregate) -> Tensor:
        """How suspicious each client is in this round, `(n,)` float64 in [0, 1] on the CPU.

        Args:
            updates: `(n, d)`, as the rule saw them.
            aggregate: the rule's answer to them.

        Raises:
            ValueError: the audit reads what the rule does not give.
        """
        ...
