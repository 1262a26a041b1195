"""The clients of a scenario, benign and malicious, and their training in a round.

A node hosts some of them and trains those that a message names. Nothing here is remembered between rounds: what a
client does follows from (seed, round, client) and the model it receives, so any process can play any client.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby

import torch
from torch import Tensor, nn

from fedrobust.attacks.base import DataAttack
from fedrobust.attacks.scenario import Adversary
from fedrobust.clients.cohort import train_cohort
from fedrobust.clients.cohort_size import cohort_size
from fedrobust.clients.local_training import LocalTraining
from fedrobust.clients.training import ClientJob, TrainingProgram, model_inputs, plan_batches, train_alone
from fedrobust.data.datasets import Dataset, Examples
from fedrobust.parameters import ParameterLayout
from fedrobust.seeds import torch_generator
from fedrobust.types import Buffers, Updates, Vector


@dataclass(frozen=True)
class TrainedClients:
    """What k clients send back.

    Attributes:
        clients: their ids, ascending.
        updates: `(k, d)`, client minus global.
        num_examples: `(k,)` int64, as the clients state it.
        losses: `(k,)`, mean classification loss in training.
        buffers: by name, stacked `(k, *shape)`.
        seconds: wall time of their training.
    """

    clients: tuple[int, ...]
    updates: Updates
    num_examples: Tensor
    losses: Tensor
    buffers: dict[str, Tensor]
    seconds: float


@dataclass(frozen=True)
class Population:
    """All clients of a scenario.

    Attributes:
        dataset: on the training device.
        assignment: per client, its indices into the training examples.
        adversary: who attacks, when and how.
        training: the benign programme.
        model: gives the forward pass; its parameters are not used.
        can_vectorize: whether the model is a pure function of parameters and inputs (no statistics in buffers).
        has_convolutions: grouped convolutions are slow on a CPU, so `auto` trains such models one by one there.
        seed: the scenario's.
    """

    dataset: Dataset
    assignment: tuple[Tensor, ...]
    adversary: Adversary
    training: LocalTraining
    model: nn.Module
    can_vectorize: bool
    has_convolutions: bool
    seed: int

    def train(self, round_number: int, clients: Sequence[int], vector: Vector, buffers: Buffers) -> TrainedClients:
        """Train `clients` from the global model `vector` `(d,)` and `buffers`.

        Raises:
            ValueError: a client id that the scenario does not have.
        """
        start = time.perf_counter()
        wrong = [client for client in clients if not 0 <= client < len(self.assignment)]
        if wrong:
            raise ValueError(f"clients must be in 0..{len(self.assignment) - 1}, got {wrong}")
        ids = tuple(sorted(clients))
        layout = ParameterLayout.of(self.model)
        jobs = [self._job(round_number, client) for client in ids]
        matrix = vector.expand(len(ids), -1).clone()
        losses = torch.zeros(len(ids))
        stacked = {name: buffer.expand(len(ids), *buffer.shape).clone() for name, buffer in buffers.items()}
        if self._vectorize():
            order = _training_order(jobs)
            for rows in self._cohorts([jobs[index] for index in order]):
                cohort = [jobs[order[row]] for row in rows]
                block = matrix[rows.start : rows.stop]
                block_losses = train_cohort(block, cohort, buffers, self.model, layout, self.dataset)
                losses[rows.start : rows.stop] = torch.tensor(block_losses)
            if order != list(range(len(ids))):  # cohorts were trained as blocks: put the rows back in the order of ids
                back = torch.tensor(order).argsort()
                matrix, losses = matrix[back.to(matrix.device)], losses[back]
        else:
            for row, job in enumerate(jobs):
                own = {name: values[row] for name, values in stacked.items()}
                losses[row] = train_alone(matrix[row], own, job, self.model, layout, self.dataset)
        matrix.sub_(vector)
        num_examples = torch.tensor([len(self.assignment[client]) for client in ids])
        return TrainedClients(ids, matrix, num_examples, losses, stacked, time.perf_counter() - start)

    def _job(self, round_number: int, client: int) -> ClientJob:
        """What `client` does in this round: the benign programme, or its attack."""
        indices, examples = self.assignment[client], self.dataset.train
        program, hook = TrainingProgram(self.training), None
        if client in self.adversary.attackers(round_number):
            attack, rank = self.adversary.attack, self.adversary.rank(client)
            program = TrainingProgram(self.adversary.training(self.training), attack.loss)
            if attack.data is not None:
                generator = torch_generator(self.seed, "poison", round_number, client)
                own = examples.subset(indices.to(examples.labels.device))
                examples = attack.data.poison(own, rank, generator)
                indices = torch.arange(len(examples))
                hook = partial(_poison_batch, attack.data, rank)
        training = program.training
        batches = plan_batches(
            indices,
            training.batch_size,
            training.num_epochs,
            torch_generator(self.seed, "batches", round_number, client),
        )
        draws = None
        if self.dataset.augmentation is not None:
            generator = torch_generator(self.seed, "augmentation", round_number, client)
            draws = self.dataset.augmentation.draw(tuple(batches.shape), generator)
        return ClientJob(client, examples, batches, draws, program, hook)

    def _vectorize(self) -> bool:
        if self.training.vectorize == "auto":
            on_gpu = self.dataset.train.inputs.device.type == "cuda"
            return self.can_vectorize and (on_gpu or not self.has_convolutions)
        return self.training.vectorize

    def _cohorts(self, jobs: Sequence[ClientJob]) -> list[range]:
        """Rows that are trained together: one programme, at most `max_cohort` clients."""
        cohorts: list[range] = []
        start = 0
        for program, group in groupby(jobs, key=lambda job: job.program):
            stop = start + len(list(group))
            limit = self._max_cohort(program.training.batch_size)
            cohorts.extend(range(row, min(row + limit, stop)) for row in range(start, stop, limit))
            start = stop
        return cohorts

    def _max_cohort(self, batch_size: int) -> int:
        if self.training.max_cohort != "auto":
            return self.training.max_cohort
        example = model_inputs(self.dataset, self.dataset.train.inputs[:1])
        return cohort_size(self.model, example, batch_size, example.device)


def _poison_batch(attack: DataAttack, rank: int, batch: Examples) -> Examples:
    return attack.poison_batch(batch, rank)


def _training_order(jobs: Sequence[ClientJob]) -> list[int]:
    """Jobs of one programme side by side, longest first; the order of ids where there is nothing to group."""
    programs: list[TrainingProgram] = []
    for job in jobs:
        if job.program not in programs:
            programs.append(job.program)
    return sorted(range(len(jobs)), key=lambda index: (programs.index(jobs[index].program), -jobs[index].num_steps))
