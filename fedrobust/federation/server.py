"""The server's side of a round that is not a rule: whom it samples, how it weighs, how far it steps."""

from collections.abc import Collection, Sequence
from typing import Annotated

import torch
from annotated_types import Ge, Gt, Lt
from torch import Tensor

from fedrobust.aggregators.base import Aggregator
from fedrobust.config.component import Count, Index, Positive, component
from fedrobust.federation.belief import DEFAULT_CONFIDENCE
from fedrobust.federation.weighting import DEFAULT_MAX_CLAIM_RATIO, GivenWeighting, claimed_weights, weighting_for
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
        weights: `uniform`, which ignores claims; `num_examples`, which believes them; `capped`, which believes them up
            to `max_claim_ratio` times their median; `auto`: `num_examples` for the plain mean, `uniform` for every
            other rule.
        max_claim_ratio: read only with `capped`.
        sampling_confidence: with which a rule's f bounds the malicious clients of a round, where clients are sampled:
            an upper quantile of the hypergeometric law; `None`: f = ⌊εn⌋, which is too small in many rounds.
        timeout: seconds to wait for the replies of a round; clients that have not answered by then are left out.
    """

    num_sampled: Count | None = None
    learning_rate: Positive = 1.0
    warm_start_rounds: Index = 0
    warm_start_learning_rate: Positive = 1.0
    weights: GivenWeighting = "auto"
    max_claim_ratio: Annotated[float, Ge(1)] = DEFAULT_MAX_CLAIM_RATIO
    sampling_confidence: Annotated[float, Gt(0), Lt(1)] | None = DEFAULT_CONFIDENCE
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

    def weigh(self, num_examples: Tensor, rule: Aggregator) -> Weights:
        """The weights `(n,)` float64, summing to 1, that clients with `num_examples` `(n,)` get under `rule`."""
        return claimed_weights(num_examples, weighting_for(rule, self.weights), self.max_claim_ratio)
