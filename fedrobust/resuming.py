"""Going on with a run: its folder is believed only if it fits itself.

The checkpoint must be whole, of the same config, and of a round up to which rounds.jsonl has every line. What does not
fit is told in one line, with what can be saved.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import groupby

import torch

from fedrobust.config import ConfigError
from fedrobust.records.checkpoint import Checkpoint, CheckpointError
from fedrobust.records.run_folder import RunFolder
from fedrobust.round import Federation

log = logging.getLogger("fedrobust")

FREE = ("num_rounds", "verbose", "plot_formats", "data_root", "resume", "logger.")
"""Settings that a later part of a run may have otherwise: how far, how loud, where data lie, who is told."""

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


def find_start(records: RunFolder, settings: Mapping[str, str], resumption: Resumption) -> Checkpoint | None:
    """The checkpoint that a folder's run goes on from, `None` for the start; nothing is changed but by the user's wish.

    Args:
        records: the folder.
        settings: the config's, by dotted name.
        resumption: what the user wants.

    Raises:
        ConfigError: the folder does not fit itself; what is wrong, and how to go on.
    """
    path = records.path
    if resumption.from_round == 0:
        records.set_all_aside()
        return None
    if resumption.from_round is not None:
        sound = records.sound_checkpoints()
        if resumption.from_round not in sound:
            known = ", ".join(map(str, [0, *sorted(sound)]))
            wrong = resumption.from_round
            raise ConfigError(f"from: must be a round that {path} can go on from ({known}), got {wrong}")
        checkpoint = sound[resumption.from_round]
        records.keep_checkpoint(checkpoint)
    else:
        try:
            found = records.load_checkpoint()
        except CheckpointError as error:
            raise ConfigError(f"resume: {error}; {_ways_on(records)}") from None
        if found is None:
            if records.has_rounds:
                log.warning("%s has no checkpoint: all rounds are played again", path)
            return None
        checkpoint = found
    _check_rounds(records, checkpoint)
    _check_settings(records, settings, checkpoint, resumption.accept_changes)
    return checkpoint


def restore(federation: Federation, records: RunFolder, checkpoint: Checkpoint | None) -> float:
    """Put a checkpoint's state into `federation` and cut the records to it; returns the seconds already spent.

    Raises:
        ConfigError: the checkpoint is another model's.
    """
    if checkpoint is None:
        records.truncate_rounds(-1)
        return 0.0
    state, layout, tensors = federation.state, federation.layout, checkpoint.tensors
    expected = {name: tuple(shape) for name, shape in zip(layout.names, layout.shapes, strict=True)}
    expected |= {name: tuple(values.shape) for name, values in state.buffers.items()}
    for name, shape in expected.items():
        if name not in tensors or tuple(tensors[name].shape) != shape:
            got = tuple(tensors[name].shape) if name in tensors else "none"
            raise ConfigError(
                f"resume: the checkpoint in {records.path} is another model's: {name!r} must have shape {shape}, "
                f"got {got}"
            )
    device = state.vector.device
    state.round_number = checkpoint.round
    state.vector = torch.cat([tensors[name].reshape(-1) for name in layout.names]).to(device)
    state.buffers = {name: tensors[name].to(device) for name in state.buffers}
    state.memory = {
        name.removeprefix(MEMORY): values.to(device) for name, values in tensors.items() if name.startswith(MEMORY)
    }
    records.truncate_rounds(checkpoint.round)
    return float(checkpoint.meta["seconds"])


def _check_rounds(records: RunFolder, checkpoint: Checkpoint) -> None:
    try:
        there = [row["round"] for row in records.read_rounds()]
    except ValueError as error:
        raise ConfigError(f"resume: {error}; {_ways_on(records)}") from None
    wanted = list(range(checkpoint.round + 1))
    if [number for number in there if number <= checkpoint.round] != wanted or there != sorted(there):
        raise ConfigError(
            f"resume: rounds.jsonl in {records.path} must hold each of the rounds 0 to {checkpoint.round} once, as the "
            f"checkpoint does, and holds {_runs_of(there)}; {_ways_on(records)}"
        )


def _check_settings(
    records: RunFolder, settings: Mapping[str, str], checkpoint: Checkpoint, accept_changes: bool
) -> None:
    before = checkpoint.config
    names = sorted(before.keys() | settings.keys())
    changed = {name: (before.get(name), settings.get(name)) for name in names if before.get(name) != settings.get(name)}
    bound = {name: values for name, values in changed.items() if not name.startswith(FREE)}
    if bound and not accept_changes:
        shown = ", ".join(f"{name}: {old} -> {new}" for name, (old, new) in list(bound.items())[:5])
        more = f" and {len(bound) - 5} more" if len(bound) > 5 else ""
        raise ConfigError(
            f"resume: config.yaml in {records.path} has changed since round {checkpoint.round} ({shown}{more}): put it "
            f"back, or fedrobust resume={records.path} accept_changes=true goes on and notes it in changes.jsonl"
        )
    if bound:
        log.warning("settings have changed after round %d: %s", checkpoint.round, ", ".join(bound))
    if changed:
        records.write_change(checkpoint.round, changed)


def _ways_on(records: RunFolder) -> str:
    """What can be saved: rounds of sound checkpoints that the records reach without a gap, and the start."""
    try:
        there = [row["round"] for row in records.read_rounds()]
    except ValueError:
        there = []
    sound = [number for number in sorted(records.sound_checkpoints()) if there[: number + 1] == list(range(number + 1))]
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
