"""What the server does with a round's updates: pre-aggregators, the rule, and an optimiser on its answer."""

import dataclasses
from dataclasses import dataclass, field

from fedrobust.aggregators.base import Aggregate, Aggregator, RoundContext, apply_rule, named_state, state_of
from fedrobust.server_optimizers import PlainStep, ServerOptimizer
from fedrobust.statistics.columns import Shards
from fedrobust.types import Updates, Weights


@dataclass(frozen=True)
class Aggregation:
    """From updates to the step that the server multiplies with its learning rate.

    Attributes:
        rule: a rule, or a `Pipeline` of pre-aggregators and a rule.
        optimizer: makes the step of the rule's answer.
        devices: the parameters are divided over these devices for the rule; none: they stay where they are.
    """

    rule: Aggregator
    optimizer: ServerOptimizer = field(default_factory=PlainStep)
    devices: tuple[str, ...] = ()

    def answer(self, updates: Updates, weights: Weights, context: RoundContext) -> Aggregate:
        """The rule's answer on `updates` `(n, d)` under `weights` `(n,)`; its state is the rule's own.

        Raises:
            UnsuitableSizeError: n is too small for the rule.
            ValueError: whatever else the rule refuses.
        """
        points = Shards.split(updates, self.devices) if self.devices else updates
        inner = dataclasses.replace(context, state=state_of("rule", context.state))
        return apply_rule(self.rule, points, weights.to(points.device), inner)

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
