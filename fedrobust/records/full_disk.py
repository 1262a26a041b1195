"""A full disk, whoever finds it: files, a plot, a tracker's data base."""

import errno
from collections.abc import Iterator
from pathlib import Path

_NUMBERS = tuple(getattr(errno, name) for name in ("ENOSPC", "EDQUOT") if hasattr(errno, name))
_WORDS = ("no space left on device", "disk is full", "disk quota exceeded")
"""What libraries say that do not hand on the system's error."""


def explain_full_disk(error: BaseException, folder: Path) -> str | None:
    """One line that says that the disk is full, and where; `None` if nothing in `error`'s causes says so.

    Args:
        error: what was raised.
        folder: named where the error names no file.
    """
    for cause in _causes(error):
        is_known = isinstance(cause, OSError) and cause.errno in _NUMBERS
        if is_known or any(words in str(cause).lower() for words in _WORDS):
            place = cause.filename if isinstance(cause, OSError) and cause.filename else folder
            return f"the disk is full (No space left on device) at {place}"
    return None


def _causes(error: BaseException) -> Iterator[BaseException]:
    """`error`, what it was raised from, and amid."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = current.__cause__ or current.__context__
