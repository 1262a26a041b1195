"""Schedules against round numbers written out by hand."""

import pytest

from fedrobust.attacks import Schedule
from fedrobust.config.component import FieldError


def attack_rounds(schedule: Schedule) -> list[int]:
    return [number for number in range(1, 21) if schedule.is_attack_round(number)]


@pytest.mark.parametrize(
    ("schedule", "rounds"),
    [
        (Schedule(), list(range(1, 21))),
        (Schedule(start=5, every=4), [5, 9, 13, 17]),
        (Schedule(start=5, every=4, stop=13), [5, 9, 13]),
        (Schedule(rounds=[12, 14, 16, 18]), [12, 14, 16, 18]),
        (Schedule(rounds=[3], start=7), [3]),
    ],
)
def test_attack_rounds(schedule, rounds):
    assert attack_rounds(schedule) == rounds


def test_all_attack_unless_they_take_turns():
    assert Schedule(start=2).attackers(2, 3) == (0, 1, 2)
    assert Schedule(start=2).attackers(1, 3) == ()
    turns = Schedule(rounds=[18, 12, 16, 14, 20], turns=True)
    assert [turns.attackers(number, 4) for number in (12, 14, 16, 18, 20)] == [(0,), (1,), (2,), (3,), (0,)]
    every = Schedule(start=5, every=5, turns=True)
    assert [every.attackers(number, 2) for number in (5, 6, 10, 15)] == [(0,), (), (1,), (0,)]
    assert Schedule().attackers(1, 0) == ()


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"rounds": []}, "rounds: must list at least one round"),
        ({"rounds": [0]}, "rounds: must be greater than or equal to 1"),
        ({"start": 5, "stop": 4}, "stop: must be at least start=5, got 4"),
        ({"every": 0}, "every: must be greater than or equal to 1, got 0"),
        ({"participation": "always"}, "participation: must be 'sampled' or 'forced', got 'always'"),
    ],
)
def test_impossible_schedules_are_refused(fields, text):
    with pytest.raises(FieldError, match=text):
        Schedule(**fields)
