"""One process at a time writes into a folder."""

import contextlib
import importlib.util
import os
import platform
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fedrobust.records.secrets import masked

fcntl: Any = importlib.import_module("fcntl") if importlib.util.find_spec("fcntl") else None  # Windows has none

LOCK = ".lock"


class FolderInUseError(RuntimeError):
    """Another process writes into the folder; the message names it."""


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of an existing `folder`. It ends with the process, however that ends, and never needs a hand.

    Where the system has no such locks (Windows), nothing is locked.

    Raises:
        FolderInUseError: somebody holds it.
    """
    if fcntl is None:
        yield
        return
    path = folder / LOCK
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            who = path.read_text("utf-8", errors="replace").strip() or "another process"
            raise FolderInUseError(f"{folder} is in use by {who}") from None
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"process {os.getpid()} on {platform.node()}: {shlex.join(masked(sys.argv))}\n".encode())
        yield
    finally:
        os.close(descriptor)
