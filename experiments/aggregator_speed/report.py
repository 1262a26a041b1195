"""The result of the benchmark as a page and a picture."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

GOALS: dict[str, dict[int, float]] = {
    "mean": dict.fromkeys((10, 20, 50, 100, 1000), 1.0),
    "coordinate_median": {10: 60, 20: 60, 50: 20, 100: 20, 1000: 8},
    "trimmed_mean": {10: 25, 20: 25, 50: 12, 100: 6, 1000: 2.5},
    "krum": {10: 5, 20: 5, 50: 5, 100: 5, 1000: 2.5},
    "multi_krum": {10: 5, 20: 5, 50: 5, 100: 5, 1000: 2.5},
    "geometric_median": dict.fromkeys((10, 20, 50, 100, 1000), 4.0),
    "spectral_filter": dict.fromkeys((10, 20, 50, 100, 1000), 20.0),
    "dnc": dict.fromkeys((10, 20, 50, 100, 1000), 10.0),
    "dnc_direction": dict.fromkeys((10, 20, 50, 100, 1000), 10.0),
}
"""How many times faster than the fastest peer a rule is meant to be, by n."""

ONLY_PEER = {"mean": "torch.mean"}
"""The mean is meant to be no slower than this one; what others make of it is in results.json."""

HEADER = """# Speed of the aggregation rules

Claim: every rule is exact, takes at most a tenth of its input as extra memory, and is many times faster than the
fastest of byzfl {byzfl} (its PyTorch and its NumPy form) and Flower {flwr}, measured in turns in one process.

    pip install -e ".[bench]" && python experiments/aggregator_speed/run.py
    python experiments/aggregator_speed/run.py --device cuda

This result: {device}, {threads} threads, load average at the end {load}, PyTorch {torch}; float32; medians of
{repeats} measurements in milliseconds, the rule and its peers in turns, each after a rest and a call that is not
counted. A measurement is the mean over as many calls in a row as last 20 ms, mostly one (calls of over 1 s: after one
at the start; of over 5 s: made once). f = n/5. *read* is one pass over the matrix (`Tensor.sum`), the floor of any
rule. *extra memory* is the peak of a call beyond its input and beyond what it returns, as a part of the input, the
least of three calls; *with the answer* also counts what it returns: 1/n of the input, and for FoolsGold, which
remembers each client's history, as much again as the input. The geometric median is converged, byzfl's makes 3
iterations. DnC's peer is its paper's algorithm with `torch.linalg.svd` of each of its five
subsamples, and *dnc_direction* is the spectral step of one subsample alone (10,000 columns) beside that
decomposition; *gram_matrix* is what the rules that compare clients build, beside BLAS. Of Flower's strategies only
the arithmetic is timed. A ratio in bold reaches its goal.

