"""State that a module keeps on itself beside parameters and buffers: a hidden state, a counter, a generator.

Nobody sends it to clients, so each must find it as the module was built; else a client's update depends on who trained
before it on the same node.
"""

import copy
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

_KEY = "_own_state"
_OF_TORCH = frozenset(vars(nn.Module())) | {_KEY}
_PLAIN = (bool, int, float, complex, str, bytes, type(None))
_DEEPEST = 6  # objects within objects that are looked through


class OwnState:
    """The attributes of all of a module's modules, as they were when this was made."""

    def __init__(self, model: nn.Module) -> None:
        self._kept = {path: _copied(own, model) for path, own in _attributes(model)}

    def first_changed(self, model: nn.Module) -> str | None:
        """The name of an attribute that is not as it was, such as `encoder.hidden`; `None` if all are."""
        for path, now in _attributes(model):
            kept = self._kept.get(path, {})
            for name in {**kept, **now}:
                if name not in now or name not in kept or not _same(now[name], kept[name]):
                    return f"{path}.{name}" if path else name
        return None

    def put_back(self, model: nn.Module) -> None:
        """Make all attributes what they were; generators among them start from torch's current seed."""
        for path, module in model.named_modules():
            if path not in self._kept:
                continue
            own = vars(module)
            for name in [name for name in own if name not in _OF_TORCH]:
                del own[name]
            own.update(_copied(self._kept[path], model))
        for _, attributes in _attributes(model):
            _reseed(attributes, torch.initial_seed() % 2**63)


def remember(model: nn.Module, state: OwnState) -> None:
    """From now on `put_back(model)` makes it what it is in `state`; a deep copy of the model remembers it, too."""
    vars(model)[_KEY] = state


def put_back(model: nn.Module) -> None:
    """Forget whatever the model has kept on itself; call it before a use that must not depend on earlier ones.

    Costs nothing for a model that keeps nothing (`examine_model` finds out).
    """
    state = vars(model).get(_KEY)
    if state is not None:
        state.put_back(model)


def _attributes(model: nn.Module) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, module in model.named_modules():
        yield path, {name: value for name, value in vars(module).items() if name not in _OF_TORCH}


def _copied(attributes: dict[str, Any], model: nn.Module) -> dict[str, Any]:
    """Deep copies, but for the model's own tensors and modules; what cannot be copied (a lock, a file) stays itself."""
    shared = [*model.modules(), *model.parameters(), *model.buffers()]
    copies: dict[str, Any] = {}
    for name, value in attributes.items():
        try:
            copies[name] = (
                value if isinstance(value, _PLAIN) else copy.deepcopy(value, {id(one): one for one in shared})
            )
        except Exception:  # whatever an object raises that does not want to be copied
            copies[name] = value
    return copies


def _same(one: Any, other: Any, depth: int = 0) -> bool:
    """Whether two objects hold the same; what cannot be compared counts as the same."""
    if one is other or depth > _DEEPEST:
        return True
    if type(one) is not type(other):
        return False
    if isinstance(one, _PLAIN):
        return bool(one == other) or (one != one and other != other)
    if isinstance(one, Tensor):
        return one.shape == other.shape and one.dtype == other.dtype and _equal_tensors(one, other)
    if isinstance(one, np.ndarray):
        return bool(one.shape == other.shape and one.tobytes() == other.tobytes())
    if (states := _generator_state(one)) is not None:
        return states == _generator_state(other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key], depth + 1) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(_same(a, b, depth + 1) for a, b in zip(one, other, strict=True))
    if isinstance(one, (set, frozenset)):
        return len(one) == len(other)
    if isinstance(one, nn.Module) or not hasattr(one, "__dict__"):
        return True
    return _same(vars(one), vars(other), depth + 1)


def _equal_tensors(one: Tensor, other: Tensor) -> bool:
    try:
        return torch.equal(one, other) or bool(torch.allclose(one, other, rtol=0, atol=0, equal_nan=True))
    except (RuntimeError, NotImplementedError):  # a tensor without values: on the meta device, of a transform
        return True


def _generator_state(one: Any) -> bytes | None:
    if isinstance(one, torch.Generator):
        return one.get_state().numpy().tobytes()
    if isinstance(one, random.Random):
        return repr(one.getstate()).encode()
    if isinstance(one, np.random.Generator):
        return repr(one.bit_generator.state).encode()
    if isinstance(one, np.random.RandomState):
        return repr(one.get_state(legacy=False)).encode()
    return None


def _reseed(found: Any, seed: int, depth: int = 0) -> None:
    """Let every generator in `found` start from `seed`."""
    if isinstance(found, torch.Generator):
        found.manual_seed(seed)
    elif isinstance(found, random.Random):
        found.seed(seed)
    elif isinstance(found, np.random.Generator):
        found.bit_generator.state = type(found.bit_generator)(seed).state
    elif isinstance(found, np.random.RandomState):
        found.seed(seed % 2**32)
    elif depth > _DEEPEST or isinstance(found, (*_PLAIN, Tensor, nn.Module, np.ndarray, type)):
        return
    elif isinstance(found, dict):
        for one in found.values():
            _reseed(one, seed, depth + 1)
    elif isinstance(found, (list, tuple)):
        for one in found:
            _reseed(one, seed, depth + 1)
    elif hasattr(found, "__dict__"):
        _reseed(vars(found), seed, depth + 1)
