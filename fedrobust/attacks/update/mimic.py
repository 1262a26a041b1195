"""Mimic: copy one honest client, so that a robust rule overrates it and drops the others' variety.

Karimireddy, He, Jaggi, "Byzantine-Robust Learning on Heterogeneous Datasets via Bucketing", ICLR 2022,
https://arxiv.org/abs/2006.09365
"""

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from fedrobust.attacks.base import Knowledge, Level
from fedrobust.config.component import Count, Index, component
from fedrobust.types import Updates


@component
class Mimic:
    """All attackers send what one benign client sends: the one farthest along the direction of greatest variance.

    Formula: the direction z ← t/(t+1)·z + 1/(t+1)·v/‖v‖ with v = Σᵢ (xᵢ - μ)(xᵢ - μ)ᵀz, made a unit vector, and the
        running mean μ, are learned for `num_warmup_rounds` attack rounds; the client with the largest ⟨z, xᵢ⟩ in the
        last of them is copied from then on (in the rounds before, the one of the round).
    Source: Karimireddy, He and Jaggi, ICLR 2022, https://arxiv.org/abs/2006.09365
    Departs: nothing; in a round in which the chosen client is not sampled, the one with the largest ⟨z, xᵢ⟩ is copied.

    Attributes:
        client: copy this client instead, whenever it takes part.
        num_warmup_rounds: attack rounds of learning.
    """

    client: Index | None = None
    num_warmup_rounds: Count = 10

    needs: ClassVar[Level] = "benign"
    uses: ClassVar[Level] = "benign"

    def remember(self, knowledge: Knowledge) -> Mapping[str, Tensor]:
        """The direction and the mean `(d,)` so far, and `[attack rounds seen, chosen client]`."""
        seen, chosen = knowledge.memory.get("mimicked", torch.tensor([0, -1])).tolist()
        points, clients = knowledge.benign_updates, knowledge.benign_clients
        if points is None or clients is None or len(points) == 0:
            return knowledge.memory
        if seen >= self.num_warmup_rounds:
            return {**knowledge.memory, "mimicked": torch.tensor([seen + 1, chosen])}
        average = points.mean(dim=0)
        if seen == 0:
            mean = average
            direction = torch.randn(points.shape[1], generator=knowledge.generator).to(points)
            direction = _unit(_spread_along(points - mean, direction))
        else:
            old = knowledge.memory["direction"].to(points)
            mean = seen / (seen + 1) * knowledge.memory["mean"].to(points) + average / (seen + 1)
            new = _unit(_spread_along(points - mean, old))
            direction = _unit(seen / (seen + 1) * old + new / (seen + 1))
        chosen = clients[int((points @ direction).argmax())]
        return {"direction": direction, "mean": mean, "mimicked": torch.tensor([seen + 1, chosen])}

    def __call__(self, knowledge: Knowledge) -> Updates:
        """The copied update, m times `(m, d)`; the attackers' own where there is no benign client to copy."""
        points, clients = knowledge.benign_updates, knowledge.benign_clients
        if points is None or clients is None or len(points) == 0:
            return knowledge.own_updates
        chosen = int(knowledge.memory["mimicked"][1]) if self.client is None else self.client
        if chosen in clients:
            row = clients.index(chosen)
        else:
            row = int((points @ knowledge.memory["direction"].to(points)).argmax())
        return points[row].expand(len(knowledge.own_updates), -1)


def _spread_along(centred: Tensor, direction: Tensor) -> Tensor:
    """Σᵢ (xᵢ - μ)(xᵢ - μ)ᵀz, `(d,)`."""
    spread: Tensor = (centred @ direction) @ centred
    return spread


def _unit(vector: Tensor) -> Tensor:
    unit: Tensor = vector / vector.norm().clamp_min(1e-30)
    return unit
