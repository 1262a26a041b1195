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

from fedrobust.data.datasets import Dataset
from fedrobust.parameters import ParameterLayout
from fedrobust.training.attacked_step import gradient_of_row
from fedrobust.training.cohort_batches import CohortBatches, Synthesised
from fedrobust.training.loop import ClientJob
from fedrobust.training.step import Batch, Descent, Parameters
from fedrobust.training.trained_layers import trained_names
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
    training, attack = program.training, program.loss
    received = {} if attack is None else layout.views(matrix[0].clone())
    names = trained_names(model, training)
    # The same for all clients: features that stay as they are need no copy for each, and no gradient.
    frozen = {name: view.clone() for name, view in layout.views(matrix[0]).items() if name not in names}

    state = {**frozen, **buffers}

    def gradient_of_one(
        trained: dict[str, Tensor],
        inputs: Tensor,
        labels: Tensor,
        shares: Tensor,
        synthesised: Synthesised,
        memory: Parameters,
    ) -> Descent:
        if attack is not None:
            made = tuple(Batch(*one) for one in synthesised)
            own_batch = Batch(inputs, labels)
            return gradient_of_row(attack, model, state, received, trained, own_batch, shares, made, memory)

        def class_loss(parameters: dict[str, Tensor]) -> Tensor:
            logits = functional_call(model, {**parameters, **state}, (inputs,))
            return F.cross_entropy(logits, labels, reduction="none").dot(shares)

        return Descent(*grad_and_value(class_loss)(trained), {})

    # The gradient inside vmap, not vmap inside autograd: only so do gradients come out laid out as the parameters are,
    # and a step of the widest layers is not spent on walking across them.
    gradients_of_all = vmap(gradient_of_one)
    parameters = {name: view for name, view in layout.stacked_views(matrix).items() if name in names}
    velocities = layout.stacked_views(torch.zeros_like(matrix)) if training.momentum else {}
    rates = _stack_rates(jobs, matrix) if training.learning_rate_milestones else None
    batches = CohortBatches(jobs, dataset, matrix.device)
    memory: Parameters = {}  # of an attack on the objective
    totals = matrix.new_zeros(len(jobs))
    model.train(training.trained_layers == "all")
    for step in range(steps[0]):
        batch = batches.at(step)
        active = len(batch.labels)
        current = {name: view[:active] for name, view in parameters.items()}
        memory = {name: values[:active] for name, values in memory.items()}
        gradients, class_losses, memory = gradients_of_all(
            current, batch.inputs, batch.labels, batch.shares, batch.synthesised, memory
        )
        with torch.no_grad():
            for name, view in current.items():
                direction = gradients[name]
                if training.weight_decay:
                    direction = direction.add_(view, alpha=training.weight_decay)
                if training.momentum:
                    direction = velocities[name][:active].mul_(training.momentum).add_(direction)
                if rates is None:
                    view.sub_(direction, alpha=training.learning_rate)
                else:  # clients are in different epochs
                    own_rates = rates[step, :active].view(-1, *[1] * (view.ndim - 1))
                    view.addcmul_(direction, own_rates, value=-1.0)
            totals[:active].addcmul_(class_losses, batch.counts)
    return (totals / batches.num_seen.clamp_min(1)).tolist()


def _stack_rates(jobs: Sequence[ClientJob], matrix: Updates) -> Tensor:
    """Learning rates `(steps, k)`; those of steps that a client does not take are not used."""
    rates = torch.zeros(jobs[0].num_steps, len(jobs))
    for row, job in enumerate(jobs):
        rates[: job.num_steps, row] = torch.tensor(job.learning_rates)
    return rates.to(matrix)
