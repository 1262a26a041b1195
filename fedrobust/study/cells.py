"""The cells of a study, each measured once: one JSON line a cell, as it ends, so that a study that stopped goes on."""

import contextlib
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.progress import track

from fedrobust.records.files import write_atomically
from fedrobust.records.lock import locked_file

Key = tuple[Any, ...]
"""What tells one cell from the others: strings, numbers, `None`."""


def measure_cells(
    names: Sequence[str],
    cells: Iterable[Key],
    measure: Callable[..., Mapping[str, Any]],
    *,
    path: Path | None = None,
    description: str = "cells",
    processes: int = 1,
) -> dict[Key, dict[str, Any]]:
    """Measure the cells that are not in the file yet, under a progress bar.

    Args:
        names: of the entries of a cell's key.
        cells: their keys.
        measure: called with a key's entries; its answer must be plain enough for JSON.
        path: of the file; `None` keeps nothing.
        description: of the progress bar.
        processes: measure so many cells at a time, each in a process of its own; `measure` is then called there.

    Returns:
        The answers by key, each with the key's entries by name, the file's older ones first.

    Raises:
        FolderInUseError: another process measures into the file.
    """
    with contextlib.nullcontext() if path is None else locked_file(path):
        if path is not None and path.exists():
            write_atomically(path, b"".join(_whole_lines(path)))  # a kill leaves half a line
        done = {} if path is None else read_cells(names, path)
        left = [key for key in cells if key not in done]
        for key, answer in track(_answers(measure, left, processes), description=description, total=len(left)):
            done[key] = {**dict(zip(names, key, strict=True)), **answer}
            if path is not None:
                with path.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(done[key]) + "\n")
    return done


def measure_parts(
    parts: Mapping[str, Callable[[], Mapping[str, Any]]], *, path: Path | None = None, description: str = "parts"
) -> dict[str, dict[str, Any]]:
    """Measure the parts of a study that are not in the file yet, each in a way of its own.

    Args:
        parts: what to call, by name.
        path: of the file; `None` keeps nothing.
        description: of the progress bar.

    Returns:
        The answers by name, each with the `seconds` that it took.
    """

    def measure(part: str) -> dict[str, Any]:
        started = time.perf_counter()
        return {**parts[part](), "seconds": round(time.perf_counter() - started, 2)}

    rows = measure_cells(("part",), [(part,) for part in parts], measure, path=path, description=description)
    return {part: {name: value for name, value in row.items() if name != "part"} for (part,), row in rows.items()}


def _answers(
    measure: Callable[..., Mapping[str, Any]], keys: Sequence[Key], processes: int
) -> Iterator[tuple[Key, Mapping[str, Any]]]:
    """Each key with its answer, as it ends."""
    if processes == 1:
        for key in keys:
            yield key, measure(*key)
        return
    from joblib import Parallel, delayed

    jobs = (delayed(_keyed)(measure, key) for key in keys)
    yield from Parallel(n_jobs=processes, return_as="generator_unordered")(jobs)


def _keyed(measure: Callable[..., Mapping[str, Any]], key: Key) -> tuple[Key, Mapping[str, Any]]:
    return key, measure(*key)


def read_cells(names: Sequence[str], path: Path) -> dict[Key, dict[str, Any]]:
    """The lines of a file by the entries called `names`; none, if there is no file. Half a last line is left out."""
    rows = [json.loads(line) for line in _whole_lines(path)] if path.exists() else []
    return {tuple(row[name] for name in names): row for row in rows}


def _whole_lines(path: Path) -> list[bytes]:
    return [line for line in path.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]
