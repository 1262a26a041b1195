"""A coalition: each attacker does what its own member does, and each member is judged by itself."""

import pytest
import torch
from torch import nn

from fedrobust.attacks import BadNets, Coalition, LabelFlip, Patch, Pixels
from fedrobust.config.component import FieldError
from fedrobust.data.datasets import Dataset, Examples
from fedrobust.evaluation.attack_success import measure_attack_success
from fedrobust.parameters import ParameterLayout
from fedrobust.training.predictor import Predictor

FIRST = BadNets(trigger=Patch(height=1, width=1), target_label=1, poison_rate=0.5)
SECOND = BadNets(trigger=Pixels(pixels=[[-1, -1]]), target_label=2, poison_rate=0.5)
FLIP = LabelFlip(flip="random", num_classes=4)


def examples() -> Examples:
    inputs = torch.rand(40, 1, 2, 2, generator=torch.Generator().manual_seed(1)) / 2
    return Examples(inputs, torch.arange(40) % 4)


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(3)


def test_attackers_take_members_in_turn():
    """Attacker 3 is the second who does what member 1 does, so it is rank 1 there."""
    own = examples()
    coalition = Coalition(members=[FIRST, SECOND])
    for attacker, member, rank in [(0, FIRST, 0), (1, SECOND, 0), (2, FIRST, 1), (3, SECOND, 1)]:
        mine, its = coalition.poison(own, attacker, generator()), member.poison(own, rank, generator())
        assert torch.equal(mine.inputs, its.inputs)
        assert torch.equal(mine.labels, its.labels)


def test_each_member_is_judged_by_itself():
    """A linear model that says which pixel is brightest, on dark pictures.

    The first trigger lights pixel 0, so the model says 0 and never the 1 that is wanted; the second lights pixel 3,
    so it says 3 and never 2. With targets 0 and 2 instead, one member always succeeds and the other never: mean 1/2.
    """
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 4, bias=False))
    with torch.no_grad():
        model[1].weight.copy_(torch.eye(4))
    layout = ParameterLayout.of(model)
    own = examples()
    dataset = Dataset("pixels", own, own, 4, "image", torch.zeros(1, 1, 1), torch.ones(1, 1, 1))
    predictor = Predictor(model, layout, layout.flatten(model), {}, dataset)
    zero = BadNets(trigger=Patch(height=1, width=1), target_label=0, poison_rate=0.5)
    never = measure_attack_success(predictor, Coalition(members=[FIRST, SECOND]), own)
    assert (never.global_trigger, never.local_triggers) == (0.0, [0.0, 0.0])
    half = measure_attack_success(predictor, Coalition(members=[zero, FLIP, SECOND]), own)
    assert (half.global_trigger, half.local_triggers) == (0.5, [1.0, 0.0])


def test_what_a_member_cannot_be_used_on_names_the_member():
    own = examples()
    dataset = Dataset("pixels", own, own, 4, "image", torch.zeros(1, 1, 1), torch.ones(1, 1, 1))
    coalition = Coalition(members=[FIRST, LabelFlip(flip="random", num_classes=3)])
    with pytest.raises(FieldError, match=r"members\[1\].num_classes: must be 4 for random flips, got 3"):
        coalition.bind(dataset, generator())


def test_coalitions_of_one_or_of_coalitions_are_refused():
    with pytest.raises(FieldError, match="at least two data attacks, got 1"):
        Coalition(members=[FIRST])
    with pytest.raises(FieldError, match="must not hold another coalition"):
        Coalition(members=[FIRST, Coalition(members=[FIRST, SECOND])])
