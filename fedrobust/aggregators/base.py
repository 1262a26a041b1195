"""What every aggregation rule takes and returns.

A rule is a frozen dataclass called as `rule(updates, weights, context) -> Aggregate`. It never learns who is malicious:
what the server believes is one number, `assumed_fraction`. The `RoundContext` holds what a rule may need to know beyond
updates and weights: its memory (`state`, which it returned last time), a root update, randomness. What else it needs or
promises a rule declares in `traits`.
"""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from types import NoneType
from typing import Any, Protocol, TypeAlias, runtime_checkable

import torch
from torch import Tensor

from fedrobust._linalg.columns import Points, Shards
from fedrobust._linalg.gradients import needs_gradient
from fedrobust.config.component import has_trait, traits_of
from fedrobust.filters.filtering import assumed_count
from fedrobust.seeds import torch_generator
from fedrobust.types import UnusableUpdatesError, Vector, Weights

State: TypeAlias = Mapping[str, Tensor]
"""What a rule remembers from one round to the next, by name; empty before the first round."""


class UnsuitableSizeError(UnusableUpdatesError):
    """A rule cannot work with this number of updates: too few for the attackers that it assumes, or too many to try."""


@dataclass(frozen=True)
class Aggregate:
    """The answer of an aggregation rule.

    Attributes:
        update: `(d,)`, what is added to the global model (times the server's learning rate).
        shares: `(n,)`, summing to 1 (or all zero where a rule trusts nobody): how much of each client is in the answer;
            a client is kept if its share is positive. `None` for a coordinate-wise rule, which keeps no client as a
            whole.
        scores: `(n,)`, larger is more suspicious, or `None` where the rule has no such thing.
        diagnostics: numbers worth a line in the log, by name.
        state: what the rule wants to find in its context next round; empty for a rule without memory.
    """

    update: Vector
    shares: Weights | None = None
    scores: Weights | None = None
    diagnostics: Mapping[str, float] = field(default_factory=dict)
    state: State = field(default_factory=dict)


@dataclass(frozen=True)
class RoundContext:
    """What a round knows beyond updates and weights.

    Attributes:
        clients: the ids of the rows; `None`: 0, ..., n - 1.
        round_number: counted from 1.
        num_clients: the population that the round's clients were drawn from; `None`: as many as were asked.
        num_asked: clients asked for an update, whether or not one came; `None`: as many as there are updates.
        seed: the scenario's; randomness depends on (seed, round, purpose) alone.
        state: what the rule returned as its `state` last time it was called.
        root_update: `(d,)`, the server's own update, trained on its clean root data set, for rules that trust it.
    """

    clients: tuple[int, ...] | None = None
    round_number: int = 1
    seed: int = 0
    state: State = field(default_factory=dict)
    root_update: Vector | None = None
    num_clients: int | None = None
    num_asked: int | None = None

    def generator(self, purpose: str) -> torch.Generator:
        """A generator (on the CPU) for one purpose in this round."""
        return torch_generator(self.seed, purpose, self.round_number)


@runtime_checkable
class Aggregator(Protocol):
    """An aggregation rule.

    The package's own pass gradients from `update` back to updates, weights and whatever else they take, or refuse
    inputs that require one (`refuse_gradients`); shares and scores pass none back. Under `torch.no_grad()` every rule
    takes them as data.
    """

    def __call__(
        self, updates: Points, weights: Weights | None = None, context: RoundContext | None = None
    ) -> Aggregate:
        """Aggregate `updates` `(n, d)` under the server's `weights` `(n,)`.

        Args:
            updates: client minus global.
            weights: uniform if `None`.
            context: of the round; `None` is round 1 with seed 0 and no memory.
        """
        ...


@runtime_checkable
class SizedAggregator(Protocol):
    """A rule that cannot work with any number of updates."""

    def check_size(self, n: int) -> int:
        """The number f of n clients that are assumed malicious, if the rule can work with that.

        Raises:
            UnsuitableSizeError: with the bound and the numbers.
        """
        ...


