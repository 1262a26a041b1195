"""One line where something gives up, stands for something else, or cannot work: to whoever collects, else to the log.

Rules and estimators are called by users, by a federation round by round, and by attackers who try out hundreds of
updates. The first should see a notice at once, the second once a run, the third never.
"""

import logging
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

log = logging.getLogger("fedrobust")

_collected: ContextVar[dict[str, None] | None] = ContextVar("collected", default=None)


def notice(text: str) -> None:
    """Say `text`: to the innermost `collected_notices` of this thread, else as a warning in the log."""
    collected = _collected.get()
    if collected is None:
        log.warning("%s", text)
    else:
        collected[text] = None


def is_new(text: str, said: Collection[str]) -> bool:
    """Whether `text` is in none of what has been said, which may name the part that it is about besides."""
    return not any(text in line for line in said)


@contextmanager
def collected_notices() -> Iterator[dict[str, None]]:
    """Collect the notices of the calls within, each text once, in order; nothing of them reaches the log.

    Example:
        >>> with collected_notices() as said:
        ...     notice("2 of 10 clients are left out")
        >>> list(said)
        ['2 of 10 clients are left out']
    """
    said: dict[str, None] = {}
    token = _collected.set(said)
    try:
        yield said
    finally:
        _collected.reset(token)
