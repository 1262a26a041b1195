"""Updates larger than the memory: every rule reads them from a memory-mapped file, in time linear in n·d.

    python experiments/streaming/run.py                 # writes files of up to 3.2 GB into a temporary folder
    python experiments/streaming/run.py --quick         # small files, to try it

Writes `results.json`, `README.md` and `streaming.png` beside this file. `--part`, `--rules` and `--sizes` measure some
of it and keep the rest of `results.json`.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from lanczos import compare
from measure import FRACTION
from report import write_report
from rich.progress import Progress

from fedrobust.seeds import numpy_generator

RULES = [
    "mean",
    "coordinate_median",
    "trimmed_mean",
    "krum",
    "multi_krum",
    "geometric_median",
    "spectral_filter",
    "sever",
    "dnc",
]
SIZES = [100_000, 200_000, 400_000, 800_000]


def write_updates(path: Path, n: int, d: int) -> None:
    """N(0, 1) rows of float32, one at a time; the last fifth is shifted by a tenth, so that filters find something."""
    generator = numpy_generator(0, "streaming", n, d)
    with open(path, "wb") as file:
        for row in range(n):
            values = generator.standard_normal(d, dtype=np.float32)
            if row >= n - int(FRACTION * n):
                values += np.float32(0.1)
            file.write(values.tobytes())
        file.flush()


def measure_streams(n: int, sizes: list[int], rules: list[str], folder: Path | None) -> list[dict[str, Any]]:
    rows = []
    with Progress() as progress, tempfile.TemporaryDirectory(dir=folder) as place:
        task = progress.add_task("rules x sizes", total=len(sizes) * len(rules))
        for d in sizes:
            path = Path(place) / "updates.f32"
            write_updates(path, n, d)
            subprocess.run(["sync", str(path)], check=True)  # only clean pages can be dropped from the cache
            for rule in rules:
                script = Path(__file__).with_name("measure.py")
                command = [sys.executable, str(script), str(path), str(n), str(d), rule]
                found = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
                rows.append(json.loads(found.splitlines()[-1]))
                progress.console.print(
                    f"{rule} d={d}: {rows[-1]['seconds_from_disk']:.2f} s from disk, "
                    f"{rows[-1]['seconds_from_cache']:.2f} s from cache, {rows[-1]['extra_bytes'] / 1e6:.0f} MB"
                )
                progress.advance(task)
            path.unlink()
    return rows


def merged(old: list[dict[str, Any]], new: list[dict[str, Any]], *keys: str) -> list[dict[str, Any]]:
    """The old rows without those that were measured again, and the new ones, sorted."""
    measured = {tuple(row[key] for key in keys) for row in new}
    return [row for row in old if tuple(row[key] for key in keys) not in measured] + new


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=["streams", "lanczos", "report"], help="only this; all if not given")
    parser.add_argument("--clients", type=int, default=1000)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, metavar="D")
    parser.add_argument("--rules", nargs="+", default=RULES, choices=RULES)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of the filters' table")
    parser.add_argument("--folder", type=Path, help="where the files are written; the system's temporary folder")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent)
    parser.add_argument("--quick", action="store_true", help="200 clients, small files, one seed; needs --output")
    options = parser.parse_args()
    if options.quick:
        if options.output == Path(__file__).parent:
            parser.error("--quick needs an --output of its own")
        options.clients, options.sizes, options.seeds = 200, [20_000, 40_000, 80_000], [0]
    options.output.mkdir(parents=True, exist_ok=True)
    results_file = options.output / "results.json"
    results: dict[str, Any] = {"streams": [], "lanczos": []}
    if results_file.exists():
        results = json.loads(results_file.read_text())
    if options.part in (None, "streams"):
        rows = measure_streams(options.clients, options.sizes, options.rules, options.folder)
        results["streams"] = merged(results["streams"], rows, "rule", "n", "d")
    if options.part in (None, "lanczos"):
        rows = compare(options.clients, options.seeds)
        results["lanczos"] = merged(results["lanczos"], rows, "filter", "n", "seed")
    results["streams"].sort(key=lambda row: (RULES.index(row["rule"]), row["d"]))
    results["lanczos"].sort(key=lambda row: (row["filter"], row["seed"]))
    results_file.write_text(json.dumps(results, indent=1) + "\n")
    write_report(options.output, results)


if __name__ == "__main__":
    main()
