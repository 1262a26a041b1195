"""A run is one folder; this is the only place that knows the names of its files."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save
from torch import Tensor

from fedrobust.records.environment import describe_environment
from fedrobust.records.files import sync_folder, to_json, write_atomically

Row: TypeAlias = Mapping[str, Any]
"""What one round leaves behind, by name: plain JSON values. Round 0 is the initial model."""


@dataclass(frozen=True)
class RunFolder:
    """The folder of one run.

    One run has one outcome: writing a summary removes the failure of an earlier attempt, and the other way round.

    Attributes:
        path: the folder; it need not exist before `create`.
    """

    path: Path

    @property
    def plots(self) -> Path:
        """Where the run's pictures go; made on the first one."""
        return self.path / "plots"

    def create(self, *, resume: bool = False) -> None:
        """Make the folder.

        Args:
            resume: whether the folder may already hold rounds.

        Raises:
            FileExistsError: the folder holds the rounds of another run, which this one would write into.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        if not resume and self._rounds.exists():
            raise FileExistsError(f"{self.path} already holds a run; resume it or choose another folder")

    def write_config(self, yaml_text: str) -> None:
        """Write the resolved config, as YAML."""
        self._write("config.yaml", yaml_text)

    def write_choices(self, choices: Mapping[str, str]) -> None:
        """Write which option of each config group was chosen, such as `{"attack": "dba"}`."""
        self._write("choices.json", to_json(choices, indent=2) + "\n")

    def read_choices(self) -> dict[str, str]:
        """What `write_choices` wrote; nothing for a folder without it."""
        path = self.path / "choices.json"
        return dict(json.loads(path.read_text())) if path.exists() else {}

    def write_environment(self, device: str) -> None:
        """Write what the run runs on: versions, commit, `device`, threads, command line."""
        self._write("environment.json", to_json(describe_environment(device), indent=2) + "\n")

    def write_partition(
        self, histogram: Tensor, *, seed: int, sizes: Sequence[int], indices: Sequence[Sequence[int] | Tensor]
    ) -> None:
        """Write which examples each client holds.

        Args:
            histogram: integer `(clients, classes)`, examples of each class at each client.
            seed: the scenario's seed that the partition was drawn from.
            sizes: `(clients,)`, examples at each client.
            indices: per client, the positions of its examples in the training set.
        """
        partition = {
            "seed": seed,
            "num_clients": histogram.shape[0],
            "num_classes": histogram.shape[1],
            "sizes": [int(size) for size in sizes],
            "histogram": histogram.tolist(),
        }
        self._write("partition.json", to_json(partition) + "\n")
        parts = [torch.as_tensor(part, dtype=torch.int64) for part in indices]
        lengths = torch.tensor([0, *(len(part) for part in parts)])
        ragged = {"indices": torch.cat([torch.empty(0, dtype=torch.int64), *parts]), "offsets": lengths.cumsum(0)}
        write_atomically(self.path / "partition.safetensors", _serialise(ragged))

    def read_histogram(self) -> Tensor | None:
        """The partition's `(clients, classes)` counts, or `None` before it was written."""
        path = self.path / "partition.json"
        return torch.tensor(json.loads(path.read_text("utf-8"))["histogram"]) if path.exists() else None

    def read_partition(self) -> list[Tensor]:
        """Per client, the positions of its examples in the training set, int64."""
        ragged = load_file(self.path / "partition.safetensors")
        return list(ragged["indices"].tensor_split(ragged["offsets"][1:-1]))

    def append_round(self, row: Row) -> None:
        """Append one round as one line, on disk when this returns; after a kill, call `truncate_rounds` first."""
        is_first = not self._rounds.exists()
        with self._rounds.open("ab") as file:
            file.write((to_json(row) + "\n").encode())
            file.flush()
            os.fsync(file.fileno())
        if is_first:
            sync_folder(self.path)

    def read_rounds(self) -> list[dict[str, Any]]:
        """All rounds in the order written; a last line that a kill has torn is left out.

        Raises:
            ValueError: a line before the last is not JSON.
        """
        return [row for _, row in self._complete_lines()]

    def truncate_rounds(self, last_round: int) -> None:
        """Drop the rounds after `last_round`, and a torn last line; the bytes of what stays do not change."""
        if self._rounds.exists():
            kept = [line for line, row in self._complete_lines() if row["round"] <= last_round]
            write_atomically(self._rounds, b"".join(kept))

    def write_summary(self, summary: Row) -> None:
        """Write the final figures of a run that has finished; NaN and infinity become null."""
        self._write("summary.json", to_json(summary, indent=2) + "\n")
        (self.path / "failure.json").unlink(missing_ok=True)

    def write_failure(self, reason: str, traceback: str | None = None) -> None:
        """Write why a run did not finish, and where in the code if that is not a matter of its config."""
        failure = {"reason": reason} if traceback is None else {"reason": reason, "traceback": traceback}
        self._write("failure.json", to_json(failure, indent=2) + "\n")
        (self.path / "summary.json").unlink(missing_ok=True)

    def save_model(self, tensors: Mapping[str, Tensor], name: str = "model") -> None:
        """Write the model, or another under its `name`; the same tensors give the same bytes."""
        write_atomically(self.path / f"{name}.safetensors", _serialise(tensors))

    def save_checkpoint(self, round: int, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> None:
        """Replace the checkpoint by the state after `round`; a kill leaves the old one or the new one, never a mix.

        Args:
            round: the last round that the state contains.
            tensors: what must come back exactly, by name.
            meta: what else must come back, as JSON values (here NaN and infinity do survive).
        """
        text = json.dumps({"round": round, "meta": dict(meta)}, sort_keys=True)
        write_atomically(self._checkpoint, _serialise(tensors, {"checkpoint": text}))

    def load_checkpoint(self) -> tuple[int, dict[str, Tensor], dict[str, Any]] | None:
        """The round, tensors (on the CPU) and meta last saved, or `None` if there is no checkpoint."""
        if not self._checkpoint.exists():
            return None
        with safe_open(self._checkpoint, framework="pt") as file:
            saved = json.loads(file.metadata()["checkpoint"])
            # Cloned, since the file's own tensors are a view of a file that the next checkpoint replaces.
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 (not a mapping)
        return saved["round"], tensors, saved["meta"]

    @property
    def _rounds(self) -> Path:
        return self.path / "rounds.jsonl"

    @property
    def _checkpoint(self) -> Path:
        return self.path / "checkpoint.safetensors"

    def _write(self, name: str, text: str) -> None:
        write_atomically(self.path / name, text.encode())

    def _complete_lines(self) -> list[tuple[bytes, dict[str, Any]]]:
        if not self._rounds.exists():
            return []
        # A line is written with its newline at once, so only a line without one can be torn.
        lines = [line for line in self._rounds.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]
        return [(line, self._parse(number, line)) for number, line in enumerate(lines, start=1)]

    def _parse(self, number: int, line: bytes) -> dict[str, Any]:
        try:
            row: dict[str, Any] = json.loads(line)
        except ValueError as error:
            raise ValueError(f"{self._rounds}, line {number}: not JSON ({error})") from None
        return row


def _serialise(tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None) -> bytes:
    """Safetensors bytes in the order of the names; one metadata entry at most, since the format sorts none."""
    # Copied, since the format refuses tensors that share memory, as views into one parameter vector do.
    copies = {
        name: tensors[name].detach().to("cpu").clone(memory_format=torch.contiguous_format) for name in sorted(tensors)
    }
    return save(copies, metadata=metadata)
