"""Components: frozen, keyword-only dataclasses whose fields are checked when they are built.

Every rule, attack, model or data set that a config can name is one. A range is part of the field's type
(`Annotated[float, Ge(0), Lt(0.5)]`), so that Python users and config users read the same message.
"""

import dataclasses
import inspect
import typing
from collections.abc import Callable, Collection, Mapping
from functools import cache, partial
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeAlias, TypeVar, Union, dataclass_transform

from annotated_types import Ge, Gt, Le, Lt
from pydantic import ConfigDict, TypeAdapter, ValidationError

T = TypeVar("T")

AssumedFraction = Annotated[float, Ge(0), Lt(0.5)]
"""What the server believes the fraction of malicious clients to be (ε of the literature); never the truth."""

Fraction = Annotated[float, Ge(0), Le(1)]
Positive = Annotated[float, Gt(0)]
NonNegative = Annotated[float, Ge(0)]
Count = Annotated[int, Ge(1)]
Index = Annotated[int, Ge(0)]

Trait: TypeAlias = Literal[
    "needs_root_update",  # of a rule: it reads the server's own update
    "trusts_claims",  # of a rule: weights are the clients' claims unless the server says otherwise
    "follows_clients",  # of a rule or a pre-aggregator: it remembers clients by their ids
    "merges_clients",  # of a pre-aggregator: its rows are not clients any more
    "is_differentiable",  # of a rule or a pre-aggregator: gradients pass from its answer to its input
    "uses_model_change",  # of an attack on updates: it reads what the model did since the attackers last received it
    "counts_detected_only",  # of an attack on data: only test examples that the model knows count
]
"""What a component may say of itself by `traits: ClassVar[frozenset[Trait]]`; a name that is none is refused."""

TRAITS: frozenset[str] = frozenset(typing.get_args(Trait))

_STRICT = ConfigDict(strict=True, allow_inf_nan=False)


class FieldError(ValueError):
    """A field has a value that it cannot have; `field` names it, the message says what is allowed."""

    def __init__(self, field: str, message: str) -> None:
        self.field = field
        self.message = message
        super().__init__(f"{field}: {message}" if field else message)


@dataclass_transform(frozen_default=True, kw_only_default=True)
def component(cls: type[T]) -> type[T]:
    """Make `cls` a frozen, keyword-only dataclass that checks its fields' types and ranges when it is built.

    Numbers must be finite. A field for another component must hold one: an instance, or what its Protocol asks for.

    A `__post_init__` of the class runs after the check, for what several fields must satisfy together.

    Raises:
        TypeError: (at once) traits that there are not, or one that is not declared among the traits.
        FieldError: (on building) a value of the wrong type or out of range, naming field, value and what is allowed.
    """
    traits_of(cls)
    inner = getattr(cls, "__post_init__", None)

    def __post_init__(self: Any) -> None:
        check_fields(type(self), {one.name: getattr(self, one.name) for one in dataclasses.fields(self) if one.init})
        if inner is not None:
            inner(self)

    cls.__post_init__ = __post_init__  # type: ignore[attr-defined]
    return dataclasses.dataclass(frozen=True, kw_only=True)(cls)


def traits_of(kind: Any) -> frozenset[str]:
    """The traits that a class declares; its bases' if it declares none.

    Raises:
        TypeError: a name that is no trait, or a trait that is an attribute of its own instead of being declared.
    """
    return _traits_of(kind)


@cache
def _traits_of(kind: Any) -> frozenset[str]:
    declared: Any = getattr(kind, "traits", frozenset())
    if isinstance(declared, str) or not isinstance(declared, Collection):
        raise TypeError(f"{kind.__name__}.traits must be a set of names, got {declared!r}")
    if unknown := sorted(map(str, set(declared) - TRAITS)):
        raise TypeError(f"{kind.__name__}.traits: unknown {', '.join(unknown)}; allowed: {', '.join(sorted(TRAITS))}")
    for name in sorted(TRAITS):
        if isinstance(getattr(kind, name, None), bool):
            raise TypeError(f"{kind.__name__}.{name}: declare it by traits = frozenset({{{name!r}}})")
    return frozenset(declared)


def has_trait(part: object, trait: Trait) -> bool:
    """Whether a component (or whatever stands in its place) declares this trait."""
    return trait in traits_of(type(part))


def check_fields(cls: type[Any], values: Mapping[str, Any]) -> None:
    """Check `values` against the annotations of the dataclass `cls`; unknown names are the caller's affair.

    Raises:
        FieldError: a value of the wrong type or out of range.
    """
    checks = _checks(cls)
    for name, value in values.items():
        if name in checks:
            checks[name](name, value)


_Check: TypeAlias = Callable[[str, Any], None]
_known: dict[type[Any], dict[str, _Check]] = {}


def _checks(cls: type[Any]) -> dict[str, _Check]:
    """One check for each field."""
    if cls not in _known:
        hints = typing.get_type_hints(cls, include_extras=True)
        names = [field.name for field in dataclasses.fields(cls) if field.init]
        _known[cls] = {name: _check_of(hints[name]) for name in names}
    return _known[cls]


def _check_of(hint: Any) -> _Check:
    if _is_plain(hint):
        return partial(_check_plain, TypeAdapter(hint, config=_STRICT))
    kinds = typing.get_args(hint) if typing.get_origin(hint) in (Union, UnionType) else (hint,)
    return partial(_check_kind, tuple(typing.get_origin(kind) or kind for kind in kinds))


def _check_plain(adapter: TypeAdapter[Any], name: str, value: Any) -> None:
    try:
        adapter.validate_python(value)
    except ValidationError as error:
        raise FieldError(name, _explain(value, error)) from None


def _check_kind(kinds: tuple[Any, ...], name: str, value: Any) -> None:
    if Any not in kinds and not any(_is_a(value, kind) for kind in kinds):
        names = ["null" if kind is NoneType else kind.__name__ for kind in kinds]
        raise FieldError(name, f"must be a component of the kind {' or '.join(names)}, got {value!r}")


def _is_a(value: Any, kind: Any) -> bool:
    if not isinstance(value, kind):
        return False
    if given := _arguments(kind):
        # All that is callable is an instance of such a Protocol: look at the names of what it is called with.
        try:
            inspect.signature(value).bind(**dict.fromkeys(given))
        except TypeError:
            return False
    return True


def _arguments(kind: Any) -> list[str]:
    """The names that a component of a Protocol must be callable with; none where it is not called."""
    is_called = getattr(kind, "_is_protocol", False) and "__call__" in vars(kind)
    names = list(inspect.signature(kind.__call__).parameters)[1:] if is_called else []
    return [name for name in names if name != "context"]  # who needs none may leave it out (`call_rule`)


def _is_plain(hint: Any) -> bool:
    if typing.get_origin(hint) is typing.Literal:
        return True
    if typing.get_origin(hint) is Annotated:
        return _is_plain(typing.get_args(hint)[0])
    inner = [part for part in typing.get_args(hint) if part is not Ellipsis]
    return all(_is_plain(part) for part in inner) if inner else hint in (int, float, str, bool, type(None))


def _explain(value: Any, error: ValidationError) -> str:
    reasons: list[str] = []
    for entry in error.errors():
        if entry["type"] == "tuple_type":  # configs hold lists
            continue
        reason = entry["msg"].removeprefix("Input should be ")
        if reason not in reasons:
            reasons.append(reason)
    return f"must be {' or '.join(reasons)}, got {value!r}"
