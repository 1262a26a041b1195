"""What local training must know of a model before round 1: found by a few examples, on any module.

What a model cannot do at all is refused here; what it cannot do in a cohort is the reason to train it one by one.
"""

import random
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, vmap

from fedrobust.data.datasets import Dataset
from fedrobust.error_text import reason_of
from fedrobust.models.own_state import OwnState, put_back, remember
from fedrobust.parameters import clone_buffers, load_into
from fedrobust.seeds import seeded_draws
from fedrobust.training.loop import channels_last, model_inputs
from fedrobust.types import Buffers

_CLOSE = 1e-3
"""Gradients of a cohort and alone differ by rounding; where examples of a batch look at each other, by far more."""


@dataclass(frozen=True)
class ModelTraits:
    """How a model can be trained.

    Attributes:
        why_alone: why its clients cannot be trained as a cohort; `None` if they can, or if nobody wants it.
        join_single: it cannot train on one example alone (batch normalisation of single values).
    """

    why_alone: str | None = None
    join_single: bool = False


def examine_model(model: nn.Module, dataset: Dataset, *, try_cohort: bool) -> ModelTraits:
    """Try a model on a few training examples; it is left as it was.

    Args:
        model: on the data set's device.
        dataset: what it is to be trained on.
        try_cohort: whether it is asked if its clients can be trained together.

    Raises:
        ValueError: nothing to train, numbers of another kind than float32, or no logits of these data; in one line.
    """
    _check_numbers(model)
    kept, own = clone_buffers(model), OwnState(model)
    was_training = model.training
    try:
        with seeded_draws(dataset.train.inputs.device, 0, "examine"):
            inputs = _readable(model, dataset)
            join_single = _needs_two(model, inputs)
            why_alone: str | None
            if changed := own.first_changed(model):
                remember(model, own)
                why_alone = f"it changes itself as it trains (attribute {changed!r}), which must be each client's own"
            else:
                why_alone = _why_alone(model, dataset, inputs) if try_cohort else None
            _check_repeats(model, dataset, inputs, kept)
    finally:
        model.train(was_training)
        load_into(model, {}, kept)
        put_back(model)
    return ModelTraits(why_alone, join_single)


def _check_numbers(model: nn.Module) -> None:
    trained = {name: one for name, one in model.named_parameters() if one.requires_grad}
    if not trained:
        raise ValueError("has nothing to train: its parameters are frozen (requires_grad=False), or there is none")
    for name, parameter in trained.items():
        if parameter.dtype != torch.float32:
            kind = str(parameter.dtype).removeprefix("torch.")
            raise ValueError(f"must have float32 parameters, got {kind} in {name!r}: call .float() on it, or freeze it")