![Milliseconds of each rule beside its fastest peer](speed.png)
"""


def write_report(folder: Path, machine: Mapping[str, Any], results: Sequence[Mapping[str, Any]]) -> None:
    """Write `README.md` and `speed.png` into `folder`."""
    from importlib.metadata import version

    lines = [HEADER.format(byzfl=version("byzfl"), flwr=version("flwr"), **machine)]
    if "note" in machine:
        lines += [machine["note"], ""]
    for result in results:
        gigabytes = result["n"] * result["d"] * 4 / 1e9
        lines += [
            f"## n = {result['n']}, d = {result['d']:,}",
            "",
            f"{gigabytes:.2g} GB; read in {result['read_ms']:.1f} ms ({gigabytes / result['read_ms'] * 1e3:.0f} GB/s).",
            "",
            "| rule | ms | times read | fastest peer | its ms | ratio | goal | extra memory | with the answer |",
            "|---|---|---|---|---|---|---|---|---|",
        ]
        for name, row in result["rules"].items():
            if "refused" in row:
                lines.append(f"| {name} | refused: {row['refused']} | | | | | | | |")
                continue
            memory = " | "
            if row.get("extra_memory") is not None and "returned_memory" in row:
                beyond = max(0.0, row["extra_memory"] - row["returned_memory"])
                memory = f"{100 * beyond:.1f} % | {100 * row['extra_memory']:.1f} %"
            if "ms" not in row:
                lines.append(f"| {name} | | | | | | | {memory} |")
                continue
            ours = row["ms"]["fedrobust"]
            peer = _fastest_peer(name, row)
            goal = GOALS.get(name, {}).get(result["n"])
            peer_cells = "| | | |"
            if peer is not None:
                ratio = row["ms"][peer] / ours
                text = f"{ratio:.1f}x"
                if goal is not None and ratio >= goal:
                    text = f"**{text}**"
                once = " (once)" if row["count"].get(peer) == 1 else ""
                peer_cells = f"| {peer} | {_ms(row['ms'][peer])}{once} | {text} |"
            spread = row["spread"].get("fedrobust")
            spread_text = "" if spread is None else f" ({_ms(spread[0])} to {_ms(spread[1])})"
            goal_text = "" if goal is None else f"{goal:g}x"
            lines.append(
                f"| {name} | {_ms(ours)}{spread_text} | {ours / result['read_ms']:.1f} "
                f"{peer_cells} {goal_text} | {memory} |"
            )
        lines.append("")
        lines += _filter_floor(result)
        lines += _read_floor(result)
    (folder / "README.md").write_text("\n".join(lines))
    _plot(folder / "speed.png", results)


def _filter_floor(result: Mapping[str, Any]) -> list[str]:
    """Where the filter misses its goal: what the goal would leave time for."""
    row, gram = result["rules"].get("spectral_filter", {}), result["rules"].get("gram_matrix")
    goal, peer = GOALS["spectral_filter"].get(result["n"]), _fastest_peer("spectral_filter", row) if row else None
    if gram is None or goal is None or peer is None or row["ms"][peer] >= goal * row["ms"]["fedrobust"]:
        return []
    n, d, theirs = result["n"], result["d"], row["ms"][peer]
    ours, blas = gram["ms"]["fedrobust"], min(ms for who, ms in gram["ms"].items() if who != "fedrobust")
    steps, passes = int(row["num_directions"]), theirs / goal / result["read_ms"]
    peak = ""
    if "peak_gflops" in gram:
        floor = n * n * d / gram["peak_gflops"] / 1e6
        peak = (
            f"Multiply-adds in registers alone reach {gram['peak_gflops']:.0f} GFLOP/s here (`peak.py`), "
            f"and even so the matrix would take {floor:.0f} ms. "
        )
    return [
        f"Why the covariance-agnostic filter misses {goal:g}x here: that would be {theirs / goal:.0f} ms. The Gram "
        f"matrix alone, n²d/2 = {n * n * d / 2:.1g} multiply-adds, takes {ours:.0f} ms "
        f"({n * n * d / ours / 1e6:.0f} GFLOP/s; BLAS {blas:.0f} ms), so whatever is built on it is at most "
        f"{theirs / ours:.1f}x. {peak}Without it each product with the covariance is a pass over the data, and "
        f"{theirs / goal:.0f} ms are {passes:.0f} reads of it. The filter asks for {steps} top eigenvectors, one for "
        f"each weighting; byzfl makes one power iteration for each instead. Once the outliers are gone the largest "
        f"eigenvalues are nearly equal, and Lanczos' iteration, as it is set here, makes 20 products before it first "
        f"looks at the error: {steps} x 20 reads are {steps * 20 * result['read_ms'] / 1e3:.1f} s, more than the "
        f"matrix in which all of them are found.",
        "",
    ]


def _read_floor(result: Mapping[str, Any]) -> list[str]:
    """Where a rule misses its goal, and the goal leaves hardly more time than one read of the data takes."""
    lines = []
    for name, row in result["rules"].items():
        goal, peer = GOALS.get(name, {}).get(result["n"]), _fastest_peer(name, row)
        if goal is None or peer is None or row["ms"][peer] >= goal * row["ms"]["fedrobust"]:
            continue
        allowed, ours, read = row["ms"][peer] / goal, row["ms"]["fedrobust"], result["read_ms"]
        if allowed < 1.5 * read:
            lines += [
                f"Why {name} misses {goal:g}x here: that would be {allowed:.2f} ms, {allowed / read:.2f} reads of the "
                f"data; it takes {ours / read:.2f} reads, and with one it would be {row['ms'][peer] / read:.1f}x.",
                "",
            ]
    return lines


def _ms(milliseconds: float) -> str:
    return f"{milliseconds:.1f}" if milliseconds >= 1 else f"{milliseconds:.2f}"


def _fastest_peer(name: str, row: Mapping[str, Any]) -> str | None:
    only = ONLY_PEER.get(name)
    others = {who: ms for who, ms in row.get("ms", {}).items() if who != "fedrobust" and only in (None, who)}
    return min(others, key=lambda who: others[who]) if others else None


def _plot(path: Path, results: Sequence[Mapping[str, Any]]) -> None:
    figure, axes = plt.subplots(1, len(results), figsize=(3.2 * len(results) + 1, 6), sharey=True, squeeze=False)
    names = [name for name in results[0]["rules"] if name != "gram_matrix"]
    for axis, result in zip(axes[0], results, strict=True):
        timed = {name: row for name, row in result["rules"].items() if "ms" in row and name in names}
        beside = [
            (names.index(name), row["ms"][peer]) for name, row in timed.items() if (peer := _fastest_peer(name, row))
        ]
        axis.scatter(
            [row["ms"]["fedrobust"] for row in timed.values()], list(map(names.index, timed)), label="fedrobust"
        )
        axis.scatter([ms for _, ms in beside], [place for place, _ in beside], marker="x", label="fastest peer")
        axis.axvline(result["read_ms"], linestyle=":", color="grey", label="one read")
        axis.set(xscale="log", xlabel="milliseconds", title=f"n = {result['n']}, d = {result['d']:.0e}")
        axis.set_yticks(range(len(names)), names)
        axis.grid(axis="x", alpha=0.3)
    figure.legend(*axes[0][0].get_legend_handles_labels(), loc="lower center", ncols=3, fontsize="small")
    figure.tight_layout(rect=(0, 0.05, 1, 1))
    figure.savefig(path, dpi=110)
    plt.close(figure)


if __name__ == "__main__":  # the page again, from the figures of the last run
    here = Path(__file__).parent
    last = json.loads((here / "results.json").read_text())
    write_report(here, last["machine"], last["results"])
