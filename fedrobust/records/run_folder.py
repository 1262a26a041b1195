"""A run is one folder; this is the only place that knows the names of its files."""

import contextlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import torch
from safetensors.torch import load_file, save
from torch import Tensor

from fedrobust.records.checkpoint import Checkpoint, CheckpointError, portable
from fedrobust.records.environment import describe_environment
from fedrobust.records.files import open_to_append, remove_leftovers, sync_folder, to_json, write_atomically
from fedrobust.records.results import CHECKPOINTS, is_taken

_OLD_SUMMARY = "summary.previous.json"
_OF_AN_ATTEMPT = (
    *CHECKPOINTS,  # first: a kill amid setting aside must not leave a checkpoint without its rounds
    *("rounds.jsonl", "summary.json", _OLD_SUMMARY, "failure.json", "changes.jsonl", "control"),
    *("model.safetensors", "released_model.safetensors", "deployed_model.safetensors"),
)

Row: TypeAlias = Mapping[str, Any]
"""What one round leaves behind, by name: plain JSON values. Round 0 is the initial model."""


class OtherDataError(ValueError):
    """The data of a run are not those that it began with."""


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

    @property
    def control(self) -> "RunFolder":
        """The folder of the run's benign twin."""
        return RunFolder(self.path / "control")

    def create(self, *, resume: bool = False) -> None:
        """Make the folder, and remove what a killed process was writing in it.

        Args:
            resume: whether the folder may already hold results.

        Raises:
            FileExistsError: the folder holds results of another run, which this one would write into.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        if not resume and is_taken(self.path):
            raise FileExistsError(f"{self.path} already holds a run; resume it or choose another folder")
        remove_leftovers(self.path)

    def write_config(self, yaml_text: str) -> None:
        """Write the resolved config, as YAML, unless it is there already."""
        path = self.path / "config.yaml"
        if not path.exists() or path.read_bytes() != yaml_text.encode():
            self._write("config.yaml", yaml_text)

    def write_choices(self, choices: Mapping[str, str]) -> None:
        """Write which option of each config group was chosen, such as `{"attack": "dba"}`."""
        self._write("choices.json", to_json(choices, indent=2) + "\n")

    def read_choices(self) -> dict[str, str]:
        """What `write_choices` wrote; nothing for a folder without it, or with something else in its place."""
        try:
            found = json.loads((self.path / "choices.json").read_text())
        except (OSError, ValueError):
            return {}
        fits = isinstance(found, dict) and all(isinstance(value, str) for value in found.values())
        return found if fits else {}

    def write_environment(self, device: str) -> list[str]:
        """Write what the run runs on: versions, commit, `device`, threads, command line.

        Of a run in parts the first part's stays; those of later parts are lines of environments.jsonl.

        Returns:
            What is not as it was in the first part, `name: before -> now` each.
        """
        here = describe_environment(device)
        path = self.path / "environment.json"
        try:
            before = json.loads(path.read_text("utf-8"))
            assert isinstance(before, dict)
        except (OSError, ValueError, AssertionError):
            self._write("environment.json", to_json(here, indent=2) + "\n")
            return []
        self._append("environments.jsonl", here)
        then, newer = _versions(before), _versions(here)
        return [f"{name}: {then[name]} -> {now}" for name, now in newer.items() if then.get(name, now) != now]

    def write_change(self, round_number: int, changes: Mapping[str, Any]) -> None:
        """Note that settings have changed after `round_number`, `[before, after]` by dotted name: changes.jsonl."""
        self._append("changes.jsonl", {"after_round": round_number, "changes": dict(changes)})

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
        write_atomically(self.path / "partition.safetensors", save(portable(ragged)))

    def read_histogram(self) -> Tensor | None:
        """The partition's `(clients, classes)` counts, or `None` before it was written."""
        path = self.path / "partition.json"
        return torch.tensor(json.loads(path.read_text("utf-8"))["histogram"]) if path.exists() else None

    def read_partition(self) -> list[Tensor]:
        """Per client, the positions of its examples in the training set, int64."""
        ragged = load_file(self.path / "partition.safetensors")
        return list(ragged["indices"].tensor_split(ragged["offsets"][1:-1]))

    def check_partition(self, histogram: Tensor) -> None:
        """Compare the `(clients, classes)` counts of examples with those that the run began with.

        Raises:
            OtherDataError: they differ.
        """
        try:
            before = self.read_histogram()
        except (ValueError, TypeError, KeyError, AttributeError):  # written anew
            return
        if before is not None and before.tolist() != histogram.tolist():
            raise OtherDataError(
                f"{self.path / 'partition.json'}: the clients held other examples when the run began, so the data have "
                "changed: put them back, or begin in another folder"
            )

    def append_round(self, row: Row) -> bytes:
        """Append one round as one line, on disk when this returns; gives the line.

        After a kill, call `truncate_rounds` first.
        """
        return self._append(self._rounds.name, row)

    def lines_until(self, last_round: int) -> bytes:
        """The lines of rounds.jsonl up to that of `last_round`."""
        return b"".join(line for line, row in self._complete_lines() if row["round"] <= last_round)

    def read_rounds(self) -> list[dict[str, Any]]:
        """All rounds in the order written; a last line that a kill has torn is left out.

        Raises:
            ValueError: a line before the last is not JSON.
        """
        return [row for _, row in self._complete_lines()]

    def truncate_rounds(self, last_round: int) -> None:
        """Drop the rounds after `last_round`, and a torn last line; the bytes of what stays do not change."""
        if last_round < 0:
            self._rounds.unlink(missing_ok=True)
        elif self._rounds.exists():
            kept = b"".join(line for line, row in self._complete_lines() if row["round"] <= last_round)
            if kept != self._rounds.read_bytes():
                write_atomically(self._rounds, kept)

    def write_summary(self, summary: Row) -> None:
        """Write the final figures of a run that has finished; NaN and infinity become null."""
        self._write("summary.json", to_json(summary, indent=2) + "\n")
        for name in ("failure.json", _OLD_SUMMARY):
            (self.path / name).unlink(missing_ok=True)

    def write_failure(self, reason: str, traceback: str | None = None) -> None:
        """Write why a run did not finish, and where in the code if that is not a matter of its config.

        The summary of an earlier part is kept under another name.
        """
        failure = {"reason": reason} if traceback is None else {"reason": reason, "traceback": traceback}
        self._write("failure.json", to_json(failure, indent=2) + "\n")
        if (summary := self.path / "summary.json").exists():
            os.replace(summary, self.path / _OLD_SUMMARY)

    def save_model(self, tensors: Mapping[str, Tensor], name: str = "model") -> None:
        """Write the model, or another under its `name`; the same tensors give the same bytes."""
        write_atomically(self.path / f"{name}.safetensors", save(portable(tensors)))

    def save_checkpoint(self, checkpoint: Checkpoint) -> None:
        """Write a checkpoint beside the one before, which stays; a kill leaves at least one of them whole."""
        data = checkpoint.to_bytes()
        if self.checkpoint_file.exists():
            os.replace(self.checkpoint_file, self.previous_checkpoint_file)
        write_atomically(self.checkpoint_file, data)

    def load_checkpoint(self) -> Checkpoint | None:
        """The checkpoint last saved, or `None` if there is none.

        Raises:
            CheckpointError: it cannot be believed.
        """
        for path in (self.checkpoint_file, self.previous_checkpoint_file):
            if path.exists():  # without the newer one, a kill came between two renames
                return Checkpoint.read(path)
        return None

    def sound_checkpoints(self) -> dict[int, Path]:
        """Files of those in the folder that can be believed, by their round."""
        found: dict[int, Path] = {}
        for path in (self.previous_checkpoint_file, self.checkpoint_file):
            with contextlib.suppress(CheckpointError, FileNotFoundError):
                found[Checkpoint.read(path).round] = path
        return found

    def set_aside(self, *, but: Path | None = None) -> Path:
        """Move what has been computed into a new folder `earlier-1`, `earlier-2`, …; returns it.

        Args:
            but: the checkpoint that the run goes back to; it stays, with the twin, and the rounds are copied.
        """
        number = 1
        while (folder := self.path / f"earlier-{number}").exists():
            number += 1
        folder.mkdir()
        stays = set() if but is None else {but.name, "rounds.jsonl", "changes.jsonl", "control"}
        if stays and self._rounds.exists():
            write_atomically(folder / "rounds.jsonl", self._rounds.read_bytes())
        for name in _OF_AN_ATTEMPT:
            if name not in stays and (self.path / name).exists():
                os.replace(self.path / name, folder / name)
        sync_folder(self.path)
        return folder

    @property
    def has_rounds(self) -> bool:
        """Whether any round was recorded."""
        return self._rounds.exists() and self._rounds.stat().st_size > 0

    @property
    def checkpoint_file(self) -> Path:
        """The newest checkpoint."""
        return self.path / CHECKPOINTS[0]

    @property
    def previous_checkpoint_file(self) -> Path:
        """The one before."""
        return self.path / CHECKPOINTS[1]

    @property
    def _rounds(self) -> Path:
        return self.path / "rounds.jsonl"

    def _write(self, name: str, text: str) -> None:
        write_atomically(self.path / name, text.encode())

    def _append(self, name: str, row: Row) -> bytes:
        """Append a line of JSON and give it; half a line, as a full disk leaves it, is taken back."""
        path, line = self.path / name, (to_json(row) + "\n").encode()
        is_first = not path.exists()
        with open_to_append(path) as file:
            start = os.fstat(file.fileno()).st_size
            try:
                file.write(line)
                file.flush()
                os.fsync(file.fileno())
            except OSError:
                with contextlib.suppress(OSError):
                    os.truncate(path, start)
                raise
        if is_first:
            sync_folder(self.path)
        return line

    def _complete_lines(self) -> list[tuple[bytes, dict[str, Any]]]:
        if not self._rounds.exists():
            return []
        # A line is written with its newline at once, so only a line without one can be torn.
        lines = [line for line in self._rounds.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]
        return [(line, self._parse(number, line)) for number, line in enumerate(lines, start=1)]

    def _parse(self, number: int, line: bytes) -> dict[str, Any]:
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{self._rounds}, line {number}: not JSON ({error})") from None
        if not isinstance(row, dict) or type(row.get("round")) is not int:
            raise ValueError(f"{self._rounds}, line {number}: not a round's record")
        return row


def _versions(environment: Mapping[str, Any]) -> dict[str, str]:
    packages = environment.get("packages")
    named = packages if isinstance(packages, Mapping) else {}
    return {name: str(value) for name, value in {"python": environment.get("python"), **named}.items()}
