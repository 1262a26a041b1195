"""What local training must know of a model before round 1: found by a few examples, on any module.

What a model cannot do at all is refused here; what it cannot do in a cohort is the reason to train it one by one.
"""

import random
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
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
from fedrobust.parameters import clone_buffers, write_values
from fedrobust.seeds import seeded_draws
from fedrobust.training.loop import channels_last, model_inputs
from fedrobust.types import Buffers

_RAISED = (Exception, SystemExit)
"""Whatever a module raises for data that it does not like."""

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
    kept, own, names, gradients = clone_buffers(model), OwnState(model), _names(model), _flags(model)
    was_training = model.training
    try:
        built = {name: one.detach().clone() for name, one in model.named_parameters() if one.requires_grad}
        with seeded_draws(dataset.train.inputs.device, 0, "examine"), _at(model, built):
            inputs = _readable(model, dataset)
            join_single = _needs_two(model, inputs)
            _check_names(model, names, gradients)
            why_alone = None
            for number, values in enumerate(_points(model)):
                with _at(model, values):
                    why_alone = _look(model, dataset, inputs, kept, own, try_cohort=try_cohort, may_raise=number > 0)
                if why_alone or not try_cohort:  # a second look would tell nothing more
                    break
    finally:
        for name, one in model.named_parameters():
            one.requires_grad_(gradients.get(name, one.requires_grad))
        model.train(was_training)
        _restore_buffers(model, kept)
        put_back(model)
    return ModelTraits(why_alone, join_single)


def _check_numbers(model: nn.Module) -> None:
    for name, buffer in model.named_buffers():
        if buffer.layout != torch.strided:
            raise ValueError(f"must have dense buffers, got {str(buffer.layout).removeprefix('torch.')} in {name!r}")
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
    does = "read"
    for start in starts:
        model.eval()
        seen = channels_last(model_inputs(dataset, dataset.train.inputs[start : start + size]))
        try:
            with torch.no_grad():
                logits = model(seen)
        except _RAISED as error:
            reason = reason_of(error)
            continue
        _check_logits(logits, size, dataset, "")
        model.train()
        try:
            with torch.no_grad():
                logits = model(seen)
        except _RAISED as error:
            does, reason = "be trained on", reason_of(error)
            continue
        _check_logits(logits, size, dataset, " in training mode")
        try:
            _step(model, dataset, seen)
        except _RAISED as error:
            does, reason = "be trained on", reason_of(error)
            continue
        return seen
    raise ValueError(f"cannot {does} inputs {tuple(seen.shape)} of dataset={dataset.name}: {reason}")


def _check_logits(logits: Any, size: int, dataset: Dataset, mode: str) -> None:
    shape = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
    if shape != (size, dataset.num_classes):
        raise ValueError(f"must make logits ({size}, {dataset.num_classes}) of {size} inputs{mode}, got {shape}")
    if not logits.is_floating_point():
        raise ValueError(f"must make floating point logits{mode}, got {logits.dtype}")


def _needs_two(model: nn.Module, inputs: Tensor) -> bool:
    """Whether one example alone gives an error, or logits of another shape (of a model that squeezes)."""
    model.train()

    def shape_of(num_examples: int) -> torch.Size | None:
        try:
            with torch.no_grad():
                logits: Tensor = model(inputs[:num_examples])
        except _RAISED:
            return None
        return logits.shape

    one, two = shape_of(1), shape_of(2)
    return len(inputs) > 1 and two is not None and (one is None or one != (1, two[-1]))


def _names(model: nn.Module) -> list[str]:
    return [name for name, _ in (*model.named_parameters(), *model.named_buffers())]


def _flags(model: nn.Module) -> dict[str, bool]:
    return {name: one.requires_grad for name, one in model.named_parameters()}


def _check_names(model: nn.Module, names: Sequence[str], gradients: Mapping[str, bool]) -> None:
    """Refuse a model whose forward pass adds or takes away parameters, or changes which of them are trained."""
    if changed := sorted(set(names) ^ set(_names(model))):
        raise ValueError(
            f"must have its parameters and buffers when it is built: its forward pass makes {changed[0]!r}"
        )
    if moved := [name for name, one in model.named_parameters() if one.requires_grad != gradients[name]]:
        raise ValueError(f"must not change requires_grad as it runs, as its forward pass does of {moved[0]!r}")


