"""A step of SGD on a small linear model, built by hand: nothing of the training loop is in it."""

from collections.abc import Callable

import torch
from torch import Tensor

from fedrobust.training.step import Batch, Parameters, Step


def by_autograd(objective: Callable[[Parameters], Tensor], at: Parameters) -> tuple[Parameters, Tensor]:
    variables = {name: values.detach().requires_grad_() for name, values in at.items()}
    value = objective(variables)
    return dict(zip(variables, torch.autograd.grad(value, list(variables.values())), strict=True)), value.detach()


def linear(parameters: Parameters, inputs: Tensor) -> Tensor:
    """Logits of three classes."""
    return inputs.flatten(1) @ parameters["weight"].T + parameters["bias"]


def random_model(seed: int, num_features: int = 12) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    weight, bias = torch.randn(3, num_features, generator=generator), torch.randn(3, generator=generator)
    return {"weight": weight, "bias": bias}


def make_step(batch: Batch, synthesised: tuple[Batch, ...] = (), seed: int = 0) -> Step:
    """One step of a random model that has moved away from the one it received."""
    parameters = random_model(seed, batch.inputs[0].numel())
    shares = torch.full((len(batch.labels),), 1 / len(batch.labels))
    return Step(
        parameters=parameters,
        received=random_model(seed + 1, batch.inputs[0].numel()),
        batch=batch,
        synthesised=synthesised,
        shares=shares,
        own_logits=lambda at: linear(at, batch.inputs),
        logits=linear,
        differentiate=by_autograd,
    )


def random_batch(size: int = 5, shape: tuple[int, ...] = (1, 3, 4), seed: int = 7) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    return Batch(torch.rand(size, *shape, generator=generator), torch.arange(size) % 3)
