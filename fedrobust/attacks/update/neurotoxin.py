"""Neurotoxin: write the backdoor where honest clients do not write, so that they do not overwrite it.

Zhang, Panda, Song, Yang, Mahoney, Mittal, Gonzalez, Ramchandran, "Neurotoxin: Durable Backdoors in Federated Learning",
ICML 2022, https://arxiv.org/abs/2206.10341
"""

from typing import Annotated, ClassVar

import torch
from annotated_types import Gt, Lt

from fedrobust.attacks.base import Knowledge, Level
from fedrobust.config.component import Trait, component
from fedrobust.types import Updates


@component
class Neurotoxin:
    """Every attacker sends its update without the coordinates in which the global model has changed most of late.

    Formula: xₖ ⊙ (1 - mask), mask the ⌊κd⌋ largest |coordinates| of G - G', G the model that the attackers received in
        this round and G' the last that any of them received before.
    Source: Zhang et al., ICML 2022, https://arxiv.org/abs/2206.10341
    Departs: the paper projects in every local step, here the trained update is projected once. The paper goes by the
        aggregate of the round before; G - G' is that aggregate if a malicious client took part in that round, and the
        sum of the aggregates since if none did. The authors' code goes by a gradient on benign clients' examples
        instead. Until a malicious client has received two models, updates are sent whole. The backdoor is not shown to
        last longer than a plain one: on digits it does not (`experiments/neurotoxin`; 22 against 44 % of success are
        left 40 rounds after the attack, 37 against 49 % of what either had).

    Attributes:
        top_fraction: κ, the fraction of coordinates left to honest clients.
    """

    top_fraction: Annotated[float, Gt(0), Lt(1)] = 0.05

    needs: ClassVar[Level] = "own"
    uses: ClassVar[Level] = "own"
    traits: ClassVar[frozenset[Trait]] = frozenset({"uses_model_change"})

    def __call__(self, knowledge: Knowledge) -> Updates:
        """The projected updates `(m, d)`."""
        if knowledge.model_change is None:
            return knowledge.own_updates
        size = knowledge.model_change.to(knowledge.own_updates.device).abs()
        used = torch.zeros(len(size), dtype=torch.bool, device=size.device)
        used[size.topk(int(self.top_fraction * len(size) + 1e-9)).indices] = True
        return knowledge.own_updates.masked_fill(used & (size > 0), 0.0)
