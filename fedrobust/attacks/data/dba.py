"""DBA, the distributed backdoor: attackers stamp disjoint parts of a trigger, the model is tested on the whole.

Xie, Huang, Chen, Li, "DBA: Distributed Backdoor Attacks against Federated Learning", ICLR 2020,
https://openreview.net/forum?id=rkgyS0VFvr
Departs: examples of the target class are never stamped; the authors' code stamps the first of a batch, whatever their
class.
"""

from fedrobust.attacks.data.badnets import BadNets
from fedrobust.attacks.triggers import Trigger, check_disjoint
from fedrobust.config.component import component


@component
class DBA(BadNets):
    """Attacker i stamps part i (modulo the number of parts); the global trigger is the union of the parts."""

    def local_triggers(self, input_shape: tuple[int, ...]) -> tuple[Trigger, ...]:
        """The parts.

        Raises:
            FieldError: parts that are not disjoint.
        """
        parts = self.trigger.triggers(input_shape)
        check_disjoint(parts)
        return parts