def _readable(model: nn.Module, dataset: Dataset) -> Tensor:
    """Three examples (fewer if there are fewer) as the model sees them, of which it makes logits.

    A module may refuse some data, as clients' own affair: it is refused itself if it takes none of several examples.
    """
    n = len(dataset.train)
    size = min(n, 3)
    starts = sorted({0, (n - size) // 2, n - size})
    model.eval()
    for start in starts:
        seen = channels_last(model_inputs(dataset, dataset.train.inputs[start : start + size]))
        try:
            with torch.no_grad():
                logits = model(seen)
        except (Exception, SystemExit) as error:  # whatever a module raises
            reason = reason_of(error)
            continue
        shape = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        if shape != (size, dataset.num_classes):
            raise ValueError(f"must make logits ({size}, {dataset.num_classes}) of {size} inputs, got {shape}")
        if not logits.is_floating_point():
            raise ValueError(f"must make floating point logits, got {logits.dtype}")
        return seen
    raise ValueError(f"cannot read inputs {tuple(seen.shape)} of dataset={dataset.name}: {reason}")


def _needs_two(model: nn.Module, inputs: Tensor) -> bool:
    model.train()
    return len(inputs) > 1 and not _raises(lambda: model(inputs[:2])) and _raises(lambda: model(inputs[:1]))


def _raises(call: Callable[[], Any]) -> bool:
    try:
        with torch.no_grad():
            call()
    except (Exception, SystemExit):
        return True
    return False


def _check_repeats(model: nn.Module, dataset: Dataset, inputs: Tensor, buffers: Buffers) -> None:
    """Refuse a model that does something else the second time, though all that it keeps on itself was put back."""
    found = []
    for _ in range(2):
        load_into(model, {}, buffers)
        with seeded_draws(inputs.device, 0, "repeat"):
            put_back(model)
            try:
                found.append(_step(model, dataset, inputs))
            except (Exception, SystemExit):  # of these data, or of all: clients' own affair
                return
    for first, second in zip(*found, strict=True):
        scale = float(first.abs().nan_to_num(0, 0, 0).max()) if len(first) else 0.0
        if not torch.allclose(first, second, rtol=_CLOSE, atol=_CLOSE * scale + 1e-12, equal_nan=True):
            raise ValueError(
                "must be a function of its inputs, parameters, buffers and attributes: it gives something else the "
                "second time on the same examples; does it keep something in a global variable?"
            )


def _step(model: nn.Module, dataset: Dataset, inputs: Tensor) -> list[Tensor]:
    """Logits in evaluation, then the gradients of a training step."""
    model.eval()
    with torch.no_grad():
        logits = model(inputs)
    model.train()
    trained = [one for one in model.parameters() if one.requires_grad]
    loss = F.cross_entropy(model(inputs), dataset.train.labels[: len(inputs)] * 0)
    gradients = torch.autograd.grad(loss, trained, materialize_grads=True, allow_unused=True)
    return [logits.flatten(), *(gradient.flatten() for gradient in gradients)]


def _why_alone(model: nn.Module, dataset: Dataset, inputs: Tensor) -> str | None:
    """Train one step of two clients, one with a padded batch, both ways; `None` if the gradients agree."""
    if next(model.buffers(), None) is not None:
        return "it has buffers, which each client may change"
    labels = dataset.train.labels[: len(inputs)] * 0
    short = max(1, len(inputs) - 1)
    shares = torch.full((2, len(inputs)), 1 / len(inputs), device=inputs.device)
    shares[1] = 0
    shares[1, :short] = 1 / short
    # As cohorts pad: by the first example, which does not count.
    batch = torch.stack([inputs, torch.cat([inputs[:short], inputs[: len(inputs) - short]])])
    model.train()
    before = _generators()
    parameters = {name: one.detach() for name, one in model.named_parameters() if one.requires_grad}

    def loss(at: dict[str, Tensor], seen: Tensor, own_shares: Tensor) -> Tensor:
        logits = functional_call(model, at, (seen,))
        return F.cross_entropy(logits, labels, reduction="none").dot(own_shares)

    def alone(seen: Tensor) -> dict[str, Tensor]:
        variables = {name: one.clone().requires_grad_() for name, one in parameters.items()}
        value = F.cross_entropy(functional_call(model, variables, (seen,)), labels[: len(seen)])
        found = torch.autograd.grad(value, list(variables.values()), materialize_grads=True, allow_unused=True)
        return dict(zip(variables, found, strict=True))

    try:
        expected = [alone(inputs), alone(inputs[:short])]
    except (Exception, SystemExit) as error:
        return f"it cannot be tried on three examples ({reason_of(error)})"
    if before != _generators():
        return "it draws random numbers as it trains, which must be each client's own"
    stacked = {name: one.expand(2, *one.shape).clone() for name, one in parameters.items()}
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", "There is a performance drop")  # one by one is as fast then, and exact
            found, _ = vmap(grad_and_value(loss))(stacked, batch, shares)
    except (Exception, SystemExit) as error:
        return f"torch.func.vmap cannot run it ({reason_of(error)})"
    for client, gradients in enumerate(expected):
        for name, gradient in gradients.items():
            scale = float(gradient.abs().nan_to_num(0, 0, 0).max())
            close = torch.allclose(
                found[name][client], gradient, rtol=_CLOSE, atol=_CLOSE * scale + 1e-12, equal_nan=True
            )
            if not close:
                return "its gradients differ there: examples of a batch look at each other"
    return None


def _generators() -> tuple[bytes, object, bytes]:
    """Where the global generators stand."""
    numpy_state = np.random.get_state(legacy=False)["state"]  # noqa: NPY002 (what others draw from)
    return torch.get_rng_state().numpy().tobytes(), random.getstate(), repr(numpy_state).encode()
