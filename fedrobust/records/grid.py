"""Runs as a grid of cells: rows and columns are choices, a cell is one scenario under several seeds.

Only seeds are averaged. Whatever else differs between runs of one row or one column becomes part of its label.
"""

import math
import re
import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from fedrobust.records.runs import Run


@dataclass(frozen=True)
class Statistics:
    """A metric over the seeds of a cell; `std` has n - 1 in the denominator and is `None` for n = 1."""

    mean: float
    std: float | None
    n: int


@dataclass(frozen=True)
class Cell:
    """The runs of one scenario, one a seed."""

    row: str
    column: str
    runs: tuple[Run, ...]

    @property
    def finished(self) -> list[Run]:
        """The runs that have figures."""
        return [run for run in self.runs if run.status == "finished"]

    @property
    def failures(self) -> list[Run]:
        """The runs that failed or did not finish."""
        return [run for run in self.runs if run.status != "finished"]

    def statistics(self, metric: str) -> Statistics | None:
        """Mean and standard deviation of `metric` over the finished runs that have it; `None` if none has."""
        values = [float(run.summary[metric]) for run in self.finished if is_figure(run.summary.get(metric))]
        if not values:
            return None
        std = statistics.stdev(values) if len(values) > 1 else None
        return Statistics(statistics.fmean(values), std, len(values))


@dataclass(frozen=True)
class Grid:
    """All cells.

    Attributes:
        rows_key: the config group or setting that the rows are.
        columns_key: the same for the columns.
        rows: the rows' labels, in order.
        columns: the columns' labels, in order.
        cells: by (row, column); a combination that was never started has none.
        superseded: runs left out, since the same scenario was started again with the same seed.
    """

    rows_key: str
    columns_key: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    cells: dict[tuple[str, str], Cell]
    superseded: tuple[Run, ...]


def is_figure(value: object) -> bool:
    """Whether a summary's `value` is a number that can be averaged."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def arrange(runs: Sequence[Run], rows_key: str, columns_key: str) -> Grid:
    """Arrange `runs` by two config groups (`attack`) or settings (`attack.num_malicious`).

    Raises:
        ValueError: no run has such a group or setting, or both are the same.
    """
    if rows_key == columns_key:
        raise ValueError(f"rows and columns must differ, got {rows_key!r} for both")
    for key in (rows_key, columns_key):
        if all(run.value(key) is None for run in runs):
            groups = sorted({group for run in runs for group in run.choices})
            raise ValueError(f"no run has {key!r}; the config groups are {', '.join(groups)}, or name a setting")
    row_of = _labels(runs, rows_key, [name for name in _names(runs) if not _is_about(name, columns_key)], columns_key)
    column_of = _labels(runs, columns_key, [name for name in _names(runs) if _is_about(name, columns_key)], rows_key)

    attempts: dict[tuple[str, str], dict[int, list[Run]]] = defaultdict(lambda: defaultdict(list))
    for run, row, column in zip(runs, row_of, column_of, strict=True):
        attempts[row, column][run.seed].append(run)
    cells: dict[tuple[str, str], Cell] = {}
    superseded: list[Run] = []
    for (row, column), by_seed in attempts.items():
        latest: list[Run] = []
        for _, same in sorted(by_seed.items()):
            *earlier, last = sorted(same, key=lambda run: (run.started_at, run.folder))
            superseded += earlier
            latest.append(last)
        cells[row, column] = Cell(row, column, tuple(latest))
    return Grid(rows_key, columns_key, _ordered(row_of), _ordered(column_of), cells, tuple(superseded))


def _labels(runs: Sequence[Run], key: str, names: Sequence[str], other_key: str) -> list[str]:
    """Each run's value of `key`, with those of the settings `names` that differ between runs of the same value."""
    values: dict[tuple[str | None, ...], set[str | None]] = defaultdict(set)

    def context(run: Run, name: str) -> tuple[str | None, ...]:
        # Within attack=dba, another dataset comes with other settings dataset.*; the choice itself says that.
        group = name.split(".")[0]
        return name, run.value(key), None if name == group else run.choices.get(group)

    names = [name for name in names if name not in (key, other_key)]
    for run in runs:
        for name in names:
            values[context(run, name)].add(run.value(name))
    labels: list[str] = []
    for run in runs:
        differing = [name for name in names if len(values[context(run, name)]) > 1]
        details = ", ".join(f"{name.removeprefix(key + '.')}={run.value(name) or 'unset'}" for name in differing)
        label = run.value(key) or "unset"
        labels.append(f"{label} ({details})" if details else label)
    return labels


def _names(runs: Iterable[Run]) -> list[str]:
    """All config groups and settings of `runs`."""
    return sorted({name for run in runs for name in (*run.choices, *run.settings)})


def _is_about(name: str, key: str) -> bool:
    return name == key or name.startswith(f"{key}.")


def _ordered(labels: Iterable[str]) -> tuple[str, ...]:
    """Without repetition, by name, numbers within a name by their size."""

    def natural(label: str) -> list[tuple[float, str]]:
        parts = re.split(r"(\d+(?:\.\d+)?)", label)
        return [(float(part), "") if part[:1].isdigit() else (-1.0, part) for part in parts]

    return tuple(sorted(set(labels), key=natural))
