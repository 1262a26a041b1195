"""The batches of a cohort: one tensor a step for all clients, short batches padded and given no weight."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from fedrobust.data.datasets import Dataset, Examples
from fedrobust.training.loop import ClientJob, model_inputs

Synthesised: TypeAlias = tuple[tuple[Tensor, Tensor], ...]
"""Inputs `(k, batch, ...)` as the model sees them, and labels `(k, batch)`."""


@dataclass(frozen=True)
class CohortBatch:
    """One step's batches of the k clients that still train.

    Attributes:
        inputs: `(k, batch, ...)` as the model sees them.
        labels: `(k, batch)`.
        shares: `(k, batch)`, each example's share in its client's mean loss; zero where a batch is padded.
        counts: `(k,)`, examples that count, as a float.
        synthesised: inputs and labels of the further batches that an attack on the objective asks for.
    """

    inputs: Tensor
    labels: Tensor
    shares: Tensor
    counts: Tensor
    synthesised: Synthesised = ()


class CohortBatches:
    """The batches of all clients, step by step.

    Most clients read the data set's own tensors, where they are; those with examples of their own (poisoned copies)
    read from one pool of these, which is small.
    """

    def __init__(self, jobs: Sequence[ClientJob], dataset: Dataset, device: torch.device) -> None:
        """Plan the batches of `jobs`, which are sorted by falling number of steps and share a batch size."""
        self.jobs, self.dataset, self.attack = jobs, dataset, jobs[0].program.loss
        self.own_rows = [row for row, job in enumerate(jobs) if job.examples is not dataset.train]
        own = [jobs[row].examples for row in self.own_rows]
        # Step by step, not client by client, so that a step's indices lie side by side.
        plan = torch.full((jobs[0].num_steps, len(jobs), jobs[0].batches.shape[1]), -1, dtype=torch.int64)
        for row, job in enumerate(jobs):
            plan[: job.num_steps, row] = job.batches
        valid = plan >= 0
        counts = valid.sum(dim=2)
        # Padding repeats the first example of its own batch: what is multiplied by zero must not be another client's.
        plan = torch.where(valid, plan, plan[:, :, :1].clamp_min(0))
        starts = torch.tensor([0, *(len(examples) for examples in own)])[: len(own)].cumsum(0)
        own_plan = plan[:, self.own_rows] + starts.view(1, -1, 1)
        plan[:, self.own_rows] = 0
        self.plan, self.own_plan = plan.to(device), own_plan.to(device)
        self.labels = dataset.train.labels[self.plan]
        if own:
            self.own_inputs = torch.cat([examples.inputs for examples in own])
            self.labels[:, self.own_rows] = torch.cat([examples.labels for examples in own])[self.own_plan]
        self.shares = (valid / counts.clamp_min(1).unsqueeze(2)).to(device)
        self.counts = counts.to(device, torch.float32)
        self.num_seen = self.counts.sum(dim=0)
        self.host_counts: list[list[int]] = counts.tolist()  # kept here, so that a hook does not wait for the device
        self.num_active = [sum(job.num_steps > step for job in jobs) for step in range(len(plan))]
        self.draws = _stack_draws(jobs, tuple(plan.shape), device)

    def at(self, step: int) -> CohortBatch:
        """The batches of one step; the inputs are fresh copies."""
        active = self.num_active[step]
        inputs, labels = _gather(self.dataset.train.inputs, self.plan[step, :active]), self.labels[step, :active]
        own_rows = [row for row in self.own_rows if row < active]
        if own_rows:
            inputs[own_rows] = _gather(self.own_inputs, self.own_plan[step, : len(own_rows)])
        for row, job in enumerate(self.jobs[:active]):
            if job.poison_batch is not None:
                count = self.host_counts[step][row]
                poisoned = job.poison_batch(Examples(inputs[row, :count], labels[row, :count]))
                inputs[row, :count], labels[row, :count] = poisoned.inputs, poisoned.labels
        draws = None if self.draws is None else self.draws[step, :active].flatten(0, 1)
        seen = model_inputs(self.dataset, inputs.flatten(0, 1), draws).unflatten(0, labels.shape)
        synthesised: Synthesised = ()
        if self.attack is not None:
            made = self.attack.synthesise(Examples(inputs.flatten(0, 1), labels.flatten()))
            synthesised = tuple(
                (
                    model_inputs(self.dataset, one.inputs, draws).unflatten(0, labels.shape),
                    one.labels.view(labels.shape),
                )
                for one in made
            )
        return CohortBatch(seen, labels, self.shares[step, :active], self.counts[step, :active], synthesised)


def _gather(inputs: Tensor, indices: Tensor) -> Tensor:
    """`inputs[indices]`, by the faster call."""
    return inputs.index_select(0, indices.flatten()).view(*indices.shape, *inputs.shape[1:])


def _stack_draws(jobs: Sequence[ClientJob], shape: tuple[int, ...], device: torch.device) -> Tensor | None:
    """The jobs' augmentation draws, `(steps, k, batch, 3)`; those of steps that a client does not take are not used."""
    if jobs[0].augmentations is None:
        return None
    draws = torch.zeros(*shape, 3, dtype=torch.int64)
    for row, job in enumerate(jobs):
        if job.augmentations is not None:
            draws[: job.num_steps, row] = job.augmentations
    return draws.to(device)
