"""Modules of many kinds, as somebody might bring them, and what is expected of each."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import StochasticDepth

from fedrobust.config.component import component

HIDDEN, CLASSES = 12, 10


@component
class Made:
    """An architecture that is one function."""

    make: Any

    has_convolutions: ClassVar[bool] = False

    def build(self, input_shape: tuple[int, ...], num_classes: int) -> nn.Module:
        model: nn.Module = self.make()
        return model


@dataclass(frozen=True)
class Kind:
    """A module and what is expected: trained in cohorts, one by one (with a notice, if one is due), or refused."""

    make: Callable[[], nn.Module]
    expected: str
    message: str | None = None


def sequential(*middle: nn.Module, width: int = HIDDEN) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, HIDDEN), *middle, nn.Linear(width, CLASSES))


class Calls(nn.Module):
    """A linear model with `function` between its layers."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.last, self.function = nn.Linear(64, HIDDEN), nn.Linear(HIDDEN, CLASSES), function

    def forward(self, inputs: Tensor) -> Tensor:
        return self.last(self.function(self.first(inputs.flatten(1)).relu()))


class Recurrent(nn.Module):
    """Rows of a picture as a sequence."""

    def __init__(self, cell: type[nn.RNNBase]) -> None:
        super().__init__()
        self.cell, self.last = cell(8, HIDDEN, batch_first=True), nn.Linear(HIDDEN, CLASSES)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.last(self.cell(inputs.squeeze(1))[0][:, -1])


class Attention(nn.Module):
    """Causal attention over rows; the mask of -inf is a buffer, or made anew."""

    def __init__(self, mask_is_buffer: bool) -> None:
        super().__init__()
        self.read, self.mix = nn.Linear(8, 3 * HIDDEN), nn.Linear(HIDDEN, CLASSES)
        self.mask_is_buffer = mask_is_buffer
        if mask_is_buffer:
            self.register_buffer("mask", torch.full((8, 8), -torch.inf).triu(1))

    def forward(self, inputs: Tensor) -> Tensor:
        q, k, v = self.read(inputs.squeeze(1)).chunk(3, dim=-1)
        mask = self.mask if self.mask_is_buffer else torch.full((8, 8), -torch.inf).triu(1)
        weights = (q @ k.transpose(-1, -2) / HIDDEN**0.5 + mask).softmax(dim=-1)
        return self.mix((weights @ v).mean(dim=1))


class Tied(nn.Module):
    """An autoencoder's weight, used twice under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.encode, self.decode = nn.Linear(64, HIDDEN, bias=False), nn.Linear(HIDDEN, 64, bias=False)
        self.decode.weight = nn.Parameter(self.encode.weight.T.clone())
        self.again = nn.Linear(64, HIDDEN, bias=False)
        self.again.weight = self.encode.weight
        self.last = nn.Linear(HIDDEN, CLASSES)

    def forward(self, inputs: Tensor) -> Tensor:
        flat = inputs.flatten(1)
        return self.last(self.again(flat + self.decode(self.encode(flat).tanh())))


class Buffered(nn.Module):
    """A linear model with a buffer that it reads, and may write in training."""

    def __init__(self, buffer: Tensor, use: Callable[[Tensor, Tensor], Tensor], persistent: bool = True) -> None:
        super().__init__()
        self.first, self.last, self.use = nn.Linear(64, HIDDEN), nn.Linear(HIDDEN, CLASSES), use
        self.register_buffer("table", buffer, persistent=persistent)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.last(self.use(self.first(inputs.flatten(1)), self.table))


class Embedded(nn.Module):
    """Pixels as words."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.last = nn.Embedding(32, 4), nn.Linear(4, CLASSES)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.last(self.words((inputs.flatten(1) * 4).round().long().clamp(0, 31)).mean(dim=1))


class Unused(nn.Module):
    """Has a layer that its forward pass does not reach."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.spare = sequential(nn.ReLU()), nn.Linear(3, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.body(inputs)


class Remembers(nn.Module):
    """Keeps a hidden state from one batch to the next, in training and in evaluation, as careless recurrent nets do."""

    def __init__(self, keep: str) -> None:
        super().__init__()
        self.first, self.last, self.keep = nn.Linear(64, HIDDEN), nn.Linear(HIDDEN, CLASSES), keep
        self.hidden: Tensor | None = None
        self.seen: list[Tensor] = []
        self.plain = SimpleNamespace(hidden=None)

    def forward(self, inputs: Tensor) -> Tensor:
        new = self.first(inputs.flatten(1)).relu()
        old = {"attribute": self.hidden, "list": self.seen[-1] if self.seen else None, "object": self.plain.hidden}
        before = old[self.keep]
        if before is not None:
            new = new + 0.5 * before
        mean = new.detach().mean(dim=0)
        if self.keep == "attribute":
            self.hidden = mean
        elif self.keep == "list":
            self.seen.append(mean)
        else:
            self.plain.hidden = mean
        return self.last(new)


class Counts(nn.Module):
    """Its dropout is warmed up by the number of its own calls, a plain integer of a module within."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.calls = sequential(nn.ReLU()), 0

    def forward(self, inputs: Tensor) -> Tensor:
        if self.training:
            self.calls += 1
        return self.body(inputs) / (1 + 0.1 * min(self.calls, 20))


