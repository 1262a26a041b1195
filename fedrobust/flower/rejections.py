"""What a round's rejections come to, in one line: a model that overflows has every client rejected in every round."""

from collections.abc import Mapping, Sequence
from typing import Any

_NAMED = 10  # of one reason; all are in the records


def rejections_line(rejections: Sequence[Mapping[str, Any]], who: str) -> str:
    """Whose replies were rejected and why, by reason: `clients 3, 5 rejected: did not answer; client 7 rejected: ...`.

    Args:
        rejections: at least one; `reason`, and under `who` the id, `None` if the reply did not say whose it was.
        who: `client` or `node`.
    """
    by_reason: dict[str, list[str]] = {}
    for one in rejections:
        by_reason.setdefault(one["reason"], []).append("unknown" if one[who] is None else str(one[who]))
    return "; ".join(f"{_subject(ids, who)} rejected: {reason}" for reason, ids in by_reason.items())


def _subject(ids: Sequence[str], who: str) -> str:
    if len(ids) == 1:
        return f"{who} {ids[0]}"
    more = f" and {len(ids) - _NAMED} more" if len(ids) > _NAMED else ""
    return f"{who}s {', '.join(ids[:_NAMED])}{more}"