def _points(model: nn.Module) -> Iterator[dict[str, Tensor]]:
    """Values of the trained parameters to look at: as the model is built, then away from zeros and from small norms."""
    built = {name: one.detach().clone() for name, one in model.named_parameters() if one.requires_grad}
    yield built
    yield {name: 3 * one + 0.3 * torch.randn_like(one) for name, one in built.items()}


@contextmanager
def _at(model: nn.Module, values: Mapping[str, Tensor]) -> Iterator[None]:
    """Give the trained parameters copies of these values for a while."""
    kept = [(one, one.data, values[name]) for name, one in model.named_parameters() if name in values]
    try:
        for one, _, value in kept:
            one.data = value.clone()
        yield
    finally:
        for one, original, _ in kept:
            one.data = original
            one.grad = None


def _look(
    model: nn.Module,
    dataset: Dataset,
    inputs: Tensor,
    buffers: Buffers,
    own: OwnState,
    *,
    try_cohort: bool,
    may_raise: bool,
) -> str | None:
    """Take a training step as one client does; why it cannot be one of a cohort's, or `None`.

    Raises:
        ValueError: what the step shows cannot be trained at all.
    """
    parameters = {name: one.detach().clone() for name, one in model.named_parameters()}
    trained = {name: one for name, one in parameters.items() if _flags(model)[name]}
    before, flags, names = _generators(), _flags(model), _names(model)
    try:
        first = _step(model, dataset, inputs)
    except _RAISED as error:  # clients' own affair
        return None if may_raise else f"it cannot be tried on three examples ({reason_of(error)})"
    _check_names(model, names, flags)
    now = dict(model.named_parameters())
    changed = [name for name, one in parameters.items() if not torch.equal(now[name].nan_to_num(), one.nan_to_num())]
    if frozen := [name for name in changed if name not in trained]:
        raise ValueError(f"must not change what is frozen, as its forward pass does {frozen[0]!r}: make it a buffer")
    draws = before != _generators()
    attribute = own.first_changed(model)
    if attribute:
        remember(model, own)
    _again(model, parameters, buffers)
    _check_repeats(model, dataset, inputs, parameters, buffers)
    _check_reached(model, inputs, trained, buffers)
    if attribute:
        return f"it changes itself as it trains (attribute {attribute!r}), which must be each client's own"
    if changed:
        return f"its forward pass changes its parameters ({changed[0]!r}), which must be each client's own"
    if draws:
        return "it draws random numbers as it trains, which must be each client's own"
    return _why_alone(model, dataset, inputs, trained, first) if try_cohort else None


def _again(model: nn.Module, parameters: Mapping[str, Tensor], buffers: Buffers) -> None:
    """Make everything what it was before a step."""
    with torch.no_grad():
        for name, one in model.named_parameters():
            one.copy_(parameters[name])
    _restore_buffers(model, buffers)
    put_back(model)


def _restore_buffers(model: nn.Module, buffers: Buffers) -> None:
    for name, values in buffers.items():
        path, _, own = name.rpartition(".")
        held = model.get_submodule(path)._buffers
        now = held.get(own)
        if now is not None and now.shape == values.shape and now.dtype == values.dtype:
            with torch.no_grad():
                write_values(now, values)
        else:
            held[own] = values.clone()


def _check_repeats(
    model: nn.Module, dataset: Dataset, inputs: Tensor, parameters: Mapping[str, Tensor], buffers: Buffers
) -> None:
    """Refuse a model that does something else the second time, though all that it keeps on itself was put back."""
    found = []
    for _ in range(2):
        _again(model, parameters, buffers)
        with seeded_draws(inputs.device, 0, "repeat"):
            put_back(model)
            try:
                found.append([*_step(model, dataset, inputs).values(), _logits(model, inputs)])
            except _RAISED:  # clients' own affair
                return
    if not all(_is_close(first, second) for first, second in zip(*found, strict=True)):
        raise ValueError(
            "must be a function of its inputs, parameters, buffers and attributes: it gives something else the "
            "second time on the same examples; does it keep something in a global variable?"
        )
    _again(model, parameters, buffers)


