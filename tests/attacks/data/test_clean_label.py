"""The clean-label backdoor on data whose every stamped example can be counted by hand."""

import pytest
import torch

from fedrobust.attacks import CleanLabelBackdoor, Patch, Sinusoid
from fedrobust.data.datasets import Examples


@pytest.mark.parametrize(("rate", "expected"), [(0.05, 5), (0.5, 10)])
def test_only_the_target_is_stamped_and_no_label_changes(rate, expected):
    """100 black pictures, 10 of the target class: a rate of 5 % stamps 5 of these, one of 50 % all ten."""
    clean = Examples(torch.zeros(100, 1, 8, 8), torch.arange(100) % 10)
    attack = CleanLabelBackdoor(trigger=Patch(), target_label=3, poison_rate=rate)
    poisoned = attack.poison(clean, 0, torch.Generator().manual_seed(0))
    lit = poisoned.inputs.flatten(1).amax(dim=1) > 0
    assert int(lit.sum()) == expected
    assert (clean.labels[lit] == 3).all()
    assert torch.equal(poisoned.labels, clean.labels)
    assert clean.inputs.abs().sum() == 0


def test_success_is_asked_of_the_other_classes():
    test = Examples(torch.zeros(10, 1, 8, 8), torch.arange(10))
    attack = CleanLabelBackdoor(trigger=Sinusoid(), target_label=3)
    assert attack.wanted_labels(test).tolist() == [3] * 10
    assert len(attack.local_triggers((1, 8, 8))) == 1
