"""The gradient of an attacker who tampers with the objective: one attack, alone or within `torch.func.vmap`."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value

from fedrobust.training.step import Batch, Descent, LossAttack, Objective, Parameters, Step


def gradient_alone(
    attack: LossAttack,
    model: nn.Module,
    parameters: Parameters,
    received: Parameters,
    batch: Batch,
    synthesised: tuple[Batch, ...],
    memory: Parameters,
) -> Descent:
    """The attack's gradient for one client, by autograd; the model's buffers take the own batch's statistics alone.

    Args:
        attack: the objective.
        model: with all parameters and buffers of the client.
        parameters: of these, those that are trained.
        received: all parameters, as the server sent them.
        batch: as the model sees it.
        synthesised: likewise, what the attack made of the batch.
        memory: of the client's step before.
    """

    def own_logits(at: Parameters) -> Tensor:
        return _call(model, at, batch.inputs)

    def logits(at: Parameters, inputs: Tensor) -> Tensor:
        apart = {name: values.clone() for name, values in model.named_buffers()}
        return _call(model, {**at, **apart}, inputs)

    size = len(batch.labels)
    shares = batch.inputs.new_full((size,), 1 / size)
    step = Step(parameters, received, batch, synthesised, shares, own_logits, logits, _by_autograd, memory)
    return attack(step)


def gradient_of_row(
    attack: LossAttack,
    model: nn.Module,
    state: Mapping[str, Tensor],
    received: Parameters,
    parameters: Parameters,
    batch: Batch,
    shares: Tensor,
    synthesised: tuple[Batch, ...],
    memory: Parameters,
) -> Descent:
    """The attack's gradient for one row of a cohort, to be mapped over all of them.

    Args:
        attack: the objective.
        model: gives the forward pass.
        state: what of it is not trained, parameters and buffers; these are the same for all.
        received: all parameters, as the server sent them.
        parameters: the row's, those that are trained.
        batch: as the model sees it.
        shares: zero where the batch is padded.
        synthesised: what the attack made of the batch, as the model sees it.
        memory: of the row's step before.
    """

    def own_logits(at: Parameters) -> Tensor:
        return _call(model, {**state, **at}, batch.inputs)

    def logits(at: Parameters, inputs: Tensor) -> Tensor:
        return _call(model, {**state, **at}, inputs)

    return attack(Step(parameters, received, batch, synthesised, shares, own_logits, logits, _by_transform, memory))


def _call(model: nn.Module, state: Parameters, inputs: Tensor) -> Tensor:
    outputs: Tensor = functional_call(model, dict(state), (inputs,))
    return outputs


def _by_autograd(objective: Objective, at: Parameters) -> tuple[Parameters, Tensor]:
    variables = {name: values.detach().requires_grad_() for name, values in at.items()}
    value = objective(variables)
    gradients = torch.autograd.grad(value, list(variables.values()), materialize_grads=True)
    return dict(zip(variables, gradients, strict=True)), value.detach()


def _by_transform(objective: Objective, at: Parameters) -> tuple[Parameters, Tensor]:
    gradients, value = grad_and_value(objective)(dict(at))
    return gradients, value
