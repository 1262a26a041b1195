"""Gradient descent whose steps go along a robust mean of the samples' gradients.

Prasad, Suggala, Balakrishnan and Ravikumar, "Robust Estimation via Robust Gradient Estimation", JRSS B 2020,
https://arxiv.org/abs/1802.06485
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from fedrobust._linalg.samples import Array, as_samples
from fedrobust.aggregators.base import RoundContext, call_rule
from fedrobust.filters.results import Estimate, Iteration
from fedrobust.seeds import torch_generator

GradientRule: TypeAlias = Callable[..., Any]
"""An aggregation rule, which takes gradients and `weights`, or a mean estimator, which takes gradients."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Descent(Estimate):
    """Where gradient descent ended.

    Attributes:
        parameters: `(d,)`, in the kind and precision of the start.
        converged: the last robust gradient was no longer than the tolerance.
        iterations: each step's `statistic` is the length of the robust gradient, `removed` the gradients that a rule
            which weighs them gave no share.
    """

    parameters: Array
    converged: bool


def robust_gradient_descent(
    loss_or_gradients: Callable[..., Any],
    start: Array,
    data: Sequence[Array] | None = None,
    *,
    rule: GradientRule,
    learning_rate: float,
    num_steps: int,
    tolerance: float = 0.0,
    batch_size: int = 1,
    seed: int = 0,
) -> Descent:
    """Repeat θ ← θ - η·rule(g₁(θ), …, gₙ(θ)).

    Formula: gᵢ is the gradient of sample i's loss, or of the mean loss of the i-th of ⌈n/b⌉ batches of b samples, drawn
        anew each step.
    Bound: if the rule's error is at most α‖θ - θ*‖ + β, with α below the loss's strong convexity, the distance to the
        optimum shrinks by a constant factor a step, down to O(β).
    Source: Prasad et al., JRSS B 2020, https://arxiv.org/abs/1802.06485
    Departs: any rule; the same samples serve every step, where the paper's analysis splits them.

    Args:
        loss_or_gradients: with `data`, the loss of one sample, `(parameters (d,), *sample) -> scalar` in torch; else
            `parameters (d,) -> (n, d)` gradients, which sees and gives the kind of `start`.
        start: `(d,)`, the first parameters.
        data: arrays with a row for each sample.
        rule: an aggregation rule of `fedrobust.aggregators`, also one with a memory, which gets the batches' sizes as
            weights; or a function of the `(n, d)` gradients alone (of the kind of `start`) that gives a result with a
            `mean`, or the mean.
        learning_rate: η.
        num_steps: steps at most.
        tolerance: end when the robust gradient is no longer than this.
        batch_size: b, samples whose gradients are averaged before the rule sees them; the last batch may be smaller.
        seed: of the batches, and of rules that draw.

    Raises:
        ValueError: a parameter out of range; a start, data or gradients of the wrong shape, or with NaN or infinity; a
            descent that diverges.
    """
    if not learning_rate > 0:
        raise ValueError(f"learning_rate must be positive, got {learning_rate!r}")
    for name, value in (("num_steps", num_steps), ("batch_size", batch_size)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value!r}")
    if not tolerance >= 0:
        raise ValueError(f"tolerance must not be negative, got {tolerance!r}")
    samples = as_samples(start, name="start", num_dimensions=1)
    gradients_at = _gradient_function(loss_or_gradients, data, samples.points, samples.restore)
    parameters = samples.points.clone()
    is_rule = "weights" in inspect.signature(rule).parameters
    state: Mapping[str, Tensor] = {}
    steps: list[Iteration] = []
    converged = False
    for number in range(1, num_steps + 1):
        gradients = gradients_at(parameters)
        if not bool(gradients.isfinite().all()):
            raise ValueError(
                f"gradients at step {number} hold NaN or infinity; learning_rate {learning_rate} too large?"
            )
        batches, sizes = _batch_means(gradients, batch_size, seed, number)
        if is_rule:
            weights = None if sizes is None else sizes / sizes.sum()
            context = RoundContext(round_number=number, seed=seed, state=state)
            aggregate = call_rule(rule, batches, weights, context)
            state, direction, shares = aggregate.state, aggregate.update, aggregate.shares
        else:
            answer = rule(samples.restore(batches))
            is_mean = isinstance(answer, Tensor | np.ndarray)
            direction, shares = (answer, None) if is_mean else (answer.mean, getattr(answer, "weights", None))
        step = torch.as_tensor(direction, dtype=parameters.dtype, device=parameters.device)
        length = float(step.norm())
        steps.append(Iteration(statistic=length, threshold=tolerance or None, removed=_without_share(shares)))
        if length <= tolerance:
            converged = True
            break
        parameters = parameters - learning_rate * step
    return Descent(
        method=f"gradient descent with {getattr(rule, '__name__', type(rule).__name__)}",
        iterations=tuple(steps),
        details={"num_steps": float(len(steps)), "last_gradient_length": steps[-1].statistic},
        parameters=samples.restore(parameters),
        converged=converged,
    )


def _gradient_function(
    loss_or_gradients: Callable[..., Any],
    data: Sequence[Array] | None,
    start: Tensor,
    restore: Callable[[Tensor], Array],
) -> Callable[[Tensor], Tensor]:
    if data is None:

        def given(parameters: Tensor) -> Tensor:
            found = torch.as_tensor(loss_or_gradients(restore(parameters)), dtype=start.dtype, device=start.device)
            if found.ndim != 2 or found.shape[1] != len(start) or len(found) == 0:
                raise ValueError(f"gradients must have shape (n, {len(start)}), got {tuple(found.shape)}")
            return found

        return given
    tensors = [torch.as_tensor(one, device=start.device) for one in data]
    lengths = [len(one) if one.ndim else 0 for one in tensors]
    if not tensors or min(lengths) == 0 or len(set(lengths)) > 1:
        raise ValueError(f"data must be arrays with as many rows each, at least one, got {lengths} rows")
    for number, one in enumerate(tensors):
        if one.is_floating_point() and not bool(one.isfinite().all()):
            raise ValueError(f"data must be finite, array {number} holds NaN or infinity")
    tensors = [one.to(start.dtype) if one.is_floating_point() else one for one in tensors]
    per_sample = torch.func.vmap(torch.func.grad(loss_or_gradients), in_dims=(None,) + (0,) * len(tensors))

    def computed(parameters: Tensor) -> Tensor:
        found: Tensor = per_sample(parameters, *tensors)
        return found.detach()

    return computed


def _batch_means(gradients: Tensor, batch_size: int, seed: int, step: int) -> tuple[Tensor, Tensor | None]:
    """The mean gradient of each batch, and the batches' sizes (`None`: all 1)."""
    if batch_size == 1:
        return gradients, None
    order = torch.randperm(len(gradients), generator=torch_generator(seed, "gradient batches", step))
    parts = gradients[order.to(gradients.device)].split(batch_size)
    sizes = torch.tensor([len(one) for one in parts], dtype=torch.float64, device=gradients.device)
    return torch.stack([one.mean(dim=0) for one in parts]), sizes


def _without_share(shares: Any) -> float:
    return 0.0 if shares is None else float((shares == 0).sum())
