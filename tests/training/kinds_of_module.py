"""Modules of many kinds, as somebody might bring them, and what is expected of each."""

import random
import warnings
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


class Layer(nn.Module):
    """Two linear layers, and between them whatever `between` makes of the module and its hidden units."""

    def __init__(self, between: Callable[[Any, Tensor], Tensor], prepare: Callable[[Any], Any] | None = None) -> None:
        super().__init__()
        self.first, self.last, self.between = nn.Linear(64, HIDDEN), nn.Linear(HIDDEN, CLASSES), between
        if prepare is not None:
            prepare(self)

    def forward(self, inputs: Tensor) -> Any:
        return self.last(self.between(self, self.first(inputs.flatten(1)).relu()))


def max_norm_by_data(model: Any, hidden: Tensor) -> Tensor:
    """The usual constraint of EEGNet, which gives the weight another storage."""
    model.last.weight.data = torch.renorm(model.last.weight.data, p=2, dim=0, maxnorm=0.5)
    return hidden


def max_norm_in_place(model: Any, hidden: Tensor) -> Tensor:
    with torch.no_grad():
        model.last.weight.copy_(torch.renorm(model.last.weight, p=2, dim=0, maxnorm=0.5))
    return hidden


def running_mean(model: Any, hidden: Tensor) -> Tensor:
    """A buffer that is given a new tensor in each step."""
    if model.training:
        model.mean = 0.5 * model.mean + 0.5 * hidden.detach().mean(dim=0)
    return hidden - model.mean


def follow_by_teacher(model: Any, hidden: Tensor) -> Tensor:
    if model.training:
        with torch.no_grad():
            model.teacher.weight.mul_(0.9).add_(model.first.weight, alpha=0.1)
    return hidden


def unfreezes_later(model: Any, hidden: Tensor) -> Tensor:
    model.calls += model.training
    model.first.weight.requires_grad_(model.calls > 4)
    return hidden


def make_late(model: Any, hidden: Tensor) -> Tensor:
    if model.late is None:
        model.late = nn.Linear(HIDDEN, HIDDEN)
    return model.late(hidden)


def zero_gate(model: Any) -> None:
    model.gate = nn.Parameter(torch.zeros(()))
    nn.init.zeros_(model.last.weight)
    nn.init.zeros_(model.last.bias)


