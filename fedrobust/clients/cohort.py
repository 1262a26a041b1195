"""Cohorts: clients that share one training programme, trained together.

Their parameters are the rows of one `(k, d)` matrix, which is trained in place and, once the global model has been
subtracted, is the matrix of their updates. One step of all clients is one `torch.func.vmap` of one client's gradient;
clients with fewer steps drop out at the end, short batches are masked.
"""

import os
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, vmap

from fedrobust.clients.training import ClientJob, model_inputs
from fedrobust.data.datasets import Dataset, Examples
from fedrobust.parameters import ParameterLayout
from fedrobust.types import Buffers, Updates

# On a CPU a cohort pays by saving calls, and loses as soon as its parameters and gradients leave the cache.
_CPU_CACHE_BYTES = 16 * 2**20


def train_cohort(
    matrix: Updates,
    jobs: Sequence[ClientJob],
    buffers: Buffers,
    model: nn.Module,
    layout: ParameterLayout,
    dataset: Dataset,
) -> list[float]:
    """Train k clients together; the same result as one by one.

    Args:
        matrix: `(k, d)`, row i holds the global model on entry and client i's model on return.
        jobs: k jobs that share one programme, those with more steps first.
        buffers: the model's buffers, read only (models that keep statistics are trained one by one).
        model: gives the forward pass of one client.
        layout: where each parameter lies in a row.
        dataset: gives augmentation and normalisation.

    Returns:
        Each client's mean classification loss over the examples it saw.

    Raises:
        ValueError: jobs with different programmes, or not sorted by their number of steps.
    """
    program = jobs[0].program
    steps = [job.num_steps for job in jobs]
    if any(job.program != program for job in jobs) or steps != sorted(steps, reverse=True):
        raise ValueError("a cohort shares one training programme, and its longest jobs come first")
    training, attacked_loss = program.training, program.loss
    received = [view[0].clone() for view in layout.stacked_views(matrix).values()] if attacked_loss else []

    def loss_of_one(
        parameters: dict[str, Tensor], inputs: Tensor, labels: Tensor, valid: Tensor
    ) -> tuple[Tensor, Tensor]:
        logits = functional_call(model, {**parameters, **buffers}, (inputs,))
        losses = F.cross_entropy(logits, labels, reduction="none")
        class_loss = (losses * valid).sum() / valid.sum()
        if attacked_loss is None:
            return class_loss, class_loss
        return attacked_loss(class_loss, list(parameters.values()), received), class_loss

    gradients_of_all = vmap(grad_and_value(loss_of_one, has_aux=True))
    parameters = layout.stacked_views(matrix)
    velocities = layout.stacked_views(torch.zeros_like(matrix)) if training.momentum else {}
    batches = _Batches(jobs, dataset, matrix.device)
    totals, seen = matrix.new_zeros(len(jobs)), matrix.new_zeros(len(jobs))
    model.train()
    for step in range(steps[0]):
        active = sum(count > step for count in steps)
        inputs, labels, valid = batches.at(step, active)
        current = {name: view[:active] for name, view in parameters.items()}
        gradients, (_, class_losses) = gradients_of_all(current, inputs, labels, valid)
        with torch.no_grad():
            for name, view in current.items():
                direction = gradients[name]
                if training.weight_decay:
                    direction = direction.add(view, alpha=training.weight_decay)
                if training.momentum:
                    direction = velocities[name][:active].mul_(training.momentum).add_(direction)
                view.sub_(direction, alpha=training.learning_rate)
            counts = valid.sum(dim=1)
            totals[:active] += class_losses * counts
            seen[:active] += counts
    return (totals / seen.clamp_min(1)).tolist()


class _Batches:
    """The batches of all clients, step by step, gathered from as few tensors as possible."""

    def __init__(self, jobs: Sequence[ClientJob], dataset: Dataset, device: torch.device) -> None:
        self.jobs, self.dataset = jobs, dataset
        sources: dict[int, int] = {}
        inputs, labels, offset = [], [], 0
        plan = torch.full((len(jobs), jobs[0].num_steps, jobs[0].batches.shape[1]), -1, dtype=torch.int64)
        for row, job in enumerate(jobs):
            key = id(job.examples)
            if key not in sources:
                sources[key] = offset
                inputs.append(job.examples.inputs)
                labels.append(job.examples.labels)
                offset += len(job.examples)
            shifted = torch.where(job.batches >= 0, job.batches.cpu() + sources[key], -1)
            plan[row, : job.num_steps] = shifted
        # One source (the shared data set) is used where it is; poisoned copies are small and joined once.
        self.inputs = inputs[0] if len(inputs) == 1 else torch.cat(inputs)
        self.labels = labels[0] if len(labels) == 1 else torch.cat(labels)
        self.plan = plan.to(device)
        self.hooked = any(job.poison_batch is not None for job in jobs)

    def at(self, step: int, active: int) -> tuple[Tensor, Tensor, Tensor]:
        """Inputs `(active, batch, ...)` as the model sees them, labels and validity `(active, batch)`."""
        indices = self.plan[:active, step]
        valid = indices >= 0
        indices = indices.clamp_min(0)
        inputs, labels = self.inputs[indices], self.labels[indices]
        if self.hooked:
            inputs, labels = inputs.clone(), labels.clone()
            for row, job in enumerate(self.jobs[:active]):
                if job.poison_batch is not None:
                    count = int(valid[row].sum())
                    poisoned = job.poison_batch(Examples(inputs[row, :count], labels[row, :count]))
                    inputs[row, :count], labels[row, :count] = poisoned.inputs, poisoned.labels
        draws = self._draws(step, active)
        flat = model_inputs(self.dataset, inputs.flatten(0, 1), None if draws is None else draws.flatten(0, 1))
        return flat.unflatten(0, indices.shape), labels, valid.to(flat.dtype)

    def _draws(self, step: int, active: int) -> Tensor | None:
        rows = [job.augmentations[step] for job in self.jobs[:active] if job.augmentations is not None]
        return torch.stack(rows) if rows else None


def cohort_size(model: nn.Module, example: Tensor, batch_size: int, device: torch.device) -> int:
    """How many clients to train together, by cache (CPU) or free memory (GPU).

    Args:
        model: the model of one client.
        example: one input as the model sees it, `(1, ...)`.
        batch_size: examples in a client's step.
        device: where training runs.
    """
    num_parameters = sum(parameter.numel() for parameter in model.parameters())
    activations = _count_activations(model, example) * batch_size
    # Parameters, gradient, momentum and one temporary; activations, their gradients and workspace.
    bytes_per_client = 4 * (4 * num_parameters + 4 * activations)
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return max(1, int(free * 0.5) // bytes_per_client)
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 2**31
    by_cache = max(8, _CPU_CACHE_BYTES // (12 * num_parameters))
    return max(1, min(by_cache, int(free * 0.5) // bytes_per_client))


def _count_activations(model: nn.Module, example: Tensor) -> int:
    """Numbers that the layers of `model` put out for one example."""
    total = 0

    def count(_module: nn.Module, _inputs: object, output: Tensor) -> None:
        nonlocal total
        total += output.numel()

    leaves = [module for module in model.modules() if not list(module.children())]
    hooks = [leaf.register_forward_hook(count) for leaf in leaves]
    try:
        with torch.no_grad():
            model(example)
    finally:
        for hook in hooks:
            hook.remove()
    return total
