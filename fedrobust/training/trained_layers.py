"""Which parameters local training changes: all of a model's, or those of its head."""

import functools

from torch import nn

from fedrobust.models.features import head_name
from fedrobust.training.local_training import LocalTraining


def trained_names(model: nn.Module, training: LocalTraining) -> tuple[str, ...]:
    """The names of the parameters that are trained, in the model's order; none that is frozen.

    Raises:
        ValueError: the head is to be trained, and the model has none, or it is frozen.
    """
    names = tuple(name for name, parameter in model.named_parameters() if parameter.requires_grad)
    if training.trained_layers == "all":
        return names
    head = _head_name(model)
    found = tuple(name for name in names if name.rpartition(".")[0] == head)
    if not found:
        raise ValueError(f"trained_layers=head: the model's head {head!r} is frozen")
    return found


_head_name = functools.lru_cache(maxsize=8)(head_name)  # finding it means tracing the model, which clients share
