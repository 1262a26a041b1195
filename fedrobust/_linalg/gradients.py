"""Gradients of what is not computed by torch's own operations: the same answer, and by hand how it is passed back."""

from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate, pairwise
from typing import Any

import torch
from torch import Tensor

from fedrobust._linalg.columns import CHUNK_SIZE, Points, Shards
from fedrobust.types import Vector

PullBack = Callable[..., Sequence[Tensor | None]]
"""From the gradient of the answer, and the inputs, to the gradients of the inputs."""


def needs_gradient(*inputs: Points | None) -> bool:
    """Whether one of the inputs requires a gradient, and gradients are wanted at all."""
    return torch.is_grad_enabled() and any(one is not None and one.requires_grad for one in inputs)


def parts_of(points: Points) -> tuple[Tensor, ...]:
    """The shards, or the one tensor."""
    return points.parts if isinstance(points, Shards) else (points,)


def with_gradient(compute: Callable[[], Tensor], pull_back: PullBack, *inputs: Tensor) -> Tensor:
    """What `compute` returns, as a differentiable function of `inputs`.

    Args:
        compute: makes the answer of the inputs, without gradients.
        pull_back: in torch's operations on its arguments, so that it can itself be differentiated.
        inputs: what may require gradients.
    """
    found: Tensor = _WithGradient.apply(compute, pull_back, *inputs)
    return found


class _WithGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, compute: Callable[[], Tensor], pull_back: PullBack, *inputs: Tensor) -> Tensor:
        ctx.pull_back = pull_back
        ctx.save_for_backward(*inputs)
        return compute()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        return None, None, *ctx.pull_back(gradients[0], *ctx.saved_tensors)


def pull_back_combination(gradient: Vector, *inputs: Tensor) -> list[Tensor | None]:
    """Of Σ wᵢxᵢ with respect to the parts of x, and to w: wᵢg, and ⟨xᵢ, g⟩."""
    *parts, weights = inputs
    pulled: list[Tensor | None] = []
    products = torch.zeros(len(weights), dtype=torch.float64, device=weights.device)
    for part, some in _beside(parts, gradient):
        precision = torch.promote_types(part.dtype, torch.float32)
        factors = weights.to(part.device, precision)
        pulled.append((factors[:, None] * some.to(precision)).to(part.dtype) if part.requires_grad else None)
        if weights.requires_grad:  # row by row: no copy of the part in float64
            wide = some.double()
            products = products + torch.stack([row.double() @ wide for row in part]).to(products.device)
    return [*pulled, products.to(weights.dtype) if weights.requires_grad else None]


def pull_back_ranks(first: int, last: int) -> PullBack:
    """Of the mean of order statistics first, ..., last - 1: their owners share the gradient; of equals, the first."""

    def pull_back(gradient: Vector, *parts: Tensor) -> list[Tensor]:
        return [_owners(part.detach(), first, last) * some for part, some in _beside(parts, gradient)]

    return pull_back


def _owners(part: Tensor, first: int, last: int) -> Tensor:
    shares = torch.zeros_like(part)
    for start in range(0, part.shape[1], CHUNK_SIZE):
        chunk = part[:, start : start + CHUNK_SIZE]
        order = chunk.to(torch.promote_types(part.dtype, torch.float32)).argsort(dim=0, stable=True)
        shares[:, start : start + CHUNK_SIZE].scatter_(0, order[first:last], 1 / (last - first))
    return shares


def pull_back_mixing(mixing: Tensor) -> PullBack:
    """Of A·X with respect to X: Aᵀg."""

    def pull_back(gradient: Tensor, part: Tensor) -> list[Tensor]:
        precision = torch.promote_types(part.dtype, torch.float32)
        return [(mixing.T.to(part.device, precision) @ gradient.to(precision)).to(part.dtype)]

    return pull_back


def pull_back_gram(centre: Vector | None) -> PullBack:
    """Of (P - c)(P - c)ᵀ, where p₀ is a start and the other rows are points, with respect to the points and the start.

    As far as what is computed of the matrix does not depend on c, which is taken as a constant.
    """

    def pull_back(gradient: Tensor, *inputs: Tensor) -> list[Tensor]:
        *parts, start = inputs
        both_ways = gradient + gradient.T
        origin = start.new_zeros(start.shape) if centre is None else centre
        pulled, of_start = [], []
        for part, about, begun in _beside(parts, origin, start):
            factors, columns = both_ways.to(part.device), []
            for low in range(0, part.shape[1], CHUNK_SIZE):
                some = slice(low, low + CHUNK_SIZE)
                rows = torch.cat([begun[None, some].double(), part[:, some].double()]) - about[some].double()
                columns.append(factors @ rows)
            whole = torch.cat(columns, dim=1)
            pulled.append(whole[1:].to(part.dtype))
            of_start.append(whole[0].to(start))
        return [*pulled, torch.cat(of_start)]

    return pull_back


def _beside(parts: Sequence[Tensor], *vectors: Vector) -> Iterator[tuple[Tensor, ...]]:
    """Each part with what belongs to its columns, on its device."""
    for part, (start, stop) in zip(
        parts, pairwise(accumulate((part.shape[1] for part in parts), initial=0)), strict=True
    ):
        yield part, *(vector[start:stop].to(part.device) for vector in vectors)
