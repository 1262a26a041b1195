"""BadNets: stamp one trigger on a fraction of the attacker's examples and relabel them as the target.

Gu, Dolan-Gavitt, Garg, "BadNets: Identifying Vulnerabilities in the Machine Learning Model Supply Chain", 2017,
https://arxiv.org/abs/1708.06733
Departs: examples of the target class are never stamped (they teach nothing and would dilute the rate); a count per
batch can be given instead of a rate, so that it compares with DBA.
"""

import torch
from torch import Tensor

from fedrobust.attacks.data.dirty_label import PoisonRate, check_classes, poison_first, poison_fraction, wanted_labels
from fedrobust.attacks.triggers import Trigger, TriggerShape, is_synthetic, union
from fedrobust.config.component import Count, FieldError, Index, component
from fedrobust.data.datasets import Examples


@component
class BadNets:
    """Every attacker stamps the whole trigger.

    Attributes:
        trigger: what it looks like and where it lies.
        target_label: the class that triggered inputs should be taken for.
        source_label: attack this class alone; `None` attacks all others (all-to-one).
        poison_rate: fraction of the attacker's local examples that are poisoned, a fresh choice every round.
        poison_count: examples of every training batch that are poisoned; give this or `poison_rate`.
    """

    trigger: TriggerShape
    target_label: Index = 0
    source_label: Index | None = None
    poison_rate: PoisonRate | None = None
    poison_count: Count | None = None

    def __post_init__(self) -> None:
        """Check that the amount of poison is given once."""
        if (self.poison_rate is None) == (self.poison_count is None):
            raise FieldError("poison_rate", "must be given, or poison_count, and not both")
        check_classes(self.target_label, self.source_label)

    @property
    def has_synthetic_stamp(self) -> bool:
        """Whether the trigger is one."""
        return is_synthetic(self.trigger)

    def local_triggers(self, input_shape: tuple[int, ...]) -> tuple[Trigger, ...]:
        """The whole trigger, as the only part."""
        return (union(self.trigger.triggers(input_shape)),)

    def trigger_of(self, attacker: int, input_shape: tuple[int, ...]) -> Trigger:
        """The trigger that this attacker stamps."""
        parts = self.local_triggers(input_shape)
        return parts[attacker % len(parts)]

    def poison(self, examples: Examples, attacker: int, generator: torch.Generator) -> Examples:
        """Poison `poison_rate` of the local examples."""
        if self.poison_rate is None:
            return examples
        trigger = self.trigger_of(attacker, tuple(examples.inputs.shape[1:]))
        return poison_fraction(examples, trigger, self.target_label, self.source_label, self.poison_rate, generator)

    def poison_batch(self, batch: Examples, attacker: int) -> Examples:
        """Poison the first `poison_count` examples of the batch."""
        if self.poison_count is None:
            return batch
        trigger = self.trigger_of(attacker, tuple(batch.inputs.shape[1:]))
        return poison_first(batch, trigger, self.target_label, self.source_label, self.poison_count)

    def wanted_labels(self, test: Examples) -> Tensor:
        """The target, for test examples of the source class, or of every class but the target."""
        return wanted_labels(test.labels, self.target_label, self.source_label)
