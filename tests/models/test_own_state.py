"""What a module keeps on itself is put back, whatever it is; what is shared with the module stays shared."""

import copy
import random
import threading
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from fedrobust.models.own_state import OwnState, put_back, remember


class Changed:
    """An object of somebody's own, without equality."""

    def __init__(self) -> None:
        self.numbers = [1, 2]


CHANGES: dict[str, tuple[Any, Any]] = {
    "integer": (0, lambda model: setattr(model, "kept", 1)),
    "nothing to tensor": (None, lambda model: setattr(model, "kept", torch.ones(2))),
    "tensor in place": (torch.zeros(2), lambda model: model.kept.add_(1)),
    "tensor of another shape": (torch.zeros(2), lambda model: setattr(model, "kept", torch.zeros(3))),
    "array in place": (np.zeros(2), lambda model: model.kept.__setitem__(0, 1.0)),
    "list": ([], lambda model: model.kept.append(1)),
    "dict of lists": ({"a": [1]}, lambda model: model.kept["a"].append(2)),
    "set": (set(), lambda model: model.kept.add(3)),
    "object": (Changed(), lambda model: model.kept.numbers.append(3)),
    "namespace": (SimpleNamespace(a=None), lambda model: setattr(model.kept, "a", 3)),
    "torch generator": (torch.Generator(), lambda model: torch.rand(1, generator=model.kept)),
    "NumPy generator": (np.random.default_rng(1), lambda model: model.kept.random()),
    "Python generator": (random.Random(1), lambda model: model.kept.random()),
    "gone": (3, lambda model: delattr(model, "kept")),
    "new": (3, lambda model: setattr(model, "other", 4)),
}


@pytest.mark.parametrize("within", [False, True])
@pytest.mark.parametrize("name", CHANGES)
def test_a_change_is_found_and_put_back(name: str, within: bool) -> None:
    value, change = CHANGES[name]
    inner = nn.Linear(2, 2)
    inner.kept = copy.deepcopy(value)
    model = nn.Sequential(inner) if within else inner
    state = OwnState(model)
    assert state.first_changed(model) is None
    change(inner)
    path = "0." if within else ""
    assert state.first_changed(model) == f"{path}{'other' if name == 'new' else 'kept'}"
    put_back(model)
    assert state.first_changed(model) is not None, "nobody asked to remember"
    remember(model, state)
    for again in (model, copy.deepcopy(model)):
        put_back(again)
        if "generator" not in name:
            assert state.first_changed(again) is None
    change(inner)
    put_back(model)
    assert "generator" in name or state.first_changed(model) is None, "the copy that is kept must not be handed out"


def test_generators_start_from_torchs_seed() -> None:
    model = nn.Linear(2, 2)
    model.kept = {"all": [torch.Generator(), np.random.default_rng(1), random.Random(1)]}
    remember(model, OwnState(model))

    def draws(seed: int) -> list[float]:
        torch.manual_seed(seed)
        put_back(model)
        ours, numpys, pythons = model.kept["all"]
        return [float(torch.rand(1, generator=ours)), float(numpys.random()), pythons.random()]

    assert draws(1) == draws(1)
    assert all(one != other for one, other in zip(draws(1), draws(2), strict=True))


@pytest.mark.parametrize("cell", [nn.GRU(3, 4), nn.LSTM(3, 4), nn.TransformerEncoderLayer(4, 2), nn.BatchNorm1d(3)])
def test_parameters_stay_those_of_the_module(cell: nn.Module) -> None:
    """RNNs hold their parameters in lists of their own: these must still be the trained ones."""
    state = OwnState(cell)
    remember(cell, state)
    before = dict(cell.named_parameters())
    put_back(cell)
    assert all(one is before[name] for name, one in cell.named_parameters())
    for weights in getattr(cell, "_flat_weights", []):
        assert any(weights is one for one in before.values())
    assert state.first_changed(cell) is None


def test_what_cannot_be_copied_stays_itself() -> None:
    model = nn.Linear(2, 2)
    model.lock, model.calls = threading.Lock(), 0
    lock = model.lock
    state = OwnState(model)
    remember(model, state)
    model.calls = 3
    put_back(model)
    assert model.lock is lock
    assert model.calls == 0
