"""Centred clipping: pull a centre towards the clients, each with a force that is bounded.

Karimireddy, He and Jaggi, "Learning from History for Byzantine Robust Optimization", ICML 2021,
https://arxiv.org/abs/2012.10333
"""

from typing import ClassVar

import torch
from torch import Tensor

from fedrobust._linalg.clipping import clip_factors, midpoint_median
from fedrobust._linalg.columns import Points, get_row
from fedrobust._linalg.gradients import needs_gradient, parts_of, pull_back_gram, with_gradient
from fedrobust._linalg.gram import gram_matrix, medoid_and_squared_radius, weighted_combination
from fedrobust.aggregators.base import Aggregate, RoundContext, checked
from fedrobust.config.component import Count, Positive, Trait, component
from fedrobust.types import Vector, Weights

# Where the clients' squared spread is below this part of their squared distance to the start, distances between the
# former drown in the latter, and the Gram matrix is built again among the clients.
_TIGHT = 1e-2
_MAX_PASSES = 3


@component
class CentredClipping:
    """Move the last answer towards every client, nobody farther than a bound.

    It remembers its last answer: what honest clients agree on over the rounds moves the centre all the way, what an
    attacker says in one round by no more than the bound times its weight.

    Formula: from the answer of the last round (0 in the first), `num_iterations` times
    v ← v + Σ wᵢ·min(1, τ/‖xᵢ - v‖)·(xᵢ - v).
    Cost: one n x n Gram matrix of the distances to the start (O(n²d), the data is read once for it) and one combination
    of the rows (O(nd)); a second Gram matrix where the clients lie close together far from the start. O(n²) for each
    iteration, O(d) of memory from round to round.
    Breakdown point: in an iteration attackers of total weight ε move the centre by at most ε·τ, wherever they stand.
    The paper proves convergence for ε up to a constant well below 1/2, with a suitable τ and client momentum. With τ
    the median distance, τ itself is bounded while attackers are fewer than half. In clients, this holds for uniform
    weights: where weights are claims, one client can hold more than half and be the whole answer.
    Assumes: a centre that is already near the honest mean, within a few τ: the paper combines it with client momentum,
    under which honest clients stand close together.
    Fails when: τ is far too small (the centre cannot follow the clients, the answer is a step of at most
    `num_iterations`·τ) or far too large (this is the mean); attackers push in one direction in every round, as each
    moves the answer by up to wᵢ·τ without ever being excluded.
    Source: Karimireddy, He and Jaggi, "Learning from History for Byzantine Robust Optimization", ICML 2021,
    https://arxiv.org/abs/2012.10333
    Departs: the paper's mean counts every client once, here it carries the server's weights. Without `max_norm` the
    bound of an iteration is the median of the clients' distances to the centre (every client counts once), which the
    paper does not have. Shares do not sum up to the answer, which also contains the old centre: they are the clients'
    coefficients in it, made to sum to 1. Nobody is dropped, so no client of positive weight has a share of zero.

    Attributes:
        max_norm: τ, in the units of an update; `None` for the median distance to the centre at each iteration.
        num_iterations: how often the centre is moved in a round.
    """

    max_norm: Positive | None = None
    num_iterations: Count = 3

    traits: ClassVar[frozenset[Trait]] = frozenset({"is_differentiable"})

    def __call__(
        self, updates: Points, weights: Weights | None = None, context: RoundContext | None = None
    ) -> Aggregate:
        """Aggregate `updates` `(n, d)` under `weights` `(n,)`, from `context.state["centre"]` `(d,)`.

        Differentiable in all three, the bound's own dependence on the updates included; the state keeps the gradient.

        Returns:
            The new centre, also in the state; as scores the clients' distances to it.

        Raises:
            ValueError: updates or weights of the wrong shape, type or range; a remembered centre of another length.
        """
        believed = checked(updates, weights, self)
        start = (context or RoundContext()).state.get("centre")
        if start is not None and start.shape != (updates.shape[1],):
            raise ValueError(f"the centre must have shape ({updates.shape[1]},), got {tuple(start.shape)}")
        gram = _gram_with_start(updates, start)
        pulls = believed.cpu()
        middle = _differentiable_median if needs_gradient(updates, start, believed) else midpoint_median

        # The centre is Σ place_j p_j with Σ place_j = 1, where p_0 is the start and p_1, ..., p_n are the clients.
        place = torch.zeros(len(gram), dtype=torch.float64)
        place[0] = 1.0
        for _ in range(self.num_iterations):
            distances = _distances(gram, place)
            bound = middle(distances) if self.max_norm is None else self.max_norm
            factors = clip_factors(distances, bound)
            place = place * (1 - pulls @ factors)
            place = torch.cat([place[:1], place[1:] + pulls * factors])

        update = weighted_combination(updates, place[1:])
        if start is not None:
            update.add_(start.to(update), alpha=float(place[0].detach()))
            if place.requires_grad:  # of which this adds the gradient, and nothing else
                update = update + (place[0] - place[0].detach()).to(update) * start.to(update)
        place = place.detach()
        influence = place[1:].to(believed.device)
        total = float(influence.sum())
        return Aggregate(
            update=update,
            shares=influence / total if total > 0 else believed.detach(),
            scores=_distances(gram.detach(), place).to(believed.device),
            diagnostics={
                "bound": float(bound.detach() if isinstance(bound, Tensor) else bound),
                "num_clipped": float((factors < 1).sum()),
            },
            state={"centre": update},
        )


