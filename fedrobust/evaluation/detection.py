"""Detection: which malicious clients a rule left out, and which benign ones."""

from collections.abc import Collection
from dataclasses import dataclass

from fedrobust.types import Weights


@dataclass(frozen=True)
class Detection:
    """Rates of one round; a client is detected if its share in the answer is zero.

    Attributes:
        tpr: detected fraction of the attackers that took part, or `None` if none did.
        fpr: detected fraction of the others, or `None` if there were none.
    """

    tpr: float | None
    fpr: float | None


def measure_detection(clients: tuple[int, ...], attackers: Collection[int], shares: Weights) -> Detection:
    """Compare the rule's `shares` `(n,)` with who attacked in this round."""
    detected = (shares <= 0).tolist()
    attacked = [flag for client, flag in zip(clients, detected, strict=True) if client in attackers]
    others = [flag for client, flag in zip(clients, detected, strict=True) if client not in attackers]
    return Detection(_mean(attacked), _mean(others))


def _mean(flags: list[bool]) -> float | None:
    return sum(flags) / len(flags) if flags else None
