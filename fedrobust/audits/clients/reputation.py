"""What a server remembers of its clients: suspicion, averaged over the rounds in which they took part.

The round-by-round scores of a robust rule as a reputation: Xu and Lyu, "A Reputation Mechanism Is All You Need:
Collaborative Fairness and Adversarial Robustness in Federated Learning", 2020, https://arxiv.org/abs/2011.10464
Departs: any audit's suspicion is averaged, not cosines with the aggregate; exclusion is a threshold on the average and
a number of rounds before it may fall.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from fedrobust.aggregators.base import State
from fedrobust.config.component import Count, Fraction, component


@component
class Reputation:
    """The average suspicion of each client; recent rounds may weigh more.

    With decay λ, suspicion sᵣ in rounds r = 1, ..., R of a client's own gives Σ λᴿ⁻ʳ sᵣ / Σ λᴿ⁻ʳ.

    Attributes:
        decay: λ in [0, 1]: 1 forgets nothing, 0 knows the last round alone.
        exclusion_threshold: who is more suspicious than this on average may be excluded.
        min_rounds: but not before it took part in this many rounds.
    """

    decay: Fraction = 1.0
    exclusion_threshold: Fraction = 0.8
    min_rounds: Count = 5

    def remember(self, memory: State, clients: Sequence[int], suspicion: Tensor, num_clients: int) -> State:
        """The memory after a round in which `clients` were found as suspicious as `suspicion` `(n,)` says.

        Clients that are NaN there were not judged in this round: for them nothing changes.
        """
        names = ("suspicion", "weight", "rounds")
        total, weight, rounds = (
            memory[name].clone() if name in memory else torch.zeros(num_clients, dtype=torch.float64) for name in names
        )
        judged = ~suspicion.isnan()
        rows = torch.tensor(clients, dtype=torch.int64)[judged]
        total[rows] = self.decay * total[rows] + suspicion[judged].double()
        weight[rows] = self.decay * weight[rows] + 1.0
        rounds[rows] += 1.0
        return dict(zip(names, (total, weight, rounds), strict=True))

    def averages(self, memory: State, num_clients: int) -> Tensor:
        """The average suspicion of every client, `(num_clients,)`; NaN for one that was never judged."""
        if not memory:
            return torch.full((num_clients,), float("nan"), dtype=torch.float64)
        return memory["suspicion"].cpu() / memory["weight"].cpu()

    def excluded(self, memory: State, num_clients: int) -> tuple[int, ...]:
        """The clients whose average is above the threshold after enough rounds, ascending."""
        if not memory:
            return ()
        beyond = self.averages(memory, num_clients) > self.exclusion_threshold  # NaN is beyond nothing
        return tuple((beyond & (memory["rounds"].cpu() >= self.min_rounds)).nonzero().squeeze(1).tolist())
