"""The server's side of a round that is not a rule: whom it samples, how it weighs, how far it steps."""

from collections.abc import Collection, Sequence
from typing import Literal

import torch
from torch import Tensor

from fedrobust.component import Count, Index, Positive, component
from fedrobust.seeds import torch_generator
from fedrobust.types import Weights


@component
class Server:
    """Federated averaging's outer loop, G' = G + η · rule(updates, weights).

    Attributes:
        num_sampled: clients sampled for a round, without replacement; `None` takes all.
        learning_rate: η.
        warm_start_rounds: rounds 1 to this one are played at `warm_start_learning_rate` instead of η, so that attacks
            meet a trained model.
        warm_start_learning_rate: the server's learning rate in those rounds.
        weights: `num_examples` as clients state them, or `uniform`, which ignores what they claim.
        timeout: seconds to wait for the replies of a round; clients that have not answered by then are left out.
    """

    num_sampled: Count | None = None
    learning_rate: Positive = 1.0
    warm_start_rounds: Index = 0
    warm_start_learning_rate: Positive = 1.0
    weights: Literal["num_examples", "uniform"] = "num_examples"
    timeout: Positive = 3600.0

    def sample_clients(
        self,
        num_clients: int,
        seed: int,
        round_number: int,
        forced: Sequence[int],
        excluded: Collection[int] = (),
    ) -> tuple[int, ...]:
        """The ids of a round's clients, ascending; `forced` ones take the place of sampled ones, `excluded` ones none.

        The draw is the first `num_sampled` of a permutation that depends on (seed, round) alone, so that forcing an
        attacker in changes as few of the others as possible.
        """
        count = num_clients if self.num_sampled is None else self.num_sampled
        order = torch.randperm(num_clients, generator=torch_generator(seed, "sample", round_number)).tolist()
        others = [client for client in order if client not in forced]
        asked = [client for client in [*forced, *others] if client not in excluded]
        return tuple(sorted(asked[:count]))

    def step_size(self, round_number: int) -> float:
        """The server's learning rate in a round."""
        return self.warm_start_learning_rate if round_number <= self.warm_start_rounds else self.learning_rate

    def weigh(self, num_examples: Tensor) -> Weights:
        """The weights `(n,)` float64, summing to 1, that clients with `num_examples` `(n,)` get."""
        if self.weights == "uniform":
            return torch.full((len(num_examples),), 1 / len(num_examples), dtype=torch.float64)
        counts = num_examples.double()  # before the sum: what clients claim may overflow an integer
        return counts / counts.sum()
