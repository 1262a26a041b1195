"""Keeping a run: a line a round, a checkpoint every so often, and the state as of the last round that is kept."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from fedrobust.federation.round import Federation, Row
from fedrobust.parameters import saved_tensors
from fedrobust.records.checkpoint import Checkpoint
from fedrobust.records.run_folder import RunFolder
from fedrobust.runs.resuming import MEMORY


@dataclass(frozen=True)
class _Kept:
    """The state as of a round, and the digest of rounds.jsonl up to there."""

    round_number: int
    vector: Tensor
    buffers: Mapping[str, Tensor]
    memory: Mapping[str, Tensor]
    rounds: "hashlib._Hash"


class Keeper:
    """Keeps what rounds leave behind; holds the state as of the last round that was kept."""

    def __init__(
        self,
        federation: Federation,
        records: RunFolder,
        checkpoint_every: int,
        seconds: Callable[[], float],
        about: Mapping[str, Any],
    ) -> None:
        """Keep the rounds of `federation` from where it stands.

        Args:
            federation: what is played.
            records: where its records go; they hold the rounds before.
            checkpoint_every: rounds between checkpoints; 0: none but the last.
            seconds: how long the run has taken so far.
            about: what a checkpoint says of the run that it belongs to.
        """
        self.federation, self.records, self.checkpoint_every = federation, records, checkpoint_every
        self.seconds, self.about = seconds, about
        before = records.lines_until(federation.state.round_number)
        self._has_rounds = bool(before)
        self._saved_round = federation.state.round_number if before else None
        self._remember(hashlib.sha256(before))

    @property
    def round_number(self) -> int:
        """The last round that was kept."""
        return self._kept.round_number

    def keep(self, row: Row) -> None:
        """Keep the round that `row` records, after which the federation's state is."""
        rounds = self._kept.rounds.copy()
        rounds.update(self.records.append_round(row))
        self._remember(rounds)
        self._has_rounds = True
        if self.checkpoint_every and self.round_number and self.round_number % self.checkpoint_every == 0:
            self.checkpoint()

    def checkpoint(self) -> None:
        """Save the state, unless that has been done: the file before it must be of an earlier round.

        There is nothing to save before the initial model is recorded: such a checkpoint would not fit its records.
        """
        kept = self._kept
        if not self._has_rounds or kept.round_number == self._saved_round:
            return
        memory = {MEMORY + name: values.cpu() for name, values in kept.memory.items()}
        meta, rounds = {"seconds": self.seconds()}, kept.rounds.hexdigest()
        tensors = self._tensors() | memory
        self.records.save_checkpoint(Checkpoint(kept.round_number, tensors, meta, **self.about, rounds=rounds))
        self._saved_round = kept.round_number

    def model_tensors(self) -> dict[str, Tensor]:
        """The model's whole `state_dict`."""
        state = self.federation.layout.views(self._kept.vector)
        whole = saved_tensors(self.federation.model, state, dict(self._kept.buffers))
        return {name: values.cpu() for name, values in whole.items()}

    def _tensors(self) -> dict[str, Tensor]:
        """What training changes, by name."""
        named = {**self.federation.layout.views(self._kept.vector), **self._kept.buffers}
        return {name: values.cpu() for name, values in named.items()}

    def _remember(self, rounds: "hashlib._Hash") -> None:
        # A round replaces the state's tensors and never writes to them, so references are a snapshot. It is taken at
        # one stroke, since Ctrl-C may come between any two.
        state = self.federation.state
        self._kept = _Kept(state.round_number, state.vector, dict(state.buffers), state.memory, rounds)