class InAList(nn.Module):
    """Layers in a plain list; their parameters alone are registered."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = [nn.Linear(64, HIDDEN), nn.Linear(HIDDEN, CLASSES)]
        self.held = nn.ParameterList([one for layer in self.layers for one in layer.parameters()])

    def forward(self, inputs: Tensor) -> Tensor:
        return self.layers[1](self.layers[0](inputs.flatten(1)).relu())


class TwoOutputs(nn.Module):
    """Auxiliary logits in training alone, as Inception has."""

    def __init__(self) -> None:
        super().__init__()
        self.body = sequential(nn.ReLU())

    def forward(self, inputs: Tensor) -> Any:
        logits = self.body(inputs)
        return (logits, logits) if self.training else logits


class Merges(nn.Module):
    """A low-rank part, merged into a frozen weight in `eval()` and taken out in `train()`, as loralib does."""

    def __init__(self) -> None:
        super().__init__()
        self.base = nn.Linear(64, CLASSES).requires_grad_(False)
        self.down, self.up = nn.Parameter(0.1 * torch.randn(2, 64)), nn.Parameter(torch.zeros(CLASSES, 2))
        self.is_merged = False

    def train(self, mode: bool = True) -> Any:
        super().train(mode)
        if mode == self.is_merged:
            with torch.no_grad():
                self.base.weight.add_(self.up @ self.down, alpha=-1.0 if mode else 1.0)
            self.is_merged = not mode
        return self

    def forward(self, inputs: Tensor) -> Tensor:
        flat = inputs.flatten(1)
        return self.base(flat) if self.is_merged else self.base(flat) + flat @ self.down.T @ self.up.T


class Ends(nn.Module):
    """A model whose logits go through `end`."""

    def __init__(self, end: Callable[[Tensor], Tensor], prepare: Callable[[Any], Any] | None = None) -> None:
        super().__init__()
        self.body, self.end = sequential(nn.ReLU()), end
        if prepare is not None:
            prepare(self)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.end(self.body(inputs))


def in_training(error: BaseException) -> Callable[[Any, Tensor], Tensor]:
    def between(model: Any, hidden: Tensor) -> Tensor:
        if model.training:
            raise error
        return hidden

    return between


def traced() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated, and still in use
        return torch.jit.trace(sequential(nn.ReLU()), torch.zeros(3, 1, 8, 8))


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
    "hook on a gradient": Kind(
        lambda: Layer(lambda _, hidden: hidden, lambda m: m.first.weight.register_hook(lambda g: g * 0.5)),
        "alone",
        "a hook changes gradients",
    ),
    "weights of bounded norm, another storage": Kind(lambda: Layer(max_norm_by_data), "alone", "one by one"),
    "weights of bounded norm, in place": Kind(lambda: Layer(max_norm_in_place), "alone", "one by one"),
    "buffer that is given a new tensor": Kind(
        lambda: Layer(running_mean, lambda m: m.register_buffer("mean", torch.zeros(HIDDEN))), "alone"
    ),
    "gate at zero": Kind(
        lambda: Layer(lambda m, hidden: hidden + 20 * m.gate * (hidden - hidden.mean(dim=0)), zero_gate),
        "alone",
        "gradients differ",
    ),
    "frozen weights that follow": Kind(
        lambda: Layer(follow_by_teacher, lambda m: setattr(m, "teacher", nn.Linear(64, HIDDEN).requires_grad_(False))),
        "refused",
        r"model: must not change what is frozen.*'teacher.weight'",
    ),
    "freezes as it runs": Kind(
        lambda: Layer(lambda m, hidden: (m.first.requires_grad_(not m.training), hidden)[1]),
        "refused",
        r"model: must not change requires_grad as it runs.*'first.weight'",
    ),
    "a layer made at the first call": Kind(
        lambda: Layer(make_late, lambda m: setattr(m, "late", None)),
        "refused",
        r"model: must have its parameters and buffers when it is built.*'late\.",
    ),
    "layers in a plain list": Kind(InAList, "refused", r"model: must read its parameters where they are registered"),
    "two outputs in training": Kind(
        TwoOutputs, "refused", r"model: must make logits \(3, 10\) of 3 inputs in training mode, got tuple"
    ),
    "squeezes its logits": Kind(lambda: Ends(lambda logits: logits.squeeze()), "cohort"),
    "an expanded buffer": Kind(
        lambda: Ends(
            lambda logits: logits, lambda m: m.register_buffer("table", torch.ones(1, HIDDEN).expand(4, HIDDEN))
        ),
        "alone",
    ),
    "an empty parameter": Kind(
        lambda: Ends(lambda logits: logits, lambda m: setattr(m, "none", nn.Parameter(torch.empty(0)))), "cohort"
    ),
    "a sparse buffer": Kind(
        lambda: Ends(lambda logits: logits, lambda m: m.register_buffer("adjacent", torch.eye(3).to_sparse())),
        "refused",
        r"model: must have dense buffers, got sparse_coo in 'adjacent'",
    ),
    "merges weights for evaluation": Kind(
        Merges, "refused", r"model: must (read its parameters where they are|not change what is frozen)"
    ),
    "compiled to TorchScript": Kind(
        traced,
        "refused",
        r"model: must run with parameters given by name",
    ),
    "raises in training": Kind(
        lambda: Layer(in_training(RuntimeError("not in training"))),
        "refused",
        r"model: cannot be trained on inputs .*not in training",
    ),
    "raises a ValueError in training": Kind(
        lambda: Layer(in_training(ValueError("not in training"))),
        "refused",
        r"model: cannot be trained on inputs .*not in training",
    ),
    "without gradients": Kind(
        lambda: Ends(lambda logits: logits.detach()),
        "refused",
        r"model: cannot be trained on inputs .*does not require",
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
