"""Every bound in a field's annotation is kept: of all rules, pre-aggregators and server optimisers."""

import dataclasses
import math
import typing
from collections.abc import Iterator
from types import UnionType
from typing import Annotated, Any, Union

import pytest
from annotated_types import Ge, Gt, Le, Lt

from fedrobust.aggregators import RULES
from fedrobust.config.component import FieldError
from fedrobust.preaggregators import PREAGGREGATORS
from fedrobust.server_optimizers import ServerAdam, ServerMomentum, ServerYogi

KINDS = (*RULES, *PREAGGREGATORS, ServerAdam, ServerMomentum, ServerYogi)
VALID = {"assumed_fraction": 0.2, "max_norm": 1.0}
"""What must be given, or may be."""


def bounds_of(hint: Any) -> Iterator[tuple[type, Any]]:
    """The type and each bound of an annotation."""
    if typing.get_origin(hint) in (Union, UnionType):
        for part in typing.get_args(hint):
            yield from bounds_of(part)
    elif typing.get_origin(hint) is Annotated:
        kind, *metadata = typing.get_args(hint)
        for bound in metadata:
            yield kind, bound


def beyond(kind: type, bound: Any) -> tuple[float, str]:
    """A value just outside of a bound, and what the message says of it."""
    step = 1 if kind is int else 1e-9
    if isinstance(bound, Ge):
        return bound.ge - step, f"must be greater than or equal to {bound.ge}"
    if isinstance(bound, Le):
        return bound.le + step, f"must be less than or equal to {bound.le}"
    if isinstance(bound, Gt):
        return kind(bound.gt), f"must be greater than {bound.gt}"
    assert isinstance(bound, Lt)
    return kind(bound.lt), f"must be less than {bound.lt}"


CASES = [
    (kind, field.name, *beyond(number, bound), number)
    for kind in KINDS
    for field in dataclasses.fields(kind)
    for number, bound in bounds_of(typing.get_type_hints(kind, include_extras=True)[field.name])
]


def valid_fields(kind: type) -> dict[str, float]:
    names = {field.name for field in dataclasses.fields(kind)}
    return {name: value for name, value in VALID.items() if name in names}


def test_the_table_is_not_empty() -> None:
    assert len(CASES) >= 50
    assert {kind for kind, *_ in CASES} >= {kind for kind in KINDS if valid_fields(kind)}
    for kind in KINDS:
        kind(**valid_fields(kind))


@pytest.mark.parametrize(
    ("kind", "name", "value", "says", "number"), CASES, ids=lambda one: getattr(one, "__name__", None)
)
def test_a_value_beyond_a_bound_is_refused_with_field_bound_and_value(
    kind: type, name: str, value: float, says: str, number: type
) -> None:
    with pytest.raises(FieldError) as refusal:
        kind(**{**valid_fields(kind), name: value})
    assert str(refusal.value) == f"{name}: {says}, got {value!r}"
    if number is float:
        for wrong in (math.nan, math.inf):
            with pytest.raises(FieldError, match=f"{name}: must be a finite number, got {wrong}"):
                kind(**{**valid_fields(kind), name: wrong})
