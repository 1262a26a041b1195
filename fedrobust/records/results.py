"""What a run computes, by the names of its files: enough to know of a folder whether it is taken, without torch."""

from pathlib import Path

CHECKPOINTS = ("checkpoint.safetensors", "checkpoint.previous.safetensors")
_RESULTS = ("rounds.jsonl", *CHECKPOINTS, "summary.json", "model.safetensors")
"""What a run has computed; a folder with one of them is taken."""


def is_taken(folder: Path) -> bool:
    """Whether a run has left results in `folder`."""
    return any((folder / name).exists() for name in _RESULTS)
