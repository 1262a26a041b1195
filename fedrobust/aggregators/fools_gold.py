"""FoolsGold: sybils share one aim, so over the rounds their updates resemble each other more than honest ones do.

Fung et al., "The Limitations of Federated Learning in Sybil Settings", RAID 2020,
https://www.usenix.org/conference/raid2020/presentation/fung (also https://arxiv.org/abs/1808.04866)
"""

import dataclasses
from typing import ClassVar

import torch
from torch import Tensor

from fedrobust._linalg.columns import Points, column_chunks, require_finite
from fedrobust._linalg.cosines import measure_directions
from fedrobust.aggregators.base import Aggregate, RoundContext, State, checked
from fedrobust.aggregators.shared_average import average_kept
from fedrobust.config.component import Positive, Trait, component
from fedrobust.types import Weights

_COINCIDE = 1e-12
"""Distances up to this are rounding: all clients point the same way."""

_ROWS_AT_ONCE = 64


@component
class FoolsGold:
    """Let a client count the less, the more the sum of its updates so far points the way of another client's.

    It looks for likeness only: an update's size, and its distance from the others, do not matter.

    Formula: Hᵢ = sum of client i's updates so far; cᵢⱼ = cos(Hᵢ, Hⱼ), vᵢ = max(0, maxⱼ cᵢⱼ), j ≠ i. Pardoning: where
        vⱼ > vᵢ, cᵢⱼ is multiplied by vᵢ / vⱼ. Then αᵢ = 1 - maxⱼ cᵢⱼ within [0, 1], divided by the largest α, and
        αᵢ ← κ (ln(αᵢ / (1 - αᵢ)) + 1/2) within [0, 1]. The answer is the average with shares ∝ αᵢ times the server's
        weights. With κ = 1 a client counts fully from 0.62 of the largest α on, and not at all below 0.38.

    Cost: O(n²d) for the Gram matrix of the histories of the clients present, O(nd) for the average. The memory holds
        one history of d numbers for every client ever seen; a round writes it anew.

    Breakdown point: none is proved. Any number of sybils, even a majority, lose their weight as long as they resemble
        each other more than honest clients do; a single attacker keeps all of its. FoolsGold's own weights multiply the
        server's: where these are claims, one client can be the whole answer.

    Assumes: honest clients with data that differ, so that their histories do; sybils that pursue one aim with similar
        updates; clients that keep their ids.

    Fails when: there is one attacker only, or several that take care to differ (noise that cancels in the sum, one
        aim split between them); and with homogeneous data, where honest clients look like sybils and the odd one out
        takes over.

    Source: Fung, Yoon and Beschastnikh, "The Limitations of Federated Learning in Sybil Settings", RAID 2020,
        https://www.usenix.org/conference/raid2020/presentation/fung, and the authors' code (the floor of vᵢ at 0)

    Departs: the weighting of features by their importance (the magnitudes of the output layer) is left out, all
        parameters count alike; the answer is an average, where the paper adds up αᵢ times the updates; where all
        clients point the same way, and α is 0/0, all count fully. A history of norm zero resembles nobody's.

    Attributes:
        confidence: κ, how steeply likeness is punished.
        use_memory: compare the sums of all updates so far; otherwise those of this round alone.
    """

    confidence: Positive = 1.0
    use_memory: bool = True

    traits: ClassVar[frozenset[Trait]] = frozenset({"follows_clients"})

    def __call__(
        self, updates: Points, weights: Weights | None = None, context: RoundContext | None = None
    ) -> Aggregate:
        """Aggregate `updates` `(n, d)` of `context.clients` under `weights` `(n,)`.

        Returns:
            Shares proportional to α times server weight, and as scores the pardoned likeness maxⱼ cᵢⱼ in [0, 1]. The
            state holds `clients` `(m,)` int64 and their `history` `(m, d)`, float32 at least, on the updates' device.

        Raises:
            ValueError: updates or weights of the wrong shape, type or range; client ids that are not n different ones;
                a memory of another model; every client of positive weight filtered.
        """
        believed = checked(updates, weights, self)
        state: State = {}
        compared = updates
        if self.use_memory:
            state = _remember(updates, context or RoundContext())
            compared = state["history"][: len(updates)]
        dissimilarity = _dissimilarity(measure_directions(compared).distances)
        answer = average_kept(updates, believed, self._counts(dissimilarity), scores=1 - dissimilarity)
        return dataclasses.replace(answer, state=state)

    def _counts(self, dissimilarity: Tensor) -> Tensor:
        """How much each client counts, `(n,)` in [0, 1], by its dissimilarity α from all others."""
        largest = float(dissimilarity.max())
        if largest <= _COINCIDE:
            return torch.ones_like(dissimilarity)
        return (self.confidence * (torch.logit(dissimilarity / largest) + 0.5)).clamp(0, 1)


