"""Writing files that a kill cannot tear, and JSON that every reader can parse."""

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO


def write_atomically(path: Path, data: bytes) -> None:
    """Replace `path` by `data`: whoever reads it sees the old bytes or the new ones, also after a kill or power cut."""
    # In the same folder, since a rename is atomic only within one file system.
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with os.fdopen(_open_new(temporary), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:  # on a full disk above all: half a file is of no use
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def _open_new(path: Path) -> int:
    """A descriptor of a new file; what lies there, left by a kill or a link to somewhere else, goes first."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    try:
        return os.open(path, flags, 0o666)
    except FileExistsError:
        path.unlink()
        return os.open(path, flags, 0o666)


def open_to_append(path: Path) -> BinaryIO:
    """The file at `path`, made if need be, to be written to at its end; never one that a link points to.

    Raises:
        OSError: `path` is a link, among others.
    """
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    return os.fdopen(os.open(path, flags, 0o666), "ab")


def remove_leftovers(folder: Path) -> None:
    """Remove what a killed `write_atomically` left in `folder`; for its owner, who knows that nobody else writes."""
    for path in folder.glob(".*.tmp"):
        path.unlink()


def sync_folder(folder: Path) -> None:
    """Make a file's creation or renaming in `folder` durable, where the system can (Windows opens no folders)."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def to_json(value: Any, *, indent: int | None = None) -> str:
    """`value` as strict JSON: NaN and infinity, which JSON does not have, become null.

    Raises:
        TypeError: something in `value` is not a mapping, list, tuple, string, number, bool or None.
    """
    return json.dumps(_finite(value), indent=indent, allow_nan=False, ensure_ascii=False)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
