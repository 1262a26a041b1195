"""Client momentum: what a rule sees of a client is an average over its rounds, in which honest clients differ less.

Karimireddy, He and Jaggi, "Learning from History for Byzantine Robust Optimization", ICML 2021,
https://arxiv.org/abs/2012.10333
"""

from typing import Annotated, ClassVar

import torch
from annotated_types import Ge, Lt
from torch import Tensor

from fedrobust._linalg.columns import Points, Shards, column_chunks, require_finite
from fedrobust.aggregators.base import RoundContext, State, checked
from fedrobust.config.component import Trait, component
from fedrobust.preaggregators.base import Preaggregated
from fedrobust.types import Weights


@component
class ClientMomentum:
    """Replace each update by the exponential average of that client's updates over the rounds it took part in.

    Formula: for every client of the round mᵢ ← β·mᵢ + (1 - β)·xᵢ; in its first round mᵢ = xᵢ.
    Cost: O(nd), the data is read once; memory of one update for every client ever seen, m·d numbers for m clients (and
    as much again while it is renewed).
    Breakdown point: that of the rule behind it, which meets honest clients whose noise has (1 - β)/(1 + β) of its
    variance once they took part in many rounds.
    Assumes: clients that come back; a model that moves little within 1/(1 - β) of their rounds.
    Fails when: clients are sampled rarely, so that their momentum is of an old model; the difference between honest
    clients is in their data, not their noise: an average over rounds does not remove it.
    Source: Karimireddy, He and Jaggi, "Learning from History for Byzantine Robust Optimization", ICML 2021,
    https://arxiv.org/abs/2012.10333
    Departs: the server keeps the momentum, so that attackers cannot send another than their updates', and it averages
    updates, which may come of several local steps, not stochastic gradients. The momentum of a client that is absent
    stays as it is.

    Attributes:
        beta: β, the weight of the past.
    """

    beta: Annotated[float, Ge(0), Lt(1)] = 0.9

    traits: ClassVar[frozenset[Trait]] = frozenset({"follows_clients"})

    def __call__(
        self, updates: Points, weights: Weights | None = None, context: RoundContext | None = None
    ) -> Preaggregated:
        """Average `updates` `(n, d)` with the past of `context.clients`; `weights` `(n,)` pass through.

        Returns:
            Row i is still client i. The state holds `clients` `(m,)` int64, ascending, and their momentum `(m, d)` in
            the updates' dtype and place: `momentum`, or for shards `momentum.0`, `momentum.1`, ...

        Raises:
            ValueError: updates or weights of the wrong shape, type or range; clients that are not n different ids; a
                remembered momentum that does not fit the updates.
        """
        believed = checked(updates, weights, self)
        context = context or RoundContext()
        now = list(range(len(updates))) if context.clients is None else list(context.clients)
        if len(now) != len(updates) or len(set(now)) != len(now):
            raise ValueError(f"clients must be {len(updates)} different ids, got {now}")
        before = context.state["clients"].tolist() if "clients" in context.state else []
        known = sorted({*before, *now})

        state: dict[str, Tensor] = {"clients": torch.tensor(known, dtype=torch.int64)}
        averaged = []
        for name, part in _parts(updates).items():
            remembered = _remembered(context.state, name, part, len(before))
            state[name] = self._renew(part, remembered, now, before, known)
            # Nothing writes to it, so where all known clients are here in order the memory itself will do.
            averaged.append(state[name] if now == known else state[name][[known.index(client) for client in now]])
        return Preaggregated(
            updates=Shards(tuple(averaged)) if isinstance(updates, Shards) else averaged[0],
            weights=believed,
            diagnostics={"num_known": float(len(known)), "num_new": float(len(known) - len(before))},
            state=state,
        )

    def output_size(self, n: int) -> int:
        """As many rows as there are."""
        return n

    def _renew(self, part: Tensor, remembered: Tensor, now: list[int], before: list[int], known: list[int]) -> Tensor:
        """The momentum `(m, d)` of all `known` clients, in that order."""
        row_before = {client: row for row, client in enumerate(before)}
        row_known = {client: row for row, client in enumerate(known)}
        absent = sorted(row_before.keys() - set(now))
        back = [row for row, client in enumerate(now) if client in row_before]
        precision = torch.float64 if part.dtype == torch.float64 else torch.float32
        renewed = torch.empty(len(known), part.shape[1], dtype=part.dtype, device=part.device)
        for where, chunk in column_chunks(part):
            rows = chunk.to(precision, copy=True)
            past = remembered[[row_before[now[row]] for row in back], where]
            rows[back] = self.beta * past.to(precision) + (1 - self.beta) * rows[back]
            renewed[[row_known[client] for client in now], where] = rows.to(part.dtype)
            renewed[[row_known[client] for client in absent], where] = remembered[
                [row_before[client] for client in absent], where
            ]
            require_finite(chunk, part)
        return renewed


def _parts(updates: Points) -> dict[str, Tensor]:
    if isinstance(updates, Shards):
        return {f"momentum.{index}": part for index, part in enumerate(updates.parts)}
    return {"momentum": updates}


def _remembered(state: State, name: str, part: Tensor, count: int) -> Tensor:
    """The momentum `(count, d)` from the state, where `part` is."""
    if count == 0:
        return part.new_empty(0, part.shape[1])
    remembered = state.get(name)
    if remembered is None or remembered.shape != (count, part.shape[1]):
        found = "none" if remembered is None else tuple(remembered.shape)
        raise ValueError(f"the remembered {name} must have shape ({count}, {part.shape[1]}), got {found}")
    return remembered.to(part)