class OwnGenerator(nn.Module):
    """Drops hidden units by a generator of its own."""

    def __init__(self, generator: Any, draw: Callable[[Any, int], Any]) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(64, HIDDEN), nn.Linear(HIDDEN, CLASSES)
        self.kept, self.draw = {"generator": generator}, draw

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = self.first(inputs.flatten(1)).relu()
        if self.training:
            draws = torch.as_tensor(self.draw(self.kept["generator"], hidden.numel()), dtype=hidden.dtype)
            hidden = hidden * (draws.view(hidden.shape) < 0.7)
        return self.last(hidden)


class Caches(nn.Module):
    """Makes a table at its first call, and keeps it."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.table = sequential(nn.ReLU()), None

    def forward(self, inputs: Tensor) -> Tensor:
        if self.table is None:
            self.table = torch.linspace(0.5, 1.5, 64)
        return self.body(inputs.flatten(1) * self.table)


OUTSIDE: list[float] = []


def remember_outside(hidden: Tensor) -> Tensor:
    OUTSIDE.append(1.0)
    return hidden * (1 + 0.1 * len(OUTSIDE))


class Complex(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(64, CLASSES, dtype=torch.complex64)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.last(inputs.flatten(1).to(torch.complex64)).abs()


class Picky(nn.Module):
    """Raises for batches with one of some pictures."""

    def __init__(self, pictures: Tensor, error: BaseException) -> None:
        super().__init__()
        self.body, self.pictures, self.error = sequential(nn.ReLU()), pictures.flatten(1), error

    def forward(self, inputs: Tensor) -> Tensor:
        flat = inputs.flatten(1)
        if self.training and bool((flat[:, None] == self.pictures).all(dim=2).any()):
            raise self.error
        return self.body(inputs)


class Pair(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = sequential()

    def forward(self, inputs: Tensor) -> Any:
        return self.body(inputs), inputs


def frozen(layers: Callable[[nn.Module], nn.Module]) -> nn.Module:
    model = sequential(nn.ReLU())
    layers(model).requires_grad_(False)
    return model


def count_calls(hidden: Tensor, table: Tensor) -> Tensor:
    table += 1
    return hidden


def drops_with(draw: Callable[[], float]) -> Callable[[Tensor], Tensor]:
    return lambda hidden: hidden * (draw() < 0.7) if hidden.requires_grad else hidden


DRAWS = "it draws random numbers"
KINDS: dict[str, Kind] = {
    "linear": Kind(sequential, "cohort"),
    "layer norm": Kind(lambda: sequential(nn.LayerNorm(HIDDEN), nn.ReLU()), "cohort"),
    "group norm": Kind(lambda: sequential(nn.GroupNorm(3, HIDDEN), nn.GELU()), "cohort"),
    "attention, mask made anew": Kind(lambda: Attention(False), "cohort"),
    "tied weights": Kind(Tied, "cohort"),
    "frozen layer": Kind(lambda: frozen(lambda model: model[1]), "cohort"),
    "frozen bias": Kind(lambda: frozen(lambda model: model[3].bias), "cohort"),
    "frozen all but the first": Kind(lambda: frozen(lambda model: model[3]), "cohort"),
    "embedding": Kind(Embedded, "cohort"),
    "unused layer": Kind(Unused, "cohort"),
    "empty list and identity": Kind(
        lambda: sequential(nn.ModuleList(), nn.Identity())[:0].append(sequential()), "cohort"
    ),
    "lazy layer": Kind(
        lambda: nn.Sequential(nn.Flatten(), nn.LazyLinear(HIDDEN), nn.Linear(HIDDEN, CLASSES)), "cohort"
    ),
    "weight norm": Kind(
        lambda: sequential(nn.utils.parametrizations.weight_norm(nn.Linear(HIDDEN, HIDDEN))),
        "alone",
        "vmap cannot run it",
    ),
    "half precision inside": Kind(lambda: Calls(lambda hidden: hidden.bfloat16().float()), "cohort"),
    "dropout": Kind(lambda: sequential(nn.ReLU(), nn.Dropout(0.3)), "alone", DRAWS),
    "alpha dropout": Kind(lambda: sequential(nn.SELU(), nn.AlphaDropout(0.2)), "alone", DRAWS),
    "stochastic depth": Kind(lambda: sequential(nn.ReLU(), StochasticDepth(0.4, "row")), "alone", DRAWS),
    "noise in evaluation too": Kind(
        lambda: Calls(lambda hidden: hidden + 0.3 * torch.randn_like(hidden)), "alone", DRAWS
    ),
    "draws from Python's generator": Kind(lambda: Calls(drops_with(random.random)), "alone", DRAWS),
    "draws from NumPy's generator": Kind(lambda: Calls(drops_with(np.random.random)), "alone", DRAWS),
    "GRU": Kind(lambda: Recurrent(nn.GRU), "cohort"),
    "LSTM": Kind(lambda: Recurrent(nn.LSTM), "alone", "vmap cannot run it"),
    "branch on data": Kind(
        lambda: Calls(lambda hidden: hidden.tanh() if float(hidden.sum()) > 0 else hidden.sin()), "alone", "vmap cannot"
    ),
    "examples look at each other": Kind(
        lambda: Calls(lambda hidden: hidden - 0.5 * hidden.mean(dim=0)), "alone", "gradients differ"
    ),
    "batch norm without statistics": Kind(
        lambda: sequential(nn.BatchNorm1d(HIDDEN, track_running_stats=False)), "alone", "gradients differ"
    ),
    "batch norm": Kind(lambda: sequential(nn.BatchNorm1d(HIDDEN), nn.ReLU()), "alone"),
    "spectral norm": Kind(
        lambda: sequential(nn.utils.parametrizations.spectral_norm(nn.Linear(HIDDEN, HIDDEN))), "alone"
    ),
    "attention, mask of -inf": Kind(lambda: Attention(True), "alone"),
    "complex table": Kind(
        lambda: Buffered(torch.polar(torch.ones(HIDDEN), torch.arange(HIDDEN) / 3), lambda h, t: (h * t).real), "alone"
    ),
    "table of NaN": Kind(
        lambda: Buffered(torch.full((HIDDEN,), torch.nan), lambda h, t: h.where(t.isnan(), 0)), "alone"
    ),
    "integer table": Kind(lambda: Buffered(torch.arange(HIDDEN).flip(0), lambda h, t: h[:, t]), "alone"),
    "counter": Kind(lambda: Buffered(torch.zeros((), dtype=torch.int64), count_calls), "alone"),
    "boolean table": Kind(lambda: Buffered(torch.arange(HIDDEN) % 2 > 0, lambda h, t: h * t), "alone"),
    "buffer that is not saved": Kind(lambda: Buffered(torch.ones(HIDDEN), lambda h, t: h * t, False), "alone"),
    "hidden state": Kind(lambda: Remembers("attribute"), "alone", "'hidden'"),
    "hidden states in a list": Kind(lambda: Remembers("list"), "alone", "'seen'"),
    "hidden state in an object": Kind(lambda: Remembers("object"), "alone", "'plain'"),
    "number of calls": Kind(lambda: nn.Sequential(Counts()), "alone", "'0.calls'"),
    "torch generator of its own": Kind(
        lambda: OwnGenerator(torch.Generator().manual_seed(3), lambda own, n: torch.rand(n, generator=own)),
        "alone",
        "'kept'",
    ),
    "NumPy generator of its own": Kind(
        lambda: OwnGenerator(np.random.default_rng(3), lambda own, n: own.random(n)), "alone", "'kept'"
    ),
    "old NumPy generator of its own": Kind(
        lambda: OwnGenerator(np.random.RandomState(3), lambda own, n: own.random_sample(n)),
        "alone",
        "'kept'",
    ),
    "Python generator of its own": Kind(
        lambda: OwnGenerator(random.Random(3), lambda own, n: [own.random() for _ in range(n)]), "alone", "'kept'"
    ),
    "table made at the first call": Kind(Caches, "alone", "'table'"),
    "remembers outside of itself": Kind(
        lambda: Calls(remember_outside), "refused", r"model: must be a function of its inputs"
    ),
    "float64": Kind(lambda: sequential().double(), "refused", r"model: must have float32 parameters, got float64"),
    "float16": Kind(lambda: sequential().half(), "refused", r"model: must have float32 parameters, got float16"),
    "bfloat16": Kind(lambda: sequential().bfloat16(), "refused", r"model: must have float32 parameters, got bfloat16"),
    "a float64 layer": Kind(
        lambda: sequential(nn.Linear(HIDDEN, HIDDEN).double()),
        "refused",
        r"float32 parameters, got float64 in '2.weight'",
    ),
    "complex parameters": Kind(Complex, "refused", r"model: must have float32 parameters, got complex64"),
    "all frozen": Kind(lambda: sequential().requires_grad_(False), "refused", r"model: has nothing to train"),
    "no parameters": Kind(
        lambda: nn.Sequential(nn.Flatten(), nn.Identity()), "refused", r"model: has nothing to train"
    ),
    "two outputs": Kind(Pair, "refused", r"model: must make logits \(3, 10\) of 3 inputs, got tuple"),
    "other classes": Kind(lambda: sequential()[:2], "refused", r"model: must make logits \(3, 10\).* got \(3, 12\)"),
    "other inputs": Kind(lambda: nn.Linear(3, CLASSES), "refused", r"model: cannot read inputs \(3, 1, 8, 8\) of"),
    "raises for all data": Kind(
        lambda: Calls(lambda hidden: F.one_hot(hidden)), "refused", r"model: cannot read inputs .*RuntimeError"
    ),
    "a lazy layer that is not reached": Kind(lambda: nn.ModuleDict({"a": nn.LazyLinear(3)}), "refused", r"model: "),
}
