"""The results as a page and a picture."""

import statistics
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

HEADER = """# Updates from disk, and filters at a thousand clients

Claim: a rule reads n updates of d parameters from a memory-mapped file with the same answer, bit for bit, as from
memory, in time linear in n·d, and beside the answer takes no more memory the larger the file is. At n = 1000 the
filters' weights by Lanczos' iteration are those of the full eigendecomposition.

    python experiments/streaming/run.py

Hardware: 2 CPU cores (AMD EPYC), no GPU. Seeds: 0 for the files, those in the table for the filters. The tables were
put together from runs with `--part` and `--sizes`. Other work took part of the two cores while the files were read: the
seconds are an upper bound, from the disk most of all; the memory is not affected.

## From disk

Each file is written row by row ({n} x d numbers N(0, 1) of float32, the last fifth shifted by 0.1), opened by
`fedrobust._linalg.columns.open_memory_map`, and deleted. Each measurement is a process of its own. *From disk*: one
call after the file was dropped from the page cache. *From cache*: the median of three calls after it, which is what
the fit is made of. *Extra memory*: the largest `RssAnon` of the process during these calls, seen a thousand times a
second, less that before. `VmHWM` and `RSS` would count the file's own pages: they are in the page cache, where the
kernel takes them back when it needs them, and no memory of the rule. Up to three answers of 4d bytes are alive at a
time. Rules that compare clients hold several n x n matrices (8 MB each at n = 1000), DnC a sample of 10,000 columns
(40 MB), whatever d is; so its time hardly depends on d, and a line says little of it. *Equal*: the answer is that of
the same matrix read into memory, bit for bit.
"""


def write_report(folder: Path, results: dict[str, list[dict[str, Any]]]) -> None:
    """Write `README.md` and `streaming.png` into `folder`."""
    streams = {rule: list(rows) for rule, rows in groupby(results["streams"], key=lambda row: row["rule"])}
    lines = []
    if streams:
        lines += [HEADER.format(n=results["streams"][0]["n"]), *_stream_tables(streams)]
        lines += ["![Seconds and extra memory of each rule by the file's size](streaming.png)", ""]
        _plot(folder / "streaming.png", streams)
    if results["lanczos"]:
        lines += _filter_table(results["lanczos"])
    (folder / "README.md").write_text("\n".join(lines))


def fit(rows: Sequence[dict[str, Any]]) -> tuple[float, float, float, float]:
    """Seconds ≈ a + b·nd: a, b in seconds for 10⁹ numbers, R², and the largest relative deviation from the line."""
    numbers = np.array([row["n"] * row["d"] / 1e9 for row in rows])
    seconds = np.array([row["seconds_from_cache"] for row in rows])
    slope, constant = np.polyfit(numbers, seconds, 1)
    line = constant + slope * numbers
    total = float(((seconds - seconds.mean()) ** 2).sum())
    r_squared = 1 - float(((seconds - line) ** 2).sum()) / total
    return float(constant), float(slope), r_squared, float(np.abs(seconds / line - 1).max())


def _stream_tables(streams: dict[str, list[dict[str, Any]]]) -> list[str]:
    lines = [
        "| rule | d | GB | from disk, s | from cache, s | s for 10⁹ numbers "
        "| extra memory, MB | part of the file | equal |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for rule, rows in streams.items():
        for row in rows:
            size = row["bytes_read"]
            equal = "yes" if row["is_equal"] else f"to {row['largest_difference']:.0e}"
            lines.append(
                f"| {rule} | {row['d']:,} | {size / 1e9:.1f} | {row['seconds_from_disk']:.2f} "
                f"| {row['seconds_from_cache']:.2f} | {row['seconds_from_cache'] / (size / 4e9):.2f} "
                f"| {row['extra_bytes'] / 1e6:.0f} | {100 * row['extra_bytes'] / size:.1f} % | {equal} |"
            )
    lines += [
        "",
        "The line seconds = a + b · nd/10⁹ through the times from the cache, and the memory for the largest and the "
        "smallest file:",
        "",
        "| rule | a, s | b, s | R² | largest deviation | memory, largest / smallest |",
        "|---|---|---|---|---|---|",
    ]
    for rule, rows in streams.items():
        if len(rows) < 3:
            continue
        constant, slope, r_squared, deviation = fit(rows)
        growth = f"{rows[-1]['extra_bytes'] / 1e6:.0f} MB / {rows[0]['extra_bytes'] / 1e6:.0f} MB"
        lines.append(
            f"| {rule} | {constant:.2f} | {slope:.2f} | {r_squared:.4f} | {100 * deviation:.0f} % | {growth} |"
        )
    return [*lines, ""]


def _filter_table(rows: Sequence[dict[str, Any]]) -> list[str]:
    lines = [
        f"## Filters at n = {rows[0]['n']}",
        "",
        "Seconds of the filter on a Gram matrix (20,000 columns; a fifth are outliers in five directions), and of the "
        "same filter with NumPy's `eigh` of the whole matrix in every step; mean ± standard deviation over seeds "
        f"{', '.join(sorted({str(row['seed']) for row in rows}))}. `sever` with one client a round decomposes once and "
        "follows the eigenvalues from there; the others use Lanczos' iteration from the previous vector. Weights are "
        "in [0, 1].",
        "",
        "| filter | steps | mass removed | seconds | seconds with `eigh` | largest difference of a weight |",
        "|---|---|---|---|---|---|",
    ]
    for name, group in groupby(rows, key=lambda row: row["filter"]):
        found = list(group)
        lines.append(
            f"| {name} | {_spread(found, 'num_decompositions', 0)} | {_spread(found, 'mass_removed', 1)} "
            f"| {_spread(found, 'seconds', 2)} | {_spread(found, 'seconds_full', 1)} "
            f"| {max(row['largest_difference'] for row in found):.0e} |"
        )
    return [*lines, ""]


def _spread(rows: Sequence[dict[str, Any]], key: str, digits: int) -> str:
    values = [float(row[key]) for row in rows]
    text = f"{statistics.mean(values):.{digits}f}"
    return f"{text} ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else text


def _plot(path: Path, streams: dict[str, list[dict[str, Any]]]) -> None:
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.5))
    for index, (rule, rows) in enumerate(streams.items()):
        colour, marker = f"C{index}", "osD^vP*Xd<>"[index]
        numbers = np.array([row["n"] * row["d"] / 1e9 for row in rows])
        left.plot(numbers, [row["seconds_from_cache"] for row in rows], marker, color=colour, label=rule)
        if len(rows) >= 3:
            constant, slope, _, _ = fit(rows)
            ends = np.array([0, numbers.max()])
            left.plot(ends, constant + slope * ends, color=colour, linewidth=0.8)
        gigabytes = [row["bytes_read"] / 1e9 for row in rows]
        right.plot(gigabytes, [row["extra_bytes"] / 1e6 for row in rows], marker + "-", color=colour, linewidth=0.8)
    sizes = np.array([row["bytes_read"] / 1e9 for row in next(iter(streams.values()))])
    right.plot(sizes, 100 * sizes, "k:", label="a tenth of the file")
    left.set(xlabel="n·d, 10⁹ numbers", ylabel="seconds (from the page cache)", xlim=(0, None), ylim=(0, None))
    right.set(xlabel="file, GB", ylabel="extra memory, MB", xlim=(0, None), ylim=(0, None))
    left.legend(fontsize="small")
    right.legend(fontsize="small")
    for axis in (left, right):
        axis.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)
