"""A checkpoint: tensors and what belongs to them, in one file that proves itself.

It is a safetensors file whose one metadata entry holds the round, the config that it belongs to, the versions it was
written by, and a digest of all of that and of every tensor. What does not fit its digest is not believed.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

_ENTRY = "checkpoint"

RUN = "the run"
TWIN = "the benign twin"


class CheckpointError(ValueError):
    """A file that is no checkpoint, or one that is damaged; the message names it, and says which."""


@dataclass(frozen=True)
class Checkpoint:
    """The state after a round.

    Attributes:
        round: the last round that the state contains.
        tensors: what must come back exactly, by name.
        meta: what else must come back, as JSON values (here NaN and infinity do survive).
        config: the settings of the run by dotted name, as text; empty where it was written without.
        choices: the option of each config group.
        versions: of packages, by name.
        part: whose state it is: the run's, or that of what is played beside it.
        rounds: the SHA-256 of rounds.jsonl up to the round.
    """

    round: int
    tensors: Mapping[str, Tensor]
    meta: Mapping[str, Any]
    config: Mapping[str, str] = field(default_factory=dict)
    choices: Mapping[str, str] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    part: str = RUN
    rounds: str = ""

    def to_bytes(self) -> bytes:
        """The file's content; the same checkpoint gives the same bytes."""
        tensors = portable(self.tensors)
        said = self._said()
        text = json.dumps({**said, "digest": _digest(said, tensors)}, sort_keys=True)
        return save(tensors, metadata={_ENTRY: text})

    @classmethod
    def read(cls, path: Path) -> "Checkpoint":
        """The checkpoint in a file, its tensors on the CPU.

        Raises:
            CheckpointError: it is none, it is cut or damaged, or it was written before checkpoints had digests.
        """
        try:
            with safe_open(path, framework="pt") as file:
                entry = (file.metadata() or {}).get(_ENTRY)
                if entry is None:
                    raise CheckpointError(f"{path} is no checkpoint (a model, perhaps)")
                # Cloned, since the file's own tensors are a view of a file that the next checkpoint replaces.
                tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 (no mapping)
            said = json.loads(entry)
            digest = said.pop("digest", None)
            if digest is None:
                raise CheckpointError(f"{path} was written by a version whose checkpoints cannot be verified")
            if digest != _digest(said, tensors):
                raise CheckpointError(f"{path} is damaged: its content is not what was written")
            return cls(tensors=tensors, **said)
        except CheckpointError:
            raise
        except (SafetensorError, OSError, ValueError, TypeError, KeyError, AttributeError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:120]
            raise CheckpointError(f"{path} is damaged, or no checkpoint ({type(error).__name__}: {reason})") from None

    def _said(self) -> dict[str, Any]:
        return {
            "round": self.round,
            "meta": dict(self.meta),
            "config": dict(self.config),
            "choices": dict(self.choices),
            "versions": dict(self.versions),
            "part": self.part,
            "rounds": self.rounds,
        }


def portable(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies on the CPU in the order of the names: safetensors refuses tensors that share memory."""
    return {
        name: tensors[name].detach().to("cpu").clone(memory_format=torch.contiguous_format) for name in sorted(tensors)
    }


def _digest(said: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    found = hashlib.blake2b(json.dumps(said, sort_keys=True).encode(), digest_size=20)
    for name in sorted(tensors):
        values = tensors[name].contiguous()
        found.update(f"\0{name}\0{values.dtype}\0{tuple(values.shape)}\0".encode())
        if values.numel():
            found.update(values.view(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()
