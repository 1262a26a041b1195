"""When attackers attack, and whether they wait to be sampled."""

from typing import Annotated, Literal

from annotated_types import Gt, Le

from fedrobust.config.component import Count, FieldError, component


@component
class Schedule:
    """The attack rounds: the listed `rounds`, or every `every`-th round from `start` to `stop`.

    Attributes:
        rounds: attack in exactly these rounds (then `start`, `every` and `stop` are not used).
        start: first attack round; the rounds before it are clean (a warm start).
        every: attack in every k-th round from `start` on.
        stop: last attack round; `None` goes on to the end.
        turns: in the j-th attack round only attacker j (modulo their number) attacks; else all do.
        participation: `sampled` attackers attack when the server happens to sample them; `forced` ones take part in
            every attack round of theirs, in the place of sampled clients.
        until_success: attack only while the global model does what they want of less than this fraction of their own
            examples, once these are triggered; in all other rounds they train as benign clients (on and off as
            needed). `None` attacks in every attack round.
    """

    rounds: list[Count] | None = None
    start: Count = 1
    every: Count = 1
    stop: Count | None = None
    turns: bool = False
    participation: Literal["sampled", "forced"] = "sampled"
    until_success: Annotated[float, Gt(0), Le(1)] | None = None

    def __post_init__(self) -> None:
        """Check that there is at least one attack round."""
        if self.rounds is not None and len(self.rounds) == 0:
            raise FieldError("rounds", "must list at least one round, or be null, got []")
        if self.stop is not None and self.stop < self.start:
            raise FieldError("stop", f"must be at least start={self.start}, got {self.stop}")

    def is_attack_round(self, round_number: int) -> bool:
        """Whether any attacker attacks in this round."""
        if self.rounds is not None:
            return round_number in self.rounds
        if round_number < self.start or (self.stop is not None and round_number > self.stop):
            return False
        return (round_number - self.start) % self.every == 0

    def attackers(self, round_number: int, num_malicious: int) -> tuple[int, ...]:
        """The ranks, among the malicious clients, of those that attack in this round if they take part."""
        if num_malicious == 0 or not self.is_attack_round(round_number):
            return ()
        if not self.turns:
            return tuple(range(num_malicious))
        if self.rounds is not None:
            turn = sorted(set(self.rounds)).index(round_number)
        else:
            turn = (round_number - self.start) // self.every
        return (turn % num_malicious,)
