"""The settings of local training: the step schedule of the learning rate, and what attackers change."""

import math
from fractions import Fraction

import pytest
import torch

from fedrobust.config.component import FieldError
from fedrobust.training.local_training import LocalTraining, TrainingOverrides


@pytest.mark.parametrize(
    ("num_epochs", "milestones", "decay"),
    [
        (10, [0.2, 0.8], 0.1),
        (10, [0.1, 0.3, 0.7], 0.5),
        (3, [1 / 3, 2 / 3], 0.25),
        (7, [0.5], 0.1),
        (49, [1 / 49, 29 / 49, 47 / 49], 0.3),
        (4, [0.2, 0.25], 0.5),
        (1, [], 0.1),
        (100, [0.07, 0.14, 0.28, 0.29, 0.55, 0.56, 0.57, 0.58], 0.9),
    ],
)
def test_the_rate_falls_as_by_multi_step_lr(num_epochs: int, milestones: list[float], decay: float) -> None:
    """PyTorch's scheduler, stepped after every epoch; its milestones are exact fractions of the epochs, rounded up.

    0.07, 0.14, 0.28, 0.29, 0.55, 0.57, 0.58 times 100 is a little more or less than whole in floating point: the epoch
    is that of the decimal fraction.
    """
    training = LocalTraining(
        learning_rate=0.05,
        num_epochs=num_epochs,
        learning_rate_milestones=milestones,
        learning_rate_decay=decay,
    )
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.05)
    exact = [math.ceil(Fraction(part).limit_denominator(1000) * num_epochs) for part in milestones]
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, exact, decay)
    expected = []
    for _ in range(num_epochs):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert training.learning_rates() == pytest.approx(expected, rel=1e-12)


def test_the_poisoned_programme_of_dba() -> None:
    """The authors' ten epochs at 0.05, a tenth of it from the third epoch on, a hundredth in the last two."""
    training = LocalTraining(learning_rate=0.05, num_epochs=10, learning_rate_milestones=[0.2, 0.8])
    assert training.learning_rates() == pytest.approx([0.05] * 2 + [0.005] * 6 + [0.0005] * 2)


@pytest.mark.parametrize(
    ("field", "settings", "message"),
    [
        ("learning_rate_milestones", {"learning_rate_milestones": [0.0]}, "greater than 0"),
        ("learning_rate_milestones", {"learning_rate_milestones": [1.0]}, "less than 1"),
        ("learning_rate_milestones", {"learning_rate_milestones": [2]}, "less than 1"),
        ("learning_rate_milestones", {"learning_rate_milestones": 0.5}, "list"),
        ("learning_rate_milestones", {"learning_rate_milestones": [float("nan")]}, "finite"),
        ("learning_rate_milestones", {"learning_rate_milestones": [0.8, 0.2]}, "must ascend"),
        ("learning_rate_milestones", {"learning_rate_milestones": [0.2, 0.2]}, "must ascend"),
        ("learning_rate_milestones", {"learning_rate_milestones": [0.5], "num_epochs": 1}, "num_epochs=1"),
        ("learning_rate_milestones", {"learning_rate_milestones": [0.2, 0.8], "num_epochs": 4}, "num_epochs=4"),
        ("learning_rate_decay", {"learning_rate_decay": 0.0}, "greater than 0"),
        ("learning_rate_decay", {"learning_rate_decay": 1.5}, "less than"),
    ],
)
def test_schedules_that_cannot_be_are_refused(field: str, settings: dict[str, object], message: str) -> None:
    """A milestone after which no epoch begins would change nothing, and silently."""
    with pytest.raises(FieldError, match=message) as caught:
        LocalTraining(**{"num_epochs": 10, **settings})
    assert caught.value.field == field


@pytest.mark.parametrize("num_epochs", [2, 10])
@pytest.mark.parametrize("milestones", [None, [], [0.5], [0.1, 0.5]])
@pytest.mark.parametrize("decay", [None, 0.5])
def test_attackers_keep_what_they_do_not_change(
    num_epochs: int, milestones: list[float] | None, decay: float | None
) -> None:
    """An empty list is a change: no milestones, where the benign programme has some."""
    benign = LocalTraining(num_epochs=4, momentum=0.9, weight_decay=5e-4, learning_rate_milestones=[0.25])
    overrides = TrainingOverrides(num_epochs=num_epochs, learning_rate_milestones=milestones, learning_rate_decay=decay)
    own = overrides.applied_to(benign)
    assert own.learning_rate_milestones == ([0.25] if milestones is None else milestones)
    assert own.learning_rate_decay == (0.1 if decay is None else decay)
    assert (own.momentum, own.weight_decay, own.num_epochs) == (0.9, 5e-4, num_epochs)