def call_rule(rule: Aggregator, updates: Points, weights: Weights | None, context: RoundContext) -> Aggregate:
    """Call a rule with the context, unless its signature has none: then it can have no memory.

    Raises:
        TypeError: a rule that takes no context returns a state, which it would never see again.
    """
    if _takes_context(type(rule) if not inspect.isfunction(rule) else rule):
        return rule(updates, weights, context)
    answer = rule(updates, weights)
    if answer.state:
        raise TypeError(
            f"{type(rule).__name__} returns a state, {', '.join(sorted(answer.state))}, but takes no context, where it "
            "would find it: its __call__ must take (updates, weights, context)"
        )
    return answer


@cache
def _takes_context(called: Any) -> bool:
    signature = inspect.signature(called if inspect.isfunction(called) else called.__call__)
    own = [] if inspect.isfunction(called) else [None]
    try:
        signature.bind(*own, None, None, None)
    except TypeError:
        return False
    return True


def named_state(name: str, state: State) -> State:
    """The state of the part `name` of a whole, under keys that `state_of` finds again."""
    return {f"{name}.{key}": values for key, values in state.items()}


def state_of(name: str, state: State) -> State:
    """What the part `name` put into the whole's state."""
    return {key.removeprefix(f"{name}."): values for key, values in state.items() if key.startswith(f"{name}.")}


def require_majority(rule: str, assumed_fraction: float, n: int) -> int:
    """The f of n that `rule` assumes malicious, if the others are more than half.

    Raises:
        UnsuitableSizeError: n <= 2f.
    """
    f = assumed_count(assumed_fraction, n)
    if n <= 2 * f:
        raise UnsuitableSizeError(f"{rule} needs n > 2f, got n={n}, f={f}")
    return f


def refuse_gradients(rule: object, *inputs: Points | None) -> None:
    """Refuse inputs that require a gradient, which `rule` would lose, unless it is declared `is_differentiable`.

    Raises:
        ValueError: with the rule's name, which rules are differentiable, and how to go on.
    """
    if has_trait(rule, "is_differentiable") or not needs_gradient(*inputs):
        return
    from fedrobust.aggregators import RULES  # which import this module

    able = ", ".join(sorted(one.__name__ for one in RULES if "is_differentiable" in traits_of(one)))
    raise ValueError(
        f"{type(rule).__name__} is not differentiable, and its input requires a gradient: pass updates.detach(), or "
        f"use one of {able}"
    )


def checked(updates: Points, weights: Weights | None, rule: object | None = None) -> Weights:
    """Check a rule's input and return the weights normalised to sum 1, `(n,)` float64 on the updates' device.

    Args:
        updates: the rule's input.
        weights: the rule's input.
        rule: itself, if it must not lose gradients. It is refused inputs that require one unless its class
            declares the trait `is_differentiable`. Without it, what a rule calls of `_linalg` and `filters` passes
            gradients back or refuses.

    Raises:
        ValueError: updates that are not a floating `(n, d)` tensor with n, d >= 1; weights that are not a tensor, of
            another length, negative, not finite, or all zero; a gradient required of a rule that is not differentiable.
            Non-finite updates are refused where they are read.
    """
    for name, given, kinds in (("updates", updates, (Tensor, Shards)), ("weights", weights, (Tensor, NoneType))):
        if not isinstance(given, kinds):
            raise ValueError(f"{name} must be a tensor, got {type(given).__name__}: torch.as_tensor makes one of it")
    if updates.ndim != 2 or not updates.is_floating_point():
        raise ValueError(f"updates must be a floating (n, d) tensor, got {updates.dtype} {tuple(updates.shape)}")
    if rule is not None:
        refuse_gradients(rule, updates, weights)
    n, d = updates.shape
    if n == 0 or d == 0:
        raise ValueError(f"updates must have at least one client and one parameter, got shape ({n}, {d})")
    if weights is None:
        return torch.full((n,), 1 / n, dtype=torch.float64, device=updates.device)
    if weights.shape != (n,):
        raise ValueError(f"weights must have shape ({n},), got {tuple(weights.shape)}")
    normalised = weights.to(device=updates.device, dtype=torch.float64)
    total = normalised.sum()
    if not bool(torch.isfinite(normalised).all()) or bool((normalised < 0).any()) or bool(total == 0):
        raise ValueError("weights must be finite, non-negative and not all zero")
    if not bool(torch.isfinite(total)):  # of finite weights: the sum overflowed
        normalised = normalised / normalised.max()
        total = normalised.sum()
    return normalised / total
