"""Components: what a field may hold follows from its annotation; messages name field, value and what is allowed."""

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar, Literal, Protocol, runtime_checkable

import pytest

from fedrobust.config.component import (
    TRAITS,
    AssumedFraction,
    Count,
    FieldError,
    Fraction,
    Index,
    NonNegative,
    Positive,
    Trait,
    check_fields,
    component,
    has_trait,
)


@runtime_checkable
class Rule(Protocol):
    def __call__(self, updates: list[float], weights: list[float]) -> float: ...


@runtime_checkable
class Named(Protocol):
    name: str


@component
class First:
    def __call__(self, updates: list[float], weights: list[float]) -> float:
        return updates[0]


@component
class Halve:
    def __call__(self, update: float) -> float:
        return update / 2


@component
class Step:
    def __call__(self, update: list[float], state: list[float]) -> float:
        return update[0] - state[0]


@component
class Part:
    size: Count = 1


@component
class Whole:
    believed: AssumedFraction = 0.1
    share: Fraction = 0.5
    rate: Positive = 1.0
    decay: NonNegative = 0.0
    count: Count = 1
    index: Index = 0
    flag: bool = False
    mode: Literal["fast", "slow"] = "fast"
    size: Count | Literal["auto"] = "auto"
    sizes: list[Count] | None = None
    text: str | None = None
    part: Part = Part()
    rule: Rule | None = None
    named: Named | None = None
    hook: Callable[[], None] | None = None
    anything: Any = None


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"believed": 0.5}, "believed: must be less than 0.5, got 0.5"),
        ({"believed": -0.1}, "believed: must be greater than or equal to 0, got -0.1"),
        ({"believed": "0.1"}, "believed: must be a valid number, got '0.1'"),
        ({"believed": True}, "believed: must be a valid number, got True"),
        ({"believed": float("nan")}, "believed: must be a finite number, got nan"),
        ({"share": 1.01}, "share: must be less than or equal to 1, got 1.01"),
        ({"rate": 0.0}, "rate: must be greater than 0, got 0.0"),
        ({"rate": float("inf")}, "rate: must be a finite number, got inf"),
        ({"decay": -1}, "decay: must be greater than or equal to 0, got -1"),
        ({"count": 0}, "count: must be greater than or equal to 1, got 0"),
        ({"count": 2.0}, "count: must be a valid integer, got 2.0"),
        ({"count": None}, "count: must be a valid integer, got None"),
        ({"index": -1}, "index: must be greater than or equal to 0, got -1"),
        ({"flag": 1}, "flag: must be a valid boolean, got 1"),
        ({"mode": "medium"}, "mode: must be 'fast' or 'slow', got 'medium'"),
        ({"size": "many"}, "size: must be a valid integer or 'auto', got 'many'"),
        ({"size": 0}, "size: must be greater than or equal to 1 or 'auto', got 0"),
        ({"sizes": 3}, "sizes: must be a valid list, got 3"),
        ({"sizes": [3, 0]}, "sizes: must be greater than or equal to 1, got [3, 0]"),
        ({"text": 5}, "text: must be a valid string, got 5"),
        ({"part": None}, "part: must be a component of the kind Part, got None"),
        ({"part": {"size": 1}}, "part: must be a component of the kind Part, got {'size': 1}"),
        ({"rule": Halve()}, "rule: must be a component of the kind Rule or null, got Halve()"),
        ({"rule": Step()}, "rule: must be a component of the kind Rule or null, got Step()"),
        ({"rule": 5}, "rule: must be a component of the kind Rule or null, got 5"),
        ({"named": Part()}, "named: must be a component of the kind Named or null, got Part(size=1)"),
        ({"hook": 5}, "hook: must be a component of the kind Callable or null, got 5"),
    ],
)
def test_a_wrong_value_is_refused(values, message):
    with pytest.raises(FieldError) as error:
        Whole(**values)
    assert str(error.value) == message
    assert error.value.field == next(iter(values))


