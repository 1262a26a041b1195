"""How many clients to train together."""

import os

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves  # private, and what torch.func itself walks outputs with

# On a CPU more clients a step save calls until the gradient of one layer passes 32 MiB: from there on glibc returns it
# to the kernel after every step, and clearing the pages anew doubles the time of a step where they are not huge.
_CPU_MATRIX_BYTES = 24 * 2**20
_MEMORY_FRACTION = 0.5


def cohort_size(model: nn.Module, example: Tensor, batch_size: int, device: torch.device) -> int:
    """How many clients to train together, by the size of their matrix (CPU) and by free memory.

    Args:
        model: the model of one client.
        example: one input as the model sees it, `(1, ...)`.
        batch_size: examples in a client's step.
        device: where training runs.
    """
    num_parameters = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    activations = _count_activations(model, example) * batch_size
    # Parameters, gradient, momentum and one temporary; activations, their gradients and workspace.
    bytes_per_client = 4 * (4 * num_parameters + 4 * activations)
    by_memory = int(_free_bytes(device) * _MEMORY_FRACTION) // bytes_per_client
    if device.type == "cpu":
        by_memory = min(by_memory, max(8, _CPU_MATRIX_BYTES // (4 * num_parameters)))
    return max(1, by_memory)


def _free_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        # What torch's allocator keeps for reuse counts as free: else later rounds would form other cohorts than the
        # first, and a resumed run other cohorts than one that was never stopped.
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    if hasattr(os, "sysconf") and "SC_AVPHYS_PAGES" in os.sysconf_names:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return 2**31  # the system does not tell


def _count_activations(model: nn.Module, example: Tensor) -> int:
    """Numbers that the layers of `model` put out for one example."""
    total = 0

    def count(_module: nn.Module, _inputs: object, output: object) -> None:
        nonlocal total
        total += sum(one.numel() for one in tree_leaves(output) if isinstance(one, Tensor))

    leaves = [module for module in model.modules() if not list(module.children())]
    hooks = [leaf.register_forward_hook(count) for leaf in leaves]
    try:
        with torch.no_grad():
            model(example)
    finally:
        for hook in hooks:
            hook.remove()
    return total
