"""What the server does with a round's updates: pre-aggregators, the rule, and an optimiser on its answer."""

import dataclasses
from contextlib import suppress
from dataclasses import dataclass, field

import torch

from fedrobust._linalg.columns import Shards
from fedrobust.aggregators.base import Aggregate, Aggregator, RoundContext, call_rule, named_state, state_of
from fedrobust.federation.belief import believed_rule
from fedrobust.notices import collected_notices
from fedrobust.seeds import torch_generator
from fedrobust.server_optimizers import PlainStep, ServerOptimizer
from fedrobust.types import Updates, Weights

_WORTH_WARMING = 1 << 16
_WORTH_COMPILING = 1 << 21
"""As many numbers make every rule compile what it has."""


@dataclass(frozen=True)
class Aggregation:
    """From updates to the step that the server multiplies with its learning rate.

    Attributes:
        rule: a rule, or a `Pipeline` of pre-aggregators and a rule.
        optimizer: makes the step of the rule's answer.
        devices: the parameters are divided over these devices for the rule; none: they stay where they are.
        sampling_confidence: with which f of a round bounds the malicious clients in it, where clients are sampled;
            `None`: f = ⌊εn⌋.
    """

    rule: Aggregator
    optimizer: ServerOptimizer = field(default_factory=PlainStep)
    devices: tuple[str, ...] = ()
    sampling_confidence: float | None = None

    def answer(self, updates: Updates, weights: Weights, context: RoundContext) -> Aggregate:
        """The rule's answer on `updates` `(n, d)` under `weights` `(n,)`; its state is the rule's own.

        Raises:
            UnsuitableSizeError: n is too small for the rule.
            ValueError: whatever else the rule refuses.
        """
        points = Shards.split(updates, self.devices) if self.devices else updates
        inner = dataclasses.replace(context, state=state_of("rule", context.state))
        rule = believed_rule(
            self.rule,
            len(updates),
            num_clients=context.num_clients,
            num_asked=context.num_asked,
            confidence=self.sampling_confidence,
        )
        return call_rule(rule, points, weights.to(points.device), inner)

    def __call__(self, updates: Updates, weights: Weights, context: RoundContext) -> Aggregate:
        """The rule's answer on `updates` `(n, d)` under `weights` `(n,)`, its update made a step of.

        Raises:
            UnsuitableSizeError: n is too small for the rule.
            ValueError: whatever else the rule refuses.
        """
        answer = self.answer(updates, weights, context)
        step, memory = self.optimizer(answer.update, state_of("optimizer", context.state))
        state = {**named_state("rule", answer.state), **named_state("optimizer", memory)}
        return dataclasses.replace(answer, update=step, state=state)

    def warm_up(self, num_clients: int, num_parameters: int, device: torch.device) -> None:
        """Answer once on random updates, so that what compiles has compiled and round 1 is timed like any other.

        Kernels depend on the number of clients, and on the parameters only in that there must be enough of them to be
        worth one. Nothing is remembered.
        """
        if num_clients * num_parameters < _WORTH_WARMING:
            return
        width = min(num_parameters, -(-_WORTH_COMPILING // num_clients))
        updates = torch.randn(num_clients, width, generator=torch_generator(0, "warm up")).to(device)
        weights = torch.full((num_clients,), 1 / num_clients, dtype=torch.float64, device=device)
        with collected_notices(), suppress(ValueError):  # what the rule refuses, round 1 will say
            self(updates, weights, RoundContext(root_update=updates[0]))
