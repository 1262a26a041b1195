"""Clean-label backdoor: stamp the trigger on the target's own examples and leave every label alone.

Barni, Kallas, Tondi, "A New Backdoor Attack in CNNs by Training Set Corruption Without Label Poisoning", ICIP 2019,
https://arxiv.org/abs/1902.11237
Departs: the poison rate counts all local examples, as everywhere here, and not those of the target class alone.
"""

import torch
from torch import Tensor

from fedrobust.attacks.data.dirty_label import PoisonRate, draw, stamped, wanted_labels
from fedrobust.attacks.triggers import Trigger, TriggerShape, is_synthetic, union
from fedrobust.config.component import Index, component
from fedrobust.data.datasets import Examples


@component
class CleanLabelBackdoor:
    """The model learns that the trigger goes with the target class.

    Attributes:
        trigger: what it looks like and where it lies; the paper's is a `Sinusoid`.
        target_label: the class whose examples are stamped, and that triggered inputs should be taken for.
        poison_rate: fraction of the attacker's local examples that are stamped, at most all of the target class; a
            fresh choice every round.
    """

    trigger: TriggerShape
    target_label: Index = 0
    poison_rate: PoisonRate = 0.05

    @property
    def has_synthetic_stamp(self) -> bool:
        """Whether the trigger is one."""
        return is_synthetic(self.trigger)

    def local_triggers(self, input_shape: tuple[int, ...]) -> tuple[Trigger, ...]:
        """The whole trigger, as the only part."""
        return (union(self.trigger.triggers(input_shape)),)

    def poison(self, examples: Examples, attacker: int, generator: torch.Generator) -> Examples:
        """Stamp `poison_rate` of the examples, all of them of the target class, in a copy."""
        (trigger,) = self.local_triggers(tuple(examples.inputs.shape[1:]))
        chosen = draw(examples.labels == self.target_label, self.poison_rate, generator)
        return stamped(examples, chosen, trigger, target_label=None)

    def poison_batch(self, batch: Examples, attacker: int) -> Examples:
        """Batches stay as they are."""
        return batch

    def wanted_labels(self, test: Examples) -> Tensor:
        """The target, for test examples of every other class."""
        return wanted_labels(test.labels, self.target_label, None)