def test_right_values_are_taken_as_they_are():
    values = {
        "believed": 0,
        "share": 1,
        "rate": 1e-300,
        "count": 10**20,
        "size": 3,
        "sizes": [],
        "text": "",
        "rule": First(),
        "hook": print,
        "anything": object(),
    }
    whole = Whole(**values)
    assert {name: getattr(whole, name) for name in values} == values


def test_a_component_is_frozen_and_takes_keywords_only():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Part(size=2).size = 3
    with pytest.raises(TypeError, match="positional"):
        Part(2)
    with pytest.raises(TypeError, match="sise"):
        Part(sise=2)


@component
class Ordered:
    low: Index = 0
    high: Index = 1

    def __post_init__(self) -> None:
        if self.low > self.high:
            raise FieldError("low", f"must be at most high={self.high}, got {self.low}")


@component
class Bounded(Ordered):
    bound: Count = 5


def test_fields_are_checked_before_what_they_must_satisfy_together():
    """A string cannot be compared with a number: the type is told, not the comparison's TypeError."""
    with pytest.raises(FieldError, match=r"^low: must be at most high=1, got 2$"):
        Ordered(low=2)
    with pytest.raises(FieldError, match=r"^low: must be a valid integer, got 'x'$"):
        Ordered(low="x")


def test_a_derived_component_checks_its_own_fields_and_those_it_inherits():
    assert Bounded(low=1, high=2, bound=3).high == 2
    for values, message in [
        ({"bound": 0}, "bound: must be greater than or equal to 1, got 0"),
        ({"high": -1}, "high: must be greater than or equal to 0, got -1"),
        ({"low": 2}, "low: must be at most high=1, got 2"),
    ]:
        with pytest.raises(FieldError) as error:
            Bounded(**values)
        assert str(error.value) == message


def test_replacing_a_field_checks_it_again():
    with pytest.raises(FieldError, match="size: must be greater than or equal to 1, got 0"):
        dataclasses.replace(Part(), size=0)


def test_values_can_be_checked_before_a_component_is_built():
    check_fields(Part, {"size": 1, "unknown": "is not looked at"})
    with pytest.raises(FieldError, match="size: must be a valid integer, got 'x'"):
        check_fields(Part, {"size": "x"})


def test_an_error_of_the_whole_names_no_field():
    assert str(FieldError("", "needs Ray")) == "needs Ray"


@pytest.mark.parametrize("wrong", [{"needs_rot_update"}, {"is_differentiable", "nice"}, "is_differentiable", 3])
def test_a_trait_that_there_is_not_is_refused_where_the_class_is_made(wrong: object) -> None:
    with pytest.raises(TypeError, match=r"Own\.traits(: unknown (needs_rot_update|nice); allowed: |.* must be a set)"):

        @component
        class Own:
            traits = wrong


@pytest.mark.parametrize("name", sorted(TRAITS))
@pytest.mark.parametrize("value", [True, False])
def test_a_trait_is_declared_among_the_traits_or_not_at_all(name: str, value: bool) -> None:
    with pytest.raises(TypeError, match=rf"^Own\.{name}: declare it by traits = frozenset\(\{{'{name}'\}}\)$"):
        component(type("Own", (), {name: value}))
    with pytest.raises(TypeError, match=rf"^Plain\.{name}: "):
        has_trait(type("Plain", (), {name: value})(), "is_differentiable")


def test_traits_are_what_was_declared() -> None:
    @component
    class Own:
        traits: ClassVar[frozenset[Trait]] = frozenset({"merges_clients"})

    @component
    class Below(Own):
        pass

    assert has_trait(Own(), "merges_clients")
    assert has_trait(Below(), "merges_clients")
    assert not has_trait(Own(), "follows_clients")
    assert not has_trait(lambda: None, "follows_clients")
