"""Going on with a run: its folder is believed only if it fits itself.

The checkpoint must be whole, of the same config, and of a round up to which rounds.jsonl has every line. What does not
fit is told in one line, with what can be saved.
"""

import dataclasses
import hashlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

import torch

from fedrobust.config.building import ConfigError
from fedrobust.config.settings import FREE
from fedrobust.federation.round import Federation
from fedrobust.records.checkpoint import RUN, TWIN, Checkpoint, CheckpointError
from fedrobust.records.lock import locked
from fedrobust.records.results import is_taken
from fedrobust.records.run_folder import RunFolder

log = logging.getLogger("fedrobust")

MEMORY = "memory/"
"""What the aggregation remembers lies in a checkpoint beside the model's tensors, under this prefix."""


@dataclass(frozen=True)
class Resumption:
    """How to go on with a folder.

    Attributes:
        from_round: the checkpoint's round, or 0 for the start; `None` is the newest checkpoint.
        accept_changes: go on although settings have changed, and note it.
    """

    from_round: int | None = None
    accept_changes: bool = False


@dataclass(frozen=True)
class Part:
    """A run, or its benign twin.

    Attributes:
        records: its folder.
        name: as its checkpoints say.
        whole: the run's folder, which `resume=` names.
    """

    records: RunFolder
    name: str
    whole: Path


@dataclass(frozen=True)
class Start:
    """Where a part goes on.

    Attributes:
        checkpoint: the state to go on from; `None`: the start.
        changes: settings that are not as they were, `(before, after)` by dotted name.
    """

    checkpoint: Checkpoint | None = None
    changes: Mapping[str, tuple[str | None, str | None]] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """How a run goes on, and its twin; made before anything is written.

    Attributes:
        records: the run's folder.
        run: where the run goes on.
        twin: where its twin goes on.
        goes_back_to: the checkpoint that the user goes back to, if to one.
        starts_again: whether the user starts the run again.
    """

    records: RunFolder
    run: Start = field(default_factory=Start)
    twin: Start = field(default_factory=Start)
    goes_back_to: Path | None = None
    starts_again: bool = False

    @property
    def choices(self) -> Mapping[str, str]:
        """The options that the checkpoint says were chosen; none without one."""
        return {} if self.run.checkpoint is None else self.run.checkpoint.choices

    def apply(self) -> None:
        """Move away what the user goes behind, and note changes.

        Raises:
            FolderInUseError: another process plays in the twin's folder.
        """
        if self.records.control.path.exists():
            with locked(self.records.control.path):
                pass
        if self.goes_back_to is not None or (self.starts_again and is_taken(self.records.path)):
            log.warning("what was computed so far now lies in %s", self.records.set_aside(but=self.goes_back_to))
        if self.run.changes and self.run.checkpoint is not None:
            self.records.write_change(self.run.checkpoint.round, self.run.changes)


def plan_resumption(records: RunFolder, settings: Mapping[str, str], resumption: Resumption) -> Plan:
    """Check a run's folder and that of its twin; nothing is written.

    Args:
        records: the run's folder.
        settings: the config's, by dotted name.
        resumption: what the user wants.

    Raises:
        ConfigError: something does not fit; what is wrong, and how to go on.
    """
    start_round = resumption.from_round
    if start_round == 0:
        return Plan(records, starts_again=True)
    run = find_start(Part(records, RUN, records.path), settings, resumption)
    twin_wants = dataclasses.replace(resumption, from_round=None)
    twin = find_start(Part(records.control, TWIN, records.path), settings, twin_wants)
    back_to = None if start_round is None else records.sound_checkpoints()[start_round]
    return Plan(records, run, twin, back_to)


def find_start(part: Part, settings: Mapping[str, str], resumption: Resumption) -> Start:
    """Where a part goes on; nothing is written.

    Args:
        part: whose folder is read.
        settings: the config's, by dotted name.
        resumption: what the user wants.

    Raises:
        ConfigError: the folder does not fit itself; what is wrong, and how to go on.
    """
    records, path = part.records, part.records.path
    if resumption.from_round == 0:
        return Start()
    try:
        if resumption.from_round is None:
            checkpoint = records.load_checkpoint()
        else:
            checkpoint = Checkpoint.read(_file_of_round(records, resumption.from_round))
    except CheckpointError as error:
        raise ConfigError(f"resume: {error}; {_ways_on(part)}") from None
    if checkpoint is None:
        if records.has_rounds:
            log.warning("%s has no checkpoint: all rounds are played again", path)
        return Start()
    if checkpoint.part != part.name:
        raise ConfigError(
            f"resume: the checkpoint in {path} is of {checkpoint.part}, and belongs to {part.name}; {_ways_on(part)}"
        )
    changes = _checked_changes(records, settings, checkpoint, resumption.accept_changes)
    _check_rounds(part, checkpoint)
    return Start(checkpoint, changes)


def check_fit(checkpoint: Checkpoint | None, federation: Federation, folder: Path) -> None:
    """Compare a checkpoint's tensors with the model that they are to be put into.

    Raises:
        ConfigError: they are another model's, or hold numbers with which no run can go on.
    """
    if checkpoint is None:
        return
    state, layout, tensors = federation.state, federation.layout, checkpoint.tensors
    expected = {name: tuple(shape) for name, shape in zip(layout.names, layout.shapes, strict=True)}
    expected |= {name: tuple(values.shape) for name, values in state.buffers.items()}
    for name, shape in expected.items():
        if name not in tensors or tuple(tensors[name].shape) != shape:
            got = tuple(tensors[name].shape) if name in tensors else "none"
            raise ConfigError(
                f"resume: the checkpoint in {folder} is another model's: {name!r} must have shape {shape}, got {got}"
            )
        if not bool(tensors[name].isfinite().all()):
            raise ConfigError(
                f"resume: the checkpoint in {folder} holds numbers in {name!r} that are not finite: the model has "
                f"diverged, and no round can change it; fedrobust resume={folder} from=0 plays all rounds again"
            )