def _check_reached(model: nn.Module, inputs: Tensor, trained: Mapping[str, Tensor], buffers: Buffers) -> None:
    """Refuse a model that does not read its parameters where they are registered: evaluation would never see them."""
    other = {name: one + 0.1 * torch.randn_like(one) for name, one in trained.items()}
    with seeded_draws(inputs.device, 0, "reach"), torch.no_grad():
        put_back(model)
        model.eval()
        values = {name: one.clone() for name, one in {**other, **buffers}.items()}
        try:
            by_name = functional_call(model, values, (inputs,))
        except _RAISED as error:
            raise ValueError(
                f"must run with parameters given by name (torch.func.functional_call): {reason_of(error)}"
            ) from None
        model.train()
    with seeded_draws(inputs.device, 0, "reach"), torch.no_grad(), _at(model, other):
        put_back(model)
        model.eval()  # within: some merge weights then
        set_in_place: Tensor = model(inputs)
        model.train()
    if not _is_close(by_name, set_in_place):
        raise ValueError(
            "must read its parameters where they are registered: with others by name (torch.func.functional_call) it "
            "does not give what it gives with the same ones in place; are layers kept in a list that is no "
            "nn.ModuleList, or weights merged in eval()?"
        )


def _logits(model: nn.Module, inputs: Tensor) -> Tensor:
    model.eval()
    with torch.no_grad():
        logits: Tensor = model(inputs)
    return logits


def _is_close(first: Tensor, second: Tensor) -> bool:
    scale = float(second.abs().nan_to_num(0, 0, 0).max()) if second.numel() else 0.0
    return torch.allclose(first, second, rtol=_CLOSE, atol=_CLOSE * scale + 1e-12, equal_nan=True)


def _step(model: nn.Module, dataset: Dataset, inputs: Tensor) -> dict[str, Tensor]:
    """The gradients of a training step, as a client's optimiser finds them, hooks and all."""
    model.train()
    trained = {name: one for name, one in model.named_parameters() if one.requires_grad}
    for one in trained.values():
        one.grad = None
    F.cross_entropy(model(inputs), dataset.train.labels[: len(inputs)] * 0).backward()
    found = {}
    for name, one in trained.items():
        gradient = torch.zeros_like(one) if one.grad is None else one.grad
        found[name] = gradient.to_dense().clone()
        one.grad = None
    return found


def _why_alone(
    model: nn.Module, dataset: Dataset, inputs: Tensor, trained: Mapping[str, Tensor], expected: dict[str, Tensor]
) -> str | None:
    """Train a step of two clients as a cohort, one with a padded batch; `None` if it has the gradients of one alone."""
    if next(model.buffers(), None) is not None:
        return "it has buffers, which each client may change"
    labels = dataset.train.labels[: len(inputs)] * 0
    short = max(1, len(inputs) - 1)
    shares = torch.full((2, len(inputs)), 1 / len(inputs), device=inputs.device)
    shares[1] = 0
    shares[1, :short] = 1 / short
    # As cohorts pad: by the first example, which does not count.
    batch = torch.stack([inputs, torch.cat([inputs[:short], inputs[: len(inputs) - short]])])

    def loss(at: dict[str, Tensor], seen: Tensor, own_shares: Tensor) -> Tensor:
        logits = functional_call(model, at, (seen,))
        return F.cross_entropy(logits, labels, reduction="none").dot(own_shares)

    try:
        shorter = _step(model, dataset, inputs[:short])
    except _RAISED as error:
        return f"it cannot be tried on fewer examples ({reason_of(error)})"
    model.train()
    stacked = {name: one.expand(2, *one.shape).clone() for name, one in trained.items()}
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", "There is a performance drop")  # one by one is as fast then, and exact
            found, _ = vmap(grad_and_value(loss))(stacked, batch, shares)
    except _RAISED as error:
        return f"torch.func.vmap cannot run it ({reason_of(error)})"
    for client, gradients in enumerate((expected, shorter)):
        if not all(_is_close(found[name][client], gradient) for name, gradient in gradients.items()):
            return "its gradients differ there: examples of a batch look at each other, or a hook changes gradients"
    return None


def _generators() -> tuple[bytes, object, bytes]:
    """Where the global generators stand."""
    numpy_state = np.random.get_state(legacy=False)["state"]  # noqa: NPY002 (what others draw from)
    return torch.get_rng_state().numpy().tobytes(), random.getstate(), repr(numpy_state).encode()
