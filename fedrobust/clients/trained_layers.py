"""Which parameters local training changes: all of a model's, or those of its head."""

import functools

from torch import nn

from fedrobust.clients.local_training import LocalTraining
from fedrobust.models.features import head_name


def trained_names(model: nn.Module, training: LocalTraining) -> tuple[str, ...]:
    """The names of the parameters that are trained, in the model's order.

    Raises:
        ValueError: the head is to be trained, and the model has none.
    """
    names = tuple(name for name, _ in model.named_parameters())
    if training.trained_layers == "all":
        return names
    head = _head_name(model)
    return tuple(name for name in names if name.rpartition(".")[0] == head)


_head_name = functools.lru_cache(maxsize=8)(head_name)  # finding it means tracing the model, which clients share
