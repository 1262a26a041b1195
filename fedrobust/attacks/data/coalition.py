"""A coalition: attackers with different triggers, targets or kinds of poison in one federation.

Several backdoors in one model are a setting of B. Wang, Y. Yao, S. Shan, H. Li, B. Viswanath, H. Zheng, B. Zhao,
"Neural Cleanse: Identifying and mitigating backdoor attacks in neural networks", IEEE S&P 2019,
https://doi.org/10.1109/SP.2019.00031
Departs: nothing.
"""

import torch
from torch import Tensor

from fedrobust.attacks.base import BindableAttack, DataAttack, Goal, ReceivedModel, has_synthetic_stamp, with_model
from fedrobust.attacks.triggers import Stamp
from fedrobust.config.component import FieldError, component
from fedrobust.data.datasets import Dataset, Examples


@component
class Coalition:
    """Attacker i does what member i (modulo their number) does.

    Each member is judged by itself: the attack success rate is the mean over those that want a class, and the local
    rates are theirs, in order.

    Attributes:
        members: data attacks, at least two.

    Raises:
        FieldError: fewer than two members, or a coalition among them.
    """

    members: list[DataAttack]

    def __post_init__(self) -> None:
        """Check the members."""
        if len(self.members) < 2:
            raise FieldError("members", f"must list at least two data attacks, got {len(self.members)}")
        if any(isinstance(member, Coalition) for member in self.members):
            raise FieldError("members", "must not hold another coalition")

    @property
    def has_synthetic_stamp(self) -> bool:
        """Whether every member has one."""
        return all(map(has_synthetic_stamp, self.members))

    def bind(self, dataset: Dataset, generator: torch.Generator) -> "Coalition":
        """The coalition with members that have looked at the data set, where they ask for that.

        Raises:
            FieldError: one of them cannot be used on such data.
        """
        members = list[DataAttack]()
        for index, member in enumerate(self.members):
            try:
                members.append(member.bind(dataset, generator) if isinstance(member, BindableAttack) else member)
            except FieldError as error:
                raise FieldError(f"members[{index}].{error.field}", error.message) from None
        return Coalition(members=members)

    def with_model(self, received: ReceivedModel) -> "Coalition":
        """The coalition with members that are crafted on the received model, where they ask for that."""
        return Coalition(members=[with_model(one, received) for one in self.members])

    def poison(self, examples: Examples, attacker: int, generator: torch.Generator) -> Examples:
        """What the attacker's member makes of its examples."""
        member, rank = self._member(attacker)
        return member.poison(examples, rank, generator)

    def poison_batch(self, batch: Examples, attacker: int) -> Examples:
        """What the attacker's member makes of a batch."""
        member, rank = self._member(attacker)
        return member.poison_batch(batch, rank)

    def local_triggers(self, input_shape: tuple[int, ...]) -> tuple[Stamp, ...]:
        """The parts of all members' triggers, member by member."""
        return tuple(part for member in self.members for part in member.local_triggers(input_shape))

    def wanted_labels(self, test: Examples) -> Tensor | None:
        """What the first member wants of each example that it speaks of, elsewhere the second, and so on."""
        wanted = None
        for member in self.members:
            its = member.wanted_labels(test)
            if its is not None:
                wanted = its if wanted is None else torch.where(wanted == test.labels, its, wanted)
        return wanted

    def _member(self, attacker: int) -> tuple[DataAttack, int]:
        number = len(self.members)
        return self.members[attacker % number], attacker // number


def members_of(attack: Goal) -> tuple[Goal, ...]:
    """The attacks that are judged one by one: a coalition's members, or the attack alone."""
    return tuple(attack.members) if isinstance(attack, Coalition) else (attack,)
