"""Local training: one loop, with hooks. A benign client is the loop without hooks.

A client's batches (and augmentations) are drawn before the loop starts, from a generator of its own; so training it
alone or as a row of a cohort sees the same examples in the same order.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedrobust.data.datasets import Dataset, Examples
from fedrobust.models.own_state import put_back
from fedrobust.parameters import ParameterLayout
from fedrobust.training.attacked_step import gradient_alone
from fedrobust.training.local_training import LocalTraining
from fedrobust.training.step import Batch, LossAttack, Parameters
from fedrobust.training.trained_layers import trained_names
from fedrobust.types import Buffers, Vector


@dataclass(frozen=True)
class TrainingProgram:
    """What clients must share to be trained together: hyper-parameters and objective."""

    training: LocalTraining
    loss: LossAttack | None = None


@dataclass(frozen=True)
class ClientJob:
    """One client's work in one round; its plan lies on the CPU, its examples where training runs.

    Attributes:
        client: its id.
        examples: the tensors that `batches` indexes: the shared data set, or the client's own poisoned copy.
        batches: `(steps, batch_size)` indices into `examples`, -1 where the last batch of an epoch is short.
        augmentations: `(steps, batch_size, 3)` draws of the data set's augmentation, or `None`.
        program: hyper-parameters and objective.
        poison_batch: hook on each batch, or `None`.
    """

    client: int
    examples: Examples
    batches: Tensor
    augmentations: Tensor | None
    program: TrainingProgram
    poison_batch: Callable[[Examples], Examples] | None = None

    @property
    def num_steps(self) -> int:
        """Number of SGD steps."""
        return len(self.batches)

    @property
    def learning_rates(self) -> list[float]:
        """The learning rate of each SGD step; all epochs have as many."""
        training = self.program.training
        steps = self.num_steps // training.num_epochs
        return [rate for rate in training.learning_rates() for _ in range(steps)]


def plan_batches(
    indices: Tensor, batch_size: int, num_epochs: int, generator: torch.Generator, *, join_single: bool = False
) -> Tensor:
    """Shuffle `indices` `(n,)` anew for every epoch and cut them into batches.

    Args:
        indices: of the examples.
        batch_size: examples in a batch; the last of an epoch may have fewer.
        num_epochs: how often all are seen.
        generator: gives the order.
        join_single: a last batch of one example joins the one before, since the model cannot take one alone.

    Returns:
        `(num_epochs * ⌈n / batch_size⌉, batch_size)`, padded with -1 at the end of each epoch; one column more, and
        fewer rows where a batch has joined another, with `join_single`.
    """
    n = len(indices)
    steps = -(-n // batch_size)
    batches = torch.full((num_epochs, steps * batch_size), -1, dtype=torch.int64)
    for epoch in range(num_epochs):
        batches[epoch, :n] = indices[torch.randperm(n, generator=generator)]
    cut = batches.view(num_epochs, steps, batch_size)
    if join_single:
        cut = F.pad(cut, (0, 1), value=-1)
        if steps > 1 and n % batch_size == 1 % batch_size:
            cut[:, -2, -1] = cut[:, -1, 0]
            cut = cut[:, :-1]
    return cut.flatten(0, 1).contiguous()


def train_alone(
    row: Vector, buffers: Buffers, job: ClientJob, model: nn.Module, layout: ParameterLayout, dataset: Dataset
) -> float:
    """Train one client; `row` `(d,)` and `buffers` hold the global model on entry and the client's own on return.

    Args:
        row: parameters, trained in place.
        buffers: by name, changed in place by layers that keep statistics.
        job: what to train on and how.
        model: gives the forward pass; its own parameters are borrowed for the time of the call.
        layout: where each parameter lies in `row`.
        dataset: gives augmentation and normalisation.

    Returns:
        The mean classification loss over all examples seen.
    """
    training, attack = job.program.training, job.program.loss
    put_back(model)
    own = layout.views(row)
    received = {} if attack is None else layout.views(row.clone())
    # Convolutions want their weights channels-last, too: such copies are trained in place of the row's views.
    working = {name: channels_last(view) for name, view in own.items()}
    with borrowed_storage(model, working, buffers):
        names = trained_names(model, training)
        trained = {name: parameter for name, parameter in model.named_parameters() if name in names}
        wanted = None if training.trained_layers == "all" else list(trained.values())  # None is all that is not frozen
        model.train(training.trained_layers == "all")  # features that stay as they are take no statistics, either
        optimizer = torch.optim.SGD(
            trained.values(), lr=training.learning_rate, momentum=training.momentum, weight_decay=training.weight_decay
        )
        memory: Parameters = {}  # of an attack on the objective
        total = row.new_zeros(())
        counts: list[int] = (job.batches >= 0).sum(dim=1).tolist()
        batches = job.batches.to(row.device)
        augmentations = None if job.augmentations is None else job.augmentations.to(row.device)
        for step, (count, rate) in enumerate(zip(counts, job.learning_rates, strict=True)):
            optimizer.param_groups[0]["lr"] = rate
            batch = job.examples.subset(batches[step, :count])
            if job.poison_batch is not None:
                batch = job.poison_batch(batch)
            draws = None if augmentations is None else augmentations[step, :count]
            seen = channels_last(model_inputs(dataset, batch.inputs, draws))
            if attack is None:
                loss = F.cross_entropy(model(seen), batch.labels)
                optimizer.zero_grad()
                loss.backward(inputs=wanted)
            else:
                made = tuple(
                    Batch(channels_last(model_inputs(dataset, one.inputs, draws)), one.labels)
                    for one in attack.synthesise(batch)
                )
                own_batch = Batch(seen, batch.labels)
                gradient, loss, memory = gradient_alone(attack, model, trained, received, own_batch, made, memory)
                for name, parameter in trained.items():
                    parameter.grad = gradient[name]
            total.add_(loss.detach(), alpha=count)
            optimizer.step()
    for name, view in own.items():
        if working[name] is not view:
            view.copy_(working[name])
    return float(total) / max(sum(counts), 1)


def model_inputs(dataset: Dataset, inputs: Tensor, draws: Tensor | None = None) -> Tensor:
    """What the model sees of raw inputs: augmented, if there are draws, then normalised. Triggers come before."""
    if dataset.augmentation is not None and draws is not None:
        inputs = dataset.augmentation.apply(inputs, draws)
    return dataset.normalise(inputs)


def channels_last(inputs: Tensor) -> Tensor:
    """Pictures (or filters) laid out with their channels innermost, which halves the time of convolutions on a CPU."""
    return inputs.clone(memory_format=torch.channels_last) if inputs.ndim == 4 else inputs


@contextmanager
def borrowed_storage(model: nn.Module, parameters: dict[str, Tensor], buffers: Buffers) -> Iterator[list[nn.Parameter]]:
    """Let `model`'s parameters and buffers live in the given tensors for a while, so that training writes to them.

    A forward pass may put another tensor in their place (`self.mean = 0.9 * self.mean + ...`, `weight.data = ...`):
    its values are copied back. What is trained, and what stays, is as before in the end.
    """
    targets = {**parameters, **buffers}
    wants_gradient = {name: one.requires_grad for name, one in model.named_parameters()}
    trained = [(name, one) for name, one in model.named_parameters() if one.requires_grad]  # the others stay
    owned: list[tuple[str, Tensor, Tensor]] = [
        (name, tensor, tensor.data) for name, tensor in [*trained, *model.named_buffers()]
    ]
    was_training = model.training
    try:
        for name, tensor, _ in owned:
            tensor.data = targets[name]
        model.train()
        yield list(model.parameters())
    finally:
        for name, tensor, original in owned:
            now, target = _named(model, name), targets[name]
            if now is not None and (now is not tensor or now.data_ptr() != target.data_ptr()):
                target.copy_(now.detach())
            if now is not tensor and name in buffers:
                module, _, own = name.rpartition(".")
                model.get_submodule(module)._buffers[own] = tensor
            tensor.data = original
            tensor.grad = None
        for name, one in model.named_parameters():
            one.requires_grad_(wants_gradient.get(name, one.requires_grad))
        model.train(was_training)


def _named(model: nn.Module, name: str) -> Tensor | None:
    """The parameter or buffer of this name as it is now."""
    path, _, own = name.rpartition(".")
    module = model.get_submodule(path)
    return module._parameters.get(own, module._buffers.get(own))
