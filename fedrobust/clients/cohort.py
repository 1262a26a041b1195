"""Cohorts: clients that share one training programme, trained together.

Their parameters are the rows of one `(k, d)` matrix, which is trained in place and, once the global model has been
subtracted, is the matrix of their updates. One step of all clients is one `torch.func.vmap` of one client's gradient;
clients with fewer steps drop out at the end, short batches are masked.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, vmap

from fedrobust.clients.cohort_batches import CohortBatches
from fedrobust.clients.training import ClientJob
from fedrobust.data.datasets import Dataset
from fedrobust.parameters import ParameterLayout
from fedrobust.types import Buffers, Updates


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
    received = list(layout.views(matrix[0].clone()).values()) if attacked_loss is not None else []

    def loss_of_one(
        parameters: dict[str, Tensor], inputs: Tensor, labels: Tensor, shares: Tensor
    ) -> tuple[Tensor, Tensor]:
        logits = functional_call(model, {**parameters, **buffers}, (inputs,))
        class_loss = F.cross_entropy(logits, labels, reduction="none").dot(shares)
        if attacked_loss is None:
            return class_loss, class_loss
        return attacked_loss(class_loss, list(parameters.values()), received), class_loss

    # The gradient inside vmap, not vmap inside autograd: only so do gradients come out laid out as the parameters are,
    # and a step of the widest layers is not spent on walking across them.
    gradients_of_all = vmap(grad_and_value(loss_of_one, has_aux=True))
    parameters = layout.stacked_views(matrix)
    velocities = layout.stacked_views(torch.zeros_like(matrix)) if training.momentum else {}
    batches = CohortBatches(jobs, dataset, matrix.device)
    totals = matrix.new_zeros(len(jobs))
    model.train()
    for step in range(steps[0]):
        batch = batches.at(step)
        active = len(batch.labels)
        current = {name: view[:active] for name, view in parameters.items()}
        gradients, (_, class_losses) = gradients_of_all(current, batch.inputs, batch.labels, batch.shares)
        with torch.no_grad():
            for name, view in current.items():
                direction = gradients[name]
                if training.weight_decay:
                    direction = direction.add_(view, alpha=training.weight_decay)
                if training.momentum:
                    direction = velocities[name][:active].mul_(training.momentum).add_(direction)
                view.sub_(direction, alpha=training.learning_rate)
            totals[:active].addcmul_(class_losses, batch.counts)
    return (totals / batches.num_seen.clamp_min(1)).tolist()
