"""BadNets and DBA on small data whose every poisoned example can be counted by hand."""

from fractions import Fraction

import pytest
import torch

from fedrobust.attacks import DBA, BadNets, Patch, PatchGrid
from fedrobust.config.component import FieldError
from fedrobust.data.datasets import Examples


def examples(n: int = 100) -> Examples:
    """n black 8x8 pictures, labels 0..9 in turn."""
    return Examples(torch.zeros(n, 1, 8, 8), torch.arange(n) % 10)


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(3)


def lit(poisoned: Examples) -> torch.Tensor:
    """Which pictures carry any trigger: the clean ones are black."""
    return poisoned.inputs.flatten(1).amax(dim=1) > 0


@pytest.mark.parametrize("rate", [0.01, 0.3, 0.5])
def test_poison_rate_counts_all_local_examples_and_never_the_target(rate):
    """rate x 100 examples are stamped, all get the target label, none had it before."""
    clean = examples()
    attack = BadNets(trigger=Patch(height=2, width=2), target_label=7, poison_rate=rate)
    poisoned = attack.poison(clean, attacker=0, generator=generator())
    stamped = lit(poisoned)
    assert int(stamped.sum()) == round(rate * 100)
    assert (poisoned.labels[stamped] == 7).all()
    assert (clean.labels[stamped] != 7).all()
    assert torch.equal(poisoned.labels[~stamped], clean.labels[~stamped])
    assert clean.inputs.abs().sum() == 0, "the shared examples were written to"


def test_a_rate_of_one_stops_at_the_examples_that_may_be_poisoned():
    """100 examples, 10 of them of the target class: 90 can be poisoned."""
    attack = BadNets(trigger=Patch(), target_label=7, poison_rate=1.0)
    assert int(lit(attack.poison(examples(), 0, generator())).sum()) == 90


def test_source_label_limits_the_attack_to_one_class():
    attack = BadNets(trigger=Patch(), target_label=7, source_label=1, poison_rate=1.0)
    clean = examples()
    stamped = lit(attack.poison(clean, 0, generator()))
    assert torch.equal(stamped, clean.labels == 1)
    assert torch.equal(attack.wanted_labels(clean), torch.where(clean.labels == 1, 7, clean.labels))


def test_poison_count_takes_the_first_of_a_batch_that_may_be_poisoned():
    """Labels 0..9, target 1: the first three others are 0, 2 and 3."""
    attack = BadNets(trigger=Patch(), target_label=1, poison_count=3)
    batch = attack.poison_batch(examples(10), attacker=0)
    assert lit(batch).nonzero().squeeze(1).tolist() == [0, 2, 3]
    assert batch.labels.tolist() == [1, 1, 1, 1, 4, 5, 6, 7, 8, 9]
    untouched = attack.poison(examples(), 0, generator())
    assert not bool(lit(untouched).any())


def test_a_dba_attacker_stamps_its_own_part_alone():
    attack = DBA(trigger=PatchGrid(height=1, width=2, gap=2), target_label=2, poison_rate=0.5)
    parts = attack.local_triggers((1, 8, 8))
    for attacker in range(8):
        poisoned = attack.poison(examples(), attacker, generator())
        pixels = poisoned.inputs.amax(dim=(0, 1)) > 0
        assert torch.equal(pixels, parts[attacker % 4].mask)


def test_badnets_on_a_grid_is_the_centralised_twin_of_dba():
    attack = BadNets(trigger=PatchGrid(height=1, width=2, gap=2), target_label=2, poison_rate=0.5)
    poisoned = attack.poison(examples(), 3, generator())
    assert int((poisoned.inputs.amax(dim=(0, 1)) > 0).sum()) == 8
    assert len(attack.local_triggers((1, 8, 8))) == 1


def test_another_round_poisons_other_examples_and_the_same_seed_the_same():
    attack = BadNets(trigger=Patch(), target_label=0, poison_rate=0.3)
    first = lit(attack.poison(examples(), 0, generator()))
    again = lit(attack.poison(examples(), 0, generator()))
    other = lit(attack.poison(examples(), 0, torch.Generator().manual_seed(4)))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("cls", [BadNets, DBA])
@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({}, "poison_rate: must be given, or poison_count, and not both"),
        ({"poison_rate": 0.1, "poison_count": 1}, "poison_rate: must be given, or poison_count, and not both"),
        ({"poison_rate": 0.0}, r"poison_rate: must be greater than 0, got 0\.0"),
        ({"poison_rate": 0.1, "source_label": 2}, "source_label: must differ from target_label, got 2 for both"),
    ],
)
def test_unclear_amounts_are_refused(cls, fields, text):
    with pytest.raises(FieldError, match=text):
        cls(trigger=Patch(), target_label=2, **fields)


@pytest.mark.parametrize(("rate", "num_examples"), [(0.1, 25), (0.15, 10), (0.3, 5), (0.29, 100), (0.5, 7), (0.07, 50)])
def test_the_count_of_poisoned_examples_is_rounded(rate: float, num_examples: int) -> None:
    """To the nearest whole number, as Python rounds: half of an example goes to the even count."""
    labels = torch.ones(num_examples, dtype=torch.int64)
    examples = Examples(torch.zeros(num_examples, 1, 8, 8), labels)
    attack = BadNets(trigger=Patch(height=2, width=2), target_label=0, poison_rate=rate)
    poisoned = attack.poison(examples, 0, torch.Generator().manual_seed(0))
    assert int((poisoned.labels == 0).sum()) == round(Fraction(str(rate)) * num_examples)
