"""A model as one flat vector, and what happens to its buffers.

Parameters travel as a `(d,)` vector in the order of `named_parameters()`. What is frozen (`requires_grad=False`) is no
part of it: nobody trains it, no attack or rule sees it, and it stays as it was built. Buffers (BatchNorm's running
statistics) are not parameters either: no attack scales them and no rule sees them. Floating ones are averaged over the
kept clients, all others (counters, masks of booleans, complex tables) are taken from the global model.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fedrobust.notices import notice
from fedrobust.types import Buffers, Updates, Vector, Weights


@dataclass(frozen=True)
class ParameterLayout:
    """Where each named parameter lies in the flat vector."""

    names: tuple[str, ...]
    shapes: tuple[torch.Size, ...]
    sizes: tuple[int, ...]

    @classmethod
    def of(cls, model: nn.Module) -> "ParameterLayout":
        """The layout of what of `model` is trained, in the order of `named_parameters()`."""
        named = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
        shapes = tuple(parameter.shape for _, parameter in named)
        return cls(tuple(name for name, _ in named), shapes, tuple(shape.numel() for shape in shapes))

    @property
    def num_parameters(self) -> int:
        """d, the length of the vector."""
        return sum(self.sizes)

    def flatten(self, model: nn.Module) -> Vector:
        """The parameters of `model` as a new `(d,)` float32 vector."""
        own = dict(model.named_parameters())
        return torch.cat([own[name].detach().reshape(-1).float() for name in self.names])

    def views(self, vector: Vector) -> dict[str, Tensor]:
        """The named parameters as views into `vector` `(d,)`: writing to one writes to the vector."""
        if vector.shape != (self.num_parameters,):
            raise ValueError(f"expected a vector of {self.num_parameters} parameters, got shape {tuple(vector.shape)}")
        parts = vector.split(list(self.sizes))
        return {name: part.view(shape) for name, shape, part in zip(self.names, self.shapes, parts, strict=True)}

    def stacked_views(self, matrix: Updates) -> dict[str, Tensor]:
        """The named parameters of k models as views `(k, *shape)` into `matrix` `(k, d)`."""
        parts = matrix.split(list(self.sizes), dim=1)
        return {
            name: part.unflatten(1, shape) if shape else part.squeeze(1)
            for name, shape, part in zip(self.names, self.shapes, parts, strict=True)
        }


def load_into(module: nn.Module, parameters: Mapping[str, Tensor], buffers: Buffers) -> None:
    """Copy parameters and buffers into `module` by name; what is not named, frozen parameters above all, stays."""
    own = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    with torch.no_grad():
        for name, values in {**parameters, **buffers}.items():
            write_values(own[name], values)


def write_values(target: Tensor, values: Tensor) -> None:
    """Copy `values` into `target`; an expanded tensor, which cannot be written to, gets storage of its own."""
    if any(step == 0 and size > 1 for size, step in zip(target.shape, target.stride(), strict=True)):
        target.data = values.clone()
    else:
        target.copy_(values)


def saved_tensors(model: nn.Module, parameters: Mapping[str, Tensor], buffers: Buffers) -> dict[str, Tensor]:
    """What `load_state_dict` of a model of this architecture takes: frozen parameters too, tied ones by each name.

    Args:
        model: gives the names, and what is frozen.
        parameters: the others, by name.
        buffers: by name.
    """
    known = {**parameters, **buffers}
    values = {id(own): known[name] for name, own in model.named_parameters() if name in known}
    values |= {id(own): known[name] for name, own in model.named_buffers() if name in known}
    return {name: values.get(id(own), own.detach()) for name, own in model.state_dict(keep_vars=True).items()}


def clone_buffers(model: nn.Module) -> Buffers:
    """The buffers of `model`, copied."""
    return {name: buffer.detach().clone() for name, buffer in model.named_buffers()}


def average_buffers(global_buffers: Buffers, client_buffers: Mapping[str, Tensor], shares: Weights) -> Buffers:
    """Average the clients' floating-point buffers by `shares`; what no client changed, and others, stay as they are.

    Args:
        global_buffers: the global model's buffers, by name.
        client_buffers: by name, the clients' buffers stacked `(n, *shape)`.
        shares: `(n,)`, summing to 1, zero for a client that was not kept (its buffers are not read). Where no client
            was kept, the buffers stay the global model's.
    """
    kept = (shares > 0).nonzero().squeeze(1)
    merged: Buffers = {}
    for name, current in global_buffers.items():
        if len(kept) and name in client_buffers and current.is_floating_point():
            stacked = client_buffers[name][kept.to(client_buffers[name].device)]
            if bool((stacked == current.to(stacked.device)).all()):
                merged[name] = current.clone()
                continue
            weights = shares[kept].to(device=stacked.device, dtype=stacked.dtype)
            merged[name] = torch.tensordot(weights / weights.sum(), stacked, dims=1).to(current.device)
        else:
            if len(kept) and name in client_buffers and not name.endswith("num_batches_tracked"):
                stacked = client_buffers[name][kept.to(client_buffers[name].device)]
                if bool((stacked != current.to(stacked.device)).any()):
                    kind = str(current.dtype).removeprefix("torch.")
                    notice(f"buffer {name!r} ({kind}) stays as the server has it, whatever clients make of it")
            merged[name] = current.clone()
    return merged