def _gram_with_start(updates: Points, start: Vector | None) -> Tensor:
    """The Gram matrix `(1 + n, 1 + n)` of start and clients about a point from which their distances do not cancel."""
    if needs_gradient(updates, start):
        return _differentiable_gram(updates, start)
    return _gram_about(updates, start)[0]


def _differentiable_gram(updates: Points, start: Vector | None) -> Tensor:
    gram, medoid = _gram_about(updates.detach(), None if start is None else start.detach())
    centre = start if medoid is None else get_row(updates.detach(), medoid)
    origin = torch.zeros(updates.shape[1], dtype=updates.dtype, device=updates.device) if start is None else start
    about = pull_back_gram(None if centre is None else centre.detach())
    return with_gradient(lambda: gram, about, *parts_of(updates), origin)


def _gram_about(updates: Points, start: Vector | None) -> tuple[Tensor, int | None]:
    """The matrix, and which client it is about; `None`: the start."""
    gram = torch.zeros(1 + len(updates), 1 + len(updates), dtype=torch.float64)
    gram[1:, 1:] = gram_matrix(updates, centre=start)
    about: int | None = None
    for _ in range(_MAX_PASSES - 1):
        clients = gram[1:, 1:]
        medoid, squared_radius = medoid_and_squared_radius(clients)
        if squared_radius >= _TIGHT * float(clients.diagonal().median()):
            break
        # Moving the origin to the medoid m: ⟨p_0 - m, xᵢ - m⟩ needs no look at the data.
        to_start = gram[0] - gram[0, 1 + medoid] - gram[1 + medoid] + gram[1 + medoid, 1 + medoid]
        gram[0], gram[:, 0] = to_start, to_start
        gram[1:, 1:] = gram_matrix(updates, centre=get_row(updates, medoid))
        about = medoid
    return gram, about


def _distances(gram: Tensor, place: Tensor) -> Tensor:
    """The distances `(n,)` of the clients to the point Σ place_j p_j."""
    projected = gram @ place
    squared: Tensor = gram.diagonal() - 2 * projected + place @ projected
    squared = squared[1:].clamp_min(0)
    if squared.requires_grad:  # not the infinite gradient of a root at 0
        return squared.where(squared > 0, 1.0).sqrt().where(squared > 0, 0.0)
    return squared.sqrt()


def _differentiable_median(values: Tensor) -> Tensor:
    """`midpoint_median` as torch computes it."""
    ordered = values.sort().values
    return (ordered[(len(values) - 1) // 2] + ordered[len(values) // 2]) / 2
