"""The gradient of each sample's loss by the parameters of a torch module."""

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor, nn

Loss: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""From outputs and targets of a batch to its mean loss."""


def module_gradients(
    module: nn.Module, loss: Loss, inputs: Tensor, targets: Tensor, *, chunk_size: int | None = None
) -> Tensor:
    """The gradient of each sample's loss, with `torch.func`.

    Args:
        module: maps `(b, ...)` inputs to outputs, each from its own input alone (no BatchNorm in training mode).
        loss: of a batch of one sample.
        inputs: `(n, ...)`.
        targets: `(n, ...)`.
        chunk_size: so many samples at a time, where memory is short.

    Returns:
        `(n, D)`: the parameters that require gradients, flattened in the module's order.
    """
    parameters = {name: value.detach() for name, value in module.named_parameters() if value.requires_grad}
    fixed = {name: value.detach() for name, value in module.named_parameters() if not value.requires_grad}
    fixed |= {name: value.detach() for name, value in module.named_buffers()}

    def one_loss(values: dict[str, Tensor], one_input: Tensor, target: Tensor) -> Tensor:
        output = torch.func.functional_call(module, (values, fixed), (one_input.unsqueeze(0),))
        return loss(output, target.unsqueeze(0))

    gradient = torch.func.vmap(torch.func.grad(one_loss), in_dims=(None, 0, 0), chunk_size=chunk_size)
    found = gradient(parameters, inputs, targets)
    return torch.cat([found[name].reshape(len(inputs), -1) for name in parameters], dim=1)
