"""Pre-aggregators and a rule as one rule."""

import dataclasses

from torch import Tensor

from fedrobust._linalg.columns import Points
from fedrobust.aggregators.base import (
    Aggregate,
    Aggregator,
    RoundContext,
    SizedAggregator,
    call_rule,
    checked,
    named_state,
    state_of,
)
from fedrobust.config.component import FieldError, component, has_trait
from fedrobust.preaggregators.base import Preaggregator
from fedrobust.types import Weights


@component
class Pipeline:
    """Pre-aggregators in their order, then a rule; itself a rule, whose shares and scores speak of clients.

    Attributes:
        preaggregators: applied first to last.
        aggregator: the rule at the end.
    """

    preaggregators: tuple[Preaggregator, ...] = ()
    aggregator: Aggregator

    def __post_init__(self) -> None:
        """Refuse what cannot be joined."""
        for index, given in enumerate(self.preaggregators):
            if isinstance(given, type) or not isinstance(given, Preaggregator):  # a class looks like its instances
                raise FieldError(f"preaggregators[{index}]", f"must be a pre-aggregator, got {given!r}")
        merging: str | None = None
        parts: tuple[object, ...] = (*self.preaggregators, self.aggregator)
        for one in parts:
            name = type(one).__name__
            if merging is not None and has_trait(one, "follows_clients"):
                raise FieldError("preaggregators", f"{merging} merges clients, {name} follows each over the rounds")
            if has_trait(one, "merges_clients"):
                merging = name

    @property
    def rule(self) -> Aggregator:
        """The rule at the very end."""
        return self.aggregator.rule if isinstance(self.aggregator, Pipeline) else self.aggregator

    def check_size(self, n: int) -> None:
        """Refuse a number of clients that one of the parts cannot work with.

        Raises:
            UnsuitableSizeError: with the bound and the numbers.
        """
        for one in self.preaggregators:
            n = one.output_size(n)
        if isinstance(self.aggregator, SizedAggregator):
            self.aggregator.check_size(n)

    def __call__(
        self, updates: Points, weights: Weights | None = None, context: RoundContext | None = None
    ) -> Aggregate:
        """Aggregate `updates` `(n, d)` under `weights` `(n,)`.

        Returns:
            The rule's answer; a client's share is what it has of the rows that the rule kept, its score the average
            score of the rows that it is in. Diagnostics of pre-aggregators carry their class names.

        Raises:
            ValueError: whatever the parts raise.
        """
        context = context or RoundContext()
        remembered = context.state
        weights = checked(updates, weights)
        mixing: Tensor | None = None
        diagnostics: dict[str, float] = {}
        state: dict[str, Tensor] = {}
        for index, one in enumerate(self.preaggregators):
            name = f"{index}.{type(one).__name__}"
            before = one(updates, weights, dataclasses.replace(context, state=state_of(name, remembered)))
            updates, weights = before.updates, before.weights
            if before.mixing is not None:
                mixing = before.mixing if mixing is None else before.mixing @ mixing
                if len(updates) != before.mixing.shape[1]:  # rows are not clients any more
                    context = dataclasses.replace(context, clients=None)
            diagnostics |= {f"{type(one).__name__}.{key}": value for key, value in before.diagnostics.items()}
            state |= named_state(name, before.state)
        inner = dataclasses.replace(context, state=state_of("aggregator", remembered))
        answer = call_rule(self.aggregator, updates, weights, inner)
        state |= named_state("aggregator", answer.state)
        return Aggregate(
            update=answer.update,
            shares=_shares_of_clients(answer.shares, mixing),
            scores=_scores_of_clients(answer.scores, mixing),
            diagnostics={**diagnostics, **answer.diagnostics},
            state=state,
        )


def _shares_of_clients(shares: Tensor | None, mixing: Tensor | None) -> Tensor | None:
    return shares if shares is None or mixing is None else shares @ mixing.to(shares.device)


def _scores_of_clients(scores: Tensor | None, mixing: Tensor | None) -> Tensor | None:
    if scores is None or mixing is None:
        return scores
    presence = mixing.to(scores.device)  # every client is in a row: mixing counts it as its own neighbour
    return (scores @ presence) / presence.sum(dim=0)