def restore(federation: Federation, records: RunFolder, checkpoint: Checkpoint | None) -> float:
    """Put a checkpoint's state into `federation` and cut the records to it; returns the seconds already spent.

    Raises:
        ConfigError: the checkpoint does not fit the model.
    """
    check_fit(checkpoint, federation, records.path)
    if checkpoint is None:
        records.truncate_rounds(-1)
        return 0.0
    state, layout, tensors = federation.state, federation.layout, checkpoint.tensors
    device = state.vector.device
    state.round_number = checkpoint.round
    state.vector = torch.cat([tensors[name].reshape(-1) for name in layout.names]).to(device)
    state.buffers = {name: tensors[name].to(device) for name in state.buffers}
    state.memory = {
        name.removeprefix(MEMORY): values.to(device) for name, values in tensors.items() if name.startswith(MEMORY)
    }
    records.truncate_rounds(checkpoint.round)
    return float(checkpoint.meta["seconds"])


def _file_of_round(records: RunFolder, wanted: int) -> Path:
    sound = records.sound_checkpoints()
    if wanted not in sound:
        known = ", ".join(map(str, [0, *sorted(sound)]))
        raise ConfigError(f"from: must be a round that {records.path} can go on from ({known}), got {wanted}")
    return sound[wanted]


def _check_rounds(part: Part, checkpoint: Checkpoint) -> None:
    records = part.records
    try:
        there = [row["round"] for row in records.read_rounds()]
    except ValueError as error:
        raise ConfigError(f"resume: {error}; {_ways_on(part)}") from None
    wanted = list(range(checkpoint.round + 1))
    if [number for number in there if number <= checkpoint.round] != wanted or there != sorted(there):
        raise ConfigError(
            f"resume: rounds.jsonl in {records.path} must hold each of the rounds 0 to {checkpoint.round} once, as the "
            f"checkpoint does, and holds {_runs_of(there)}; {_ways_on(part)}"
        )
    if not _fits(records, checkpoint):
        raise ConfigError(
            f"resume: rounds.jsonl in {records.path}: rounds 0 to {checkpoint.round} are not as they were when the "
            f"checkpoint was written; {_ways_on(part)}"
        )


def _fits(records: RunFolder, checkpoint: Checkpoint) -> bool:
    """Whether rounds.jsonl is, up to the checkpoint's round, as it was when that was written."""
    return hashlib.sha256(records.lines_until(checkpoint.round)).hexdigest() == checkpoint.rounds


def _checked_changes(
    records: RunFolder, settings: Mapping[str, str], checkpoint: Checkpoint, accept_changes: bool
) -> dict[str, tuple[str | None, str | None]]:
    """Settings that are not as they were, if they may be otherwise or the user says so."""
    before = checkpoint.config
    names = sorted(before.keys() | settings.keys())
    changed = {name: (before.get(name), settings.get(name)) for name in names if before.get(name) != settings.get(name)}
    bound = {name: values for name, values in changed.items() if not name.startswith(FREE)}
    if bound and not accept_changes:
        shown = ", ".join(f"{name}: {old} -> {new}" for name, (old, new) in list(bound.items())[:5])
        more = f" and {len(bound) - 5} more" if len(bound) > 5 else ""
        raise ConfigError(
            f"resume: config.yaml in {records.path} has changed since round {checkpoint.round} ({shown}{more}): put it "
            f"back, or fedrobust resume={records.path} from=0 plays all rounds under the new one, or "
            "accept_changes=true goes on and notes it in changes.jsonl"
        )
    if bound:
        log.warning("settings have changed after round %d: %s", checkpoint.round, ", ".join(bound))
    return changed


def _ways_on(part: Part) -> str:
    """What can be saved: rounds of sound checkpoints that the records reach without a gap, and the start."""
    records = part.records
    if part.whole != records.path:
        return f"move {records.path} away, and fedrobust resume={part.whole} plays the twin again"
    try:
        there = [row["round"] for row in records.read_rounds()]
    except ValueError:
        there = []
    sound = [
        number
        for number, path in sorted(records.sound_checkpoints().items())
        if there[: number + 1] == list(range(number + 1)) and _fits(records, Checkpoint.read(path))
    ]
    ways = [f"from={number} goes on after round {number}" for number in reversed(sound)]
    return f"fedrobust resume={records.path} " + ", or ".join([*ways, "from=0 plays all rounds again"])


def _runs_of(numbers: list[int]) -> str:
    """Such as `0 to 3, 5`; consecutive ones together, in the order given."""
    if not numbers:
        return "none"
    parts = []
    for _, group in groupby(enumerate(numbers), key=lambda pair: pair[1] - pair[0]):
        run = [number for _, number in group]
        parts.append(str(run[0]) if len(run) == 1 else f"{run[0]} to {run[-1]}")
    return ", ".join(parts[:8]) + (", ..." if len(parts) > 8 else "")
