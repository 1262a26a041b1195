"""The clients of a scenario, benign and malicious, and their training in a round.

A node hosts some of them and trains those that a message names. Nothing here is remembered between rounds: what a
client does follows from (seed, round, client) and the model it receives, so any process can play any client.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn

from fedrobust.attacks.base import DataAttack, ReceivedModel, with_model
from fedrobust.attacks.scenario import Adversary
from fedrobust.audits.audited_model import AuditedModel
from fedrobust.audits.data_auditing import DataAuditing, DataFinding, OwnData
from fedrobust.data.datasets import Dataset, Examples
from fedrobust.error_text import reason_of
from fedrobust.parameters import ParameterLayout
from fedrobust.seeds import kept_generators, seed_generators, seeded_draws, torch_generator
from fedrobust.training.cohort import train_cohort
from fedrobust.training.cohort_size import cohort_size
from fedrobust.training.local_training import LocalTraining
from fedrobust.training.loop import ClientJob, TrainingProgram, model_inputs, plan_batches, train_alone
from fedrobust.types import Buffers, Updates, Vector

CLIENT_ERRORS = (Exception, SystemExit)
"""Whatever the code of a client (its model, its attack) raises is its own failure; Ctrl-C is the user's."""


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
        failures: clients that raised instead, and what they said.
    """

    clients: tuple[int, ...]
    updates: Updates
    num_examples: Tensor
    losses: Tensor
    buffers: dict[str, Tensor]
    seconds: float
    failures: Mapping[int, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Population:
    """All clients of a scenario.

    Attributes:
        dataset: on the training device.
        assignment: per client, its indices into the training examples.
        adversary: who attacks, when and how.
        training: the benign programme.
        model: gives the forward pass; its parameters are not used.
        can_vectorize: whether clients' models can be trained together (`examine_model`).
        has_convolutions: grouped convolutions are slow on a CPU, so `auto` trains such models one by one there.
        seed: the scenario's.
        auditing: how clients' data are audited, or `None`.
        join_single: a last batch of one example joins the one before.
        notices: what a user should know of how clients will be trained.
    """

    dataset: Dataset
    assignment: tuple[Tensor, ...]
    adversary: Adversary
    training: LocalTraining
    model: nn.Module
    can_vectorize: bool
    has_convolutions: bool
    seed: int
    auditing: DataAuditing | None = None
    join_single: bool = False
    notices: tuple[str, ...] = ()
    _findings: dict[tuple[Any, ...], DataFinding] = field(default_factory=dict, repr=False, compare=False)

    def train(
        self,
        round_number: int,
        clients: Sequence[int],
        vector: Vector,
        buffers: Buffers,
        *,
        attack_on: bool = True,
    ) -> TrainedClients:
        """Train `clients` from the global model `vector` `(d,)` and `buffers`; all as benign ones unless `attack_on`.

        A client that raises is named among the failures, and costs the others nothing.

        Raises:
            ValueError: a client id that the scenario does not have.
        """
        if not attack_on:
            rested = replace(self, adversary=self.adversary.at_rest())
            return rested.train(round_number, clients, vector, buffers)
        start = time.perf_counter()
        wrong = [client for client in clients if not 0 <= client < len(self.assignment)]
        if wrong:
            raise ValueError(f"clients must be in 0..{len(self.assignment) - 1}, got {wrong}")
        with kept_generators(vector.device):
            trained = self._train(round_number, tuple(sorted(clients)), vector, buffers)
        return replace(trained, seconds=time.perf_counter() - start)

    def _train(self, round_number: int, clients: tuple[int, ...], vector: Vector, buffers: Buffers) -> TrainedClients:
        kept = self._kept(round_number, clients, vector, buffers)
        jobs, failures = self._jobs(round_number, clients, kept, vector, buffers)
        ids = [job.client for job in jobs]
        matrix = vector.expand(len(ids), -1).clone()
        losses = torch.zeros(len(ids))
        stacked = {name: buffer.expand(len(ids), *buffer.shape).clone() for name, buffer in buffers.items()}
        if self._vectorize():
            order = _training_order(jobs)
            for rows in self._cohorts([jobs[index] for index in order]):
                cohort = [jobs[order[row]] for row in rows]
                block = matrix[rows.start : rows.stop]
                found, raised = self._train_cohort(round_number, block, cohort, vector, buffers)
                losses[rows.start : rows.stop] = torch.tensor(found)
                failures |= raised
            if order != list(range(len(ids))):  # cohorts were trained as blocks: put the rows back in the order of ids
                back = torch.tensor(order).argsort()
                matrix, losses = matrix[back.to(matrix.device)], losses[back]
        else:
            for row, job in enumerate(jobs):
                own = {name: values[row] for name, values in stacked.items()}
                try:
                    losses[row] = self._train_alone(round_number, matrix[row], own, job)
                except CLIENT_ERRORS as error:
                    failures[job.client] = reason_of(error)
        matrix.sub_(vector)
        if not failures.keys().isdisjoint(ids):
            fine = [row for row, client in enumerate(ids) if client not in failures]
            ids, matrix, losses = [ids[row] for row in fine], matrix[fine], losses[fine]
            stacked = {name: values[fine] for name, values in stacked.items()}
        held = [int(kept[client].sum()) if client in kept else len(self.assignment[client]) for client in ids]
        claims = [self.adversary.claim(client, own, round_number) for client, own in zip(ids, held, strict=True)]
        claimed = torch.tensor(claims, dtype=torch.int64)
        return TrainedClients(tuple(ids), matrix, claimed, losses, stacked, 0.0, failures)

    def _jobs(
        self,
        round_number: int,
        clients: Sequence[int],
        kept: Mapping[int, Tensor],
        vector: Vector,
        buffers: Buffers,
    ) -> tuple[list[ClientJob], dict[int, str]]:
        """What each client does in this round, and who cannot even begin, with the reason."""
        attackers = self.adversary.attackers(round_number)
        jobs: list[ClientJob] = []
        failures: dict[int, str] = {}
        data_attack: DataAttack | None = None
        if not set(attackers).isdisjoint(clients):
            seed_generators(vector.device, self.seed, "crafting", round_number)
        try:
            data_attack = self._data_attack(vector, buffers)
        except CLIENT_ERRORS as error:  # the attackers' own affair
            failures = {client: reason_of(error) for client in clients if client in attackers}
        for client in clients:
            if client in failures:
                continue
            if client in attackers:
                seed_generators(vector.device, self.seed, "poison draws", round_number, client)
            try:
                jobs.append(self._job(round_number, client, data_attack, kept.get(client)))
            except CLIENT_ERRORS as error:
                failures[client] = reason_of(error)
        return jobs, failures

    def _train_alone(self, round_number: int, row: Vector, buffers: Buffers, job: ClientJob) -> float:
        seed_generators(row.device, self.seed, "training draws", round_number, job.client)
        return train_alone(row, buffers, job, self.model, self._layout(), self.dataset)

    def _train_cohort(
        self, round_number: int, block: Updates, cohort: Sequence[ClientJob], vector: Vector, buffers: Buffers
    ) -> tuple[list[float], dict[int, str]]:
        """Train a cohort in place; if that raises, each client for itself, to find out whose fault it is."""
        try:
            return train_cohort(block, cohort, buffers, self.model, self._layout(), self.dataset), {}
        except CLIENT_ERRORS:
            block.copy_(vector)
        if len(cohort) == 1:  # perhaps it was vmap alone that could not
            own = {name: values.clone() for name, values in buffers.items()}
            try:
                return [self._train_alone(round_number, block[0], own, cohort[0])], {}
            except CLIENT_ERRORS as error:
                return [0.0], {cohort[0].client: reason_of(error)}
        losses: list[float] = []
        failures: dict[int, str] = {}
        for row, job in enumerate(cohort):
            loss, raised = self._train_cohort(round_number, block[row : row + 1], [job], vector, buffers)
            losses += loss
            failures |= raised
        return losses, failures

    def _layout(self) -> ParameterLayout:
        return ParameterLayout.of(self.model)

    def audit(
        self, round_number: int, clients: Sequence[int], vector: Vector, buffers: Buffers, *, attack_on: bool = True
    ) -> DataFinding | None:
        """What this round's audit finds in what `clients` would train on; `None` where none is due.

        It follows from the round and the model, so any process finds the same. A trusted auditor is shown the data of
        all clients, whoever takes part.

        Raises:
            ValueError: the audit cannot read the data of all clients.
        """
        if self.auditing is None or not self.auditing.plan.is_due(round_number):
            return None
        if not attack_on:
            return replace(self, adversary=self.adversary.at_rest()).audit(round_number, clients, vector, buffers)
        is_pooled = self.auditing.plan.auditor == "trusted"
        scope = tuple(range(len(self.assignment))) if is_pooled else tuple(sorted(clients))
        # One process may host many nodes, and the server besides: what was found is kept until the next round.
        model_sum = (float(vector.double().sum()), float(vector.double().square().sum()))
        key = (round_number, self.adversary.resting, model_sum)
        if any(known[:3] != key for known in self._findings):
            self._findings.clear()
        parts = [scope] if is_pooled else [(client,) for client in scope]
        missing = [part for part in parts if (*key, part) not in self._findings]
        with seeded_draws(vector.device, self.seed, "audit", round_number):
            self._look_at(missing, round_number, key, vector, buffers)
        return DataFinding.join([self._findings[*key, part] for part in parts])

    def _look_at(
        self,
        missing: Sequence[tuple[int, ...]],
        round_number: int,
        key: tuple[Any, ...],
        vector: Vector,
        buffers: Buffers,
    ) -> None:
        """Audit the data of each of these groups of clients, and keep what is found."""
        if missing and self.auditing is not None:
            data_attack = self._data_attack(vector, buffers)
            model = AuditedModel.from_parameters(self.model, vector, buffers, self.dataset)
            for part in missing:
                own = {client: self._own_data(round_number, client, data_attack) for client in part}
                self._findings[*key, part] = self.auditing.audit(round_number, own, model)

    def _kept(self, round_number: int, clients: Sequence[int], vector: Vector, buffers: Buffers) -> dict[int, Tensor]:
        """Which of their examples clients train on in this round, `(n,)` booleans; empty where that is all of them."""
        if self.auditing is None or self.auditing.plan.action != "drop_samples":
            return {}
        finding = self.audit(round_number, clients, vector, buffers)
        return {} if finding is None else {client: self.auditing.kept(finding, client) for client in clients}

    def _own_data(self, round_number: int, client: int, data_attack: DataAttack | None) -> OwnData:
        """What a client would train on, and which of it is poison."""
        clean = self.dataset.train.subset(self.assignment[client])
        if data_attack is None or client not in self.adversary.attackers(round_number):
            return OwnData(clean, torch.zeros(len(clean), dtype=torch.bool))
        generator = torch_generator(self.seed, "poison", round_number, client)
        examples = data_attack.poison(clean, self.adversary.rank(client), generator)
        is_poisoned = torch.ones(len(examples), dtype=torch.bool)  # what was added after a client's own
        own = slice(0, len(clean))
        changed = (examples.inputs[own] != clean.inputs).flatten(1).any(dim=1) | (examples.labels[own] != clean.labels)
        is_poisoned[own] = changed.cpu()
        return OwnData(examples, is_poisoned)

    def _data_attack(self, vector: Vector, buffers: Buffers) -> DataAttack | None:
        """The attack on data, crafted on what the server sent where it asks for that."""
        attack = self.adversary.attack.data
        return attack and with_model(attack, ReceivedModel(self.model, vector, buffers, self.dataset))

    def _job(self, round_number: int, client: int, data_attack: DataAttack | None, kept: Tensor | None) -> ClientJob:
        """What `client` does in this round: the benign programme, or its attack."""
        indices, examples = self.assignment[client], self.dataset.train
        program, hook = TrainingProgram(self.training), None
        if client in self.adversary.attackers(round_number):
            attack, rank = self.adversary.attack, self.adversary.rank(client)
            program = TrainingProgram(self.adversary.training(self.training), attack.loss)
            if data_attack is not None:
                generator = torch_generator(self.seed, "poison", round_number, client)
                own = examples.subset(indices.to(examples.labels.device))
                examples = data_attack.poison(own, rank, generator)
                indices = torch.arange(len(examples))
                hook = partial(_poison_batch, data_attack, rank)
        if kept is not None:
            indices = indices[kept.to(indices.device)]
        training = program.training
        batches = plan_batches(
            indices,
            training.batch_size,
            training.num_epochs,
            torch_generator(self.seed, "batches", round_number, client),
            join_single=self.join_single,
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
