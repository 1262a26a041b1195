"""A hash of a deployed model's weights: the smallest change to any of them shows, and where.

SHA-256: National Institute of Standards and Technology, "Secure hash standard", FIPS 180-4, 2015,
https://doi.org/10.6028/NIST.FIPS.180-4
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class WeightCheck:
    """How a model differs from the one that was hashed.

    Attributes:
        changed: names of tensors with other contents, another type or another shape.
        missing: names that are gone.
        added: names that are new.
    """

    changed: tuple[str, ...]
    missing: tuple[str, ...]
    added: tuple[str, ...]

    @property
    def is_intact(self) -> bool:
        """Whether nothing differs."""
        return not (self.changed or self.missing or self.added)

    def summary(self) -> str:
        """A line for people."""
        if self.is_intact:
            return "intact"
        parts = [(f"{kind}: {', '.join(names)}") for kind, names in vars(self).items() if names]
        return "; ".join(parts)


@dataclass(frozen=True)
class WeightHash:
    """SHA-256 of each parameter and buffer of a model, and of all of them.

    Attributes:
        tensors: hexadecimal digests by name.
        model: hexadecimal digest over the sorted names and the digests of their tensors.
    """

    tensors: Mapping[str, str]
    model: str = field(init=False)

    def __post_init__(self) -> None:
        text = "".join(f"{name}\0{self.tensors[name]}\n" for name in sorted(self.tensors))
        object.__setattr__(self, "model", hashlib.sha256(text.encode()).hexdigest())

    @classmethod
    def of(cls, model: nn.Module | Mapping[str, Tensor]) -> "WeightHash":
        """The hash of a model's `state_dict`, or of named tensors; on whichever device they lie."""
        state = model.state_dict() if isinstance(model, nn.Module) else model
        return cls({name: _digest(tensor) for name, tensor in sorted(state.items())})

    @classmethod
    def from_json(cls, values: Mapping[str, object]) -> "WeightHash":
        """What `to_json` gave.

        Raises:
            ValueError: no such record, or one whose digests do not belong together.
        """
        tensors, model = values.get("tensors"), values.get("model")
        if not isinstance(tensors, Mapping) or not all(isinstance(one, str) for one in tensors.values()):
            raise ValueError("a weight hash needs `tensors`, hexadecimal digests by name")
        known = cls(dict(tensors))
        if known.model != model:
            raise ValueError(f"the record of the hash was changed: its tensors give {known.model}, it says {model}")
        return known

    def to_json(self) -> dict[str, object]:
        """Plain values."""
        return {"model": self.model, "tensors": dict(self.tensors)}

    def verify(self, model: nn.Module | Mapping[str, Tensor]) -> WeightCheck:
        """Compare a model with the one that was hashed."""
        now = WeightHash.of(model).tensors
        both = self.tensors.keys() & now.keys()
        return WeightCheck(
            changed=tuple(sorted(name for name in both if now[name] != self.tensors[name])),
            missing=tuple(sorted(self.tensors.keys() - now.keys())),
            added=tuple(sorted(now.keys() - self.tensors.keys())),
        )


def _digest(tensor: Tensor) -> str:
    """Over type, shape and bytes in row-major order: how a tensor is laid out in memory does not matter."""
    plain = tensor.detach().to("cpu").contiguous()
    digest = hashlib.sha256(f"{plain.dtype} {tuple(plain.shape)}\n".encode())
    digest.update(plain.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
