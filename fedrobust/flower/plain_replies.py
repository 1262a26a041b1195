"""What anyone's Flower clients answer, looked at before it is used: one record of arrays, one of metrics."""

import sys
from collections import Counter
from collections.abc import Sequence
from typing import TypeVar

from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict

from fedrobust.error_text import said_by_node

Record = TypeVar("Record", ArrayRecord, MetricRecord)


def content_of(message: Message) -> RecordDict:
    """The content of a reply.

    Raises:
        ValueError: it is an error instead.
    """
    if message.has_error():
        raise ValueError(f"failed: {said_by_node(message.error.reason)}")
    return message.content


def arrays_of(content: RecordDict) -> ArrayRecord:
    """The one record of arrays in a reply, whatever its key.

    Raises:
        ValueError: none, or several.
    """
    found = _records(content, ArrayRecord)
    if len(found) != 1:
        raise ValueError(f"reply must hold one ArrayRecord, got {len(found)}")
    return found[0]


def claimed_examples(content: RecordDict, key: str, maximum: float) -> float:
    """How many examples a client says it has.

    Raises:
        ValueError: none, several, or not a positive number up to `maximum`.
    """
    found = _records(content, MetricRecord)
    if len(found) != 1:
        raise ValueError(f"reply must hold one MetricRecord, got {len(found)}")
    value = found[0].get(key)
    if value is None:
        raise ValueError(f"metrics must hold {key!r}, got {list(found[0])}")
    if not isinstance(value, int | float) or not 0 < value <= maximum:
        raise ValueError(f"{key!r} must be a positive number up to {maximum:g}, got {value!r}")
    return float(value)


def comparable(contents: Sequence[RecordDict]) -> list[int]:
    """Which replies' metrics can be averaged: finite, with the names and lengths that most replies have.

    Flower's own averaging ends the run at the first reply that differs from the others. In a tie the earlier wins.
    """
    shapes = [_shape_of_metrics(content) for content in contents]
    usual = Counter(shape for shape in shapes if shape is not None).most_common(1)
    return [index for index, shape in enumerate(shapes) if usual and shape == usual[0][0]]


def with_equal_weights(content: RecordDict, key: str) -> RecordDict:
    """The reply with its claim of examples set to 1: an average weighted by it counts every client once."""
    return RecordDict(
        {
            name: MetricRecord({**record, key: 1.0}) if isinstance(record, MetricRecord) else record
            for name, record in content.items()
        }
    )


def _records(content: RecordDict, kind: type[Record]) -> list[Record]:
    """The records of a kind; `content.array_records` and the like copy all of them at every look."""
    return [record for record in content.values() if isinstance(record, kind)]


def _shape_of_metrics(content: RecordDict) -> tuple[tuple[str, int], ...] | None:
    """Names and lengths (-1: a single number) of a reply's metrics; `None` where there is not one record of them."""
    found = _records(content, MetricRecord)
    if len(found) != 1:
        return None
    shape = []
    for name, value in sorted(found[0].items()):
        values = value if isinstance(value, list) else [value]
        if not all(abs(one) <= sys.float_info.max for one in values):  # false for NaN, and exact for integers
            return None
        shape.append((name, len(value) if isinstance(value, list) else -1))
    return tuple(shape)