def _dissimilarity(distances: Tensor) -> Tensor:
    """α before rescaling, `(n,)` in [0, 1]: 1 - maxⱼ cᵢⱼ after pardoning, from the cosine distances 1 - cᵢⱼ.

    Written in distances, since 1 - c of a c near 1 has no digits left.
    """
    spans = [slice(start, start + _ROWS_AT_ONCE) for start in range(0, len(distances), _ROWS_AT_ONCE)]

    def smallest_other(rows: Tensor, span: slice) -> Tensor:
        rows[:, span].fill_diagonal_(torch.inf)
        return rows.min(dim=1).values

    nearest = torch.cat([smallest_other(distances[span].clone(), span) for span in spans]).clamp(max=1)  # 1 - vᵢ

    def pardoned(span: slice) -> Tensor:
        # 1 - vᵢ / vⱼ where vⱼ > vᵢ, so that 1 - cᵢⱼvᵢ / vⱼ = 1 - cᵢⱼ + pardon·cᵢⱼ
        pardon = (nearest[span, None] - nearest[None, :]).clamp_min(0) / (1 - nearest[None, :]).clamp_min(1e-300)
        return distances[span] + pardon * (1 - distances[span])

    return torch.cat([smallest_other(pardoned(span), span) for span in spans]).clamp(0, 1)


def _remember(updates: Points, context: RoundContext) -> State:
    """The memory with this round's updates: the clients present come first, in the updates' order."""
    n, d = updates.shape
    present = list(range(n)) if context.clients is None else list(context.clients)
    if len(present) != n or len(set(present)) != n:
        raise ValueError(f"FoolsGold needs {n} different client ids, one for each update, got {present}")
    precision = torch.float64 if updates.dtype == torch.float64 else torch.float32
    past = context.state.get("history", torch.empty(0, d)).to(updates.device, precision)
    if past.shape[1] != d:
        raise ValueError(f"FoolsGold remembers updates of {past.shape[1]} parameters, got {d}")
    known = context.state.get("clients", torch.empty(0, dtype=torch.int64)).tolist()
    rows = {client: row for row, client in enumerate(known)}
    absent = [client for client in known if client not in set(present)]
    returning = [place for place, client in enumerate(present) if client in rows]
    returning_rows = [rows[present[place]] for place in returning]

    history = torch.empty(n + len(absent), d, dtype=precision, device=updates.device)
    largest = torch.finfo(precision).max
    for where, chunk in column_chunks(updates):
        require_finite(chunk, updates)
        now = history[:n, where]
        now.copy_(chunk)
        if returning:
            now.index_add_(0, _indices(returning, now), past[returning_rows, where])
        # An attacker whose sum overflows must not stop every later round.
        now.clamp_(-largest, largest)
        history[n:, where] = past[[rows[client] for client in absent], where]
    return {"clients": torch.tensor(present + absent, dtype=torch.int64), "history": history}


def _indices(places: list[int], like: Tensor) -> Tensor:
    return torch.tensor(places, dtype=torch.int64, device=like.device)
