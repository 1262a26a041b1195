"""Feature collision: a picture that looks like one example and that a model takes for another.

    p = argmin ‖f(x) - f(t)‖² / ‖f(t)‖² + β ‖x - b‖²  over x in [0, 1]

for features f, a target instance t and a base instance b.

Shafahi, Huang, Najibi, Suciu, Studer, Dumitras, Goldstein, "Poison Frogs! Targeted Clean-Label Poisoning Attacks on
Neural Networks", NeurIPS 2018, https://arxiv.org/abs/1804.00792
Departs: features are compared relative to the size of the target's, so that β means the same for every model; the
backward step has 2λβ where the paper has λβ, as the proximal map of this objective asks for; step sizes come from
backtracking, so that each step makes the objective better; results stay in [0, 1].
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from torch import Tensor

Features: TypeAlias = Callable[[Tensor], Tensor]
"""From raw inputs `(B, ...)` to features `(B, F)`, each row by itself; normalisation is its own affair."""

Solver: TypeAlias = Literal["forward_backward", "adam"]

_MAX_HALVINGS = 30


@dataclass(frozen=True, eq=False)
class Collision:
    """What came of it.

    Attributes:
        poisons: `(B, ...)`, in [0, 1].
        objectives: `(S + 1, B)`, of each poison at the start and after each step that was made.
        distances: `(B,)`, ‖f(p) - f(t)‖ / ‖f(t)‖ at the end.
    """

    poisons: Tensor
    objectives: Tensor
    distances: Tensor


def blend(bases: Tensor, targets: Tensor, opacity: float) -> Tensor:
    """The bases `(B, ...)` with the targets showing through: opacity * target + (1 - opacity) * base."""
    return opacity * targets + (1 - opacity) * bases


def feature_collision(
    features: Features,
    targets: Tensor,
    bases: Tensor,
    *,
    beta: float,
    num_steps: int,
    solver: Solver = "forward_backward",
    learning_rate: float = 0.01,
) -> Collision:
    """Poisons that collide with their targets in feature space, all at once, each starting from its base.

    Args:
        features: f, differentiable.
        targets: t, raw inputs in [0, 1], `(B, ...)`, or `(1, ...)` for all.
        bases: b, raw inputs in [0, 1], `(B, ...)`; not written to.
        beta: how much a poison must look like its base, for pixels in [0, 1] and relative feature distances.
        num_steps: at most this many steps; forward-backward splitting stops where no poison gets better.
        solver: forward-backward splitting with backtracking, or Adam with clipping after each step.
        learning_rate: of Adam alone, in pixels.

    Raises:
        ValueError: a target whose features are all zero.
    """
    with torch.no_grad():
        wanted = features(targets)
    scale = wanted.square().sum(dim=1)
    if not bool((scale > 0).all()):
        raise ValueError("the features of a target instance are all zero: nothing can collide with it")
    objective = _Objective(features, wanted, scale, bases, beta)
    if solver == "adam":
        poisons, history = _adam(objective, num_steps, learning_rate)
    else:
        poisons, history = _forward_backward(objective, num_steps)
    with torch.no_grad():
        return Collision(poisons, torch.stack(history), objective.collision(poisons).sqrt())


@dataclass(frozen=True, eq=False)
class _Objective:
    features: Features
    wanted: Tensor
    scale: Tensor
    bases: Tensor
    beta: float

    def collision(self, inputs: Tensor) -> Tensor:
        """The feature term of each input, `(B,)`."""
        return (self.features(inputs) - self.wanted).square().sum(dim=1) / self.scale

    def resemblance(self, inputs: Tensor) -> Tensor:
        """The image term of each input, `(B,)`."""
        return self.beta * _squared_norms(inputs - self.bases)

    def slope(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """The feature term of each input, and its gradient."""
        inputs = inputs.detach().requires_grad_()
        values = self.collision(inputs)
        (gradient,) = torch.autograd.grad(values.sum(), inputs)
        return values.detach(), gradient


def _forward_backward(objective: _Objective, num_steps: int) -> tuple[Tensor, list[Tensor]]:
    """Goldstein, Studer, Baraniuk, "A field guide to forward-backward splitting", 2014, https://arxiv.org/abs/1411.3406

    A gradient step on the feature term, then the proximal map of the image term; a step size of its own for each
    poison, halved until the quadratic model holds and the objective is smaller, doubled after each step.
    """
    bases, beta = objective.bases, objective.beta
    current = bases.clone()
    step_sizes = torch.ones(len(bases), *[1] * (bases.ndim - 1)).to(bases)
    with torch.no_grad():
        history = [objective.collision(current) + objective.resemblance(current)]
    finished = torch.zeros(len(bases), dtype=torch.bool, device=bases.device)
    for _ in range(num_steps):
        values, gradient = objective.slope(current)
        accepted = torch.zeros_like(finished)
        following, reached = current, history[-1]
        with torch.no_grad():
            for _ in range(_MAX_HALVINGS):
                forward = current - step_sizes * gradient
                candidates = ((forward + 2 * step_sizes * beta * bases) / (1 + 2 * step_sizes * beta)).clamp(0, 1)
                moved = candidates - current
                new_values = objective.collision(candidates)
                model = (
                    values + (gradient * moved).flatten(1).sum(dim=1) + _squared_norms(moved / step_sizes.sqrt()) / 2
                )
                totals = new_values + objective.resemblance(candidates)
                better = (new_values <= model) & (totals < history[-1]) & ~accepted & ~finished
                following = torch.where(_like(better, current), candidates, following)
                reached = torch.where(better, totals, reached)
                accepted = accepted | better
                if bool((accepted | finished).all()):
                    break
                step_sizes = torch.where(_like(accepted, current), step_sizes, step_sizes / 2)
        finished = ~accepted  # no step from where they are makes these any better
        if bool(finished.all()):
            break
        current, step_sizes = following, step_sizes * 2
        history.append(reached)
    return current, history


def _adam(objective: _Objective, num_steps: int, learning_rate: float) -> tuple[Tensor, list[Tensor]]:
    current = objective.bases.clone().requires_grad_()
    optimizer = torch.optim.Adam([current], lr=learning_rate)
    history = []
    for _ in range(num_steps):
        totals = objective.collision(current) + objective.resemblance(current)
        history.append(totals.detach())
        (current.grad,) = torch.autograd.grad(totals.sum(), current)
        optimizer.step()
        with torch.no_grad():
            current.clamp_(0, 1)
    with torch.no_grad():
        history.append(objective.collision(current) + objective.resemblance(current))
    return current.detach(), history


def _squared_norms(rows: Tensor) -> Tensor:
    return rows.square().flatten(1).sum(dim=1)


def _like(flags: Tensor, rows: Tensor) -> Tensor:
    return flags.view(-1, *[1] * (rows.ndim - 1))
