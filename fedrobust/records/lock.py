"""One process at a time writes into a folder, or to a file."""

import contextlib
import importlib.util
import logging
import os
import platform
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fedrobust.config.secrets import masked

fcntl: Any = importlib.import_module("fcntl") if importlib.util.find_spec("fcntl") else None  # Windows has none

log = logging.getLogger("fedrobust")

LOCK = ".lock"


class FolderInUseError(RuntimeError):
    """Another process writes there; the message names it."""


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of `folder`, which is made if need be, and goes again if nothing comes into it.

    The lock ends with the process, however that ends, and never needs a hand. Where there are no such locks (Windows,
    some network drives), a line in the log says so, and nothing is locked.

    Raises:
        FolderInUseError: somebody holds it.
        OSError: the folder cannot be written.
    """
    is_new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with _held(folder / LOCK, folder):
            yield
    finally:
        if is_new:
            with contextlib.suppress(OSError):  # it holds something
                folder.rmdir()


@contextlib.contextmanager
def locked_file(path: Path) -> Iterator[None]:
    """Hold the lock of the file at `path`, which lies beside it.

    Raises:
        FolderInUseError: somebody holds it.
    """
    with _held(path.with_name(f".{path.name}.lock"), path):
        yield


@contextlib.contextmanager
def _held(lock: Path, what: Path) -> Iterator[None]:
    if fcntl is None:
        log.warning("this system has no file locks: nothing keeps a second process out of %s", what)
        yield
        return
    descriptor = _take(lock, what)
    if descriptor is None:
        yield
        return
    try:
        with contextlib.suppress(OSError):  # on a full disk the lock holds, too, but nobody can read whose it is
            os.ftruncate(descriptor, 0)
            who = f"process {os.getpid()} on {platform.node()}: {shlex.join(masked(sys.argv))}"
            os.write(descriptor, f"{' '.join(who.split())[:1000]}\n".encode())
        yield
    finally:
        with contextlib.suppress(OSError):
            lock.unlink()  # while it is held: nobody else can hold this very file
        os.close(descriptor)


def _take(lock: Path, what: Path) -> int | None:
    """A descriptor of the lock's file that holds the lock; `None` where there are none."""
    while True:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            who = os.read(descriptor, 4096).decode(errors="replace").strip() or "another process"
            os.close(descriptor)
            raise FolderInUseError(f"{what} is in use by {who}") from None
        except OSError as error:
            os.close(descriptor)
            log.warning("no file locks (%s): nothing keeps a second process out of %s", error.strerror, what)
            return None
        if _is_at(descriptor, lock):
            return descriptor
        os.close(descriptor)  # who held it has just removed the file: the one that is there now counts


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def free_folder(folder: Path) -> Path:
    """Make `folder`, or the first of `folder_2`, `folder_3`, … that is not there: no other process gets the same.

    Raises:
        OSError: it cannot be made.
    """
    number, free = 1, folder
    while True:
        try:
            free.mkdir(parents=True)
        except FileExistsError:
            number += 1
            free = folder.with_name(f"{folder.name}_{number}")
        else:
            return free
