"""Audits of data where the poison is known: clustering, spectral signatures, frequencies, STRIP.

    python experiments/audits/data/run.py [--parts digits mnist cifar10 frequency] [--seeds 0 1 2 3 4]
    python experiments/audits/data/run.py --quick

Needs MNIST and CIFAR-10 below the data root (FEDROBUST_DATA). Each part writes `results/PART.json`, and goes on with an
unfinished one (delete it to start anew); once all four are there, README.md and the plots are written from them
(`--report` does only that).
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch
from cases import Case, load
from measure import measure, measure_frequency
from report import write_report
from rich.progress import track

HERE = Path(__file__).parent
PARTS = ("digits", "mnist", "cifar10", "frequency")
LEARNT = ("white patch", "noise blend", "smooth")
"""Triggers that models are trained with, on CIFAR-10."""

SEEN = ("white patch", "checkered patch", "noise blend", "smooth", "wave")
"""Triggers that the frequency detectors are shown, which were trained with none of them."""

SHARES = (1 / 3, 0.1)


def cases_of(part: str, seeds: list[int]) -> list[Case]:
    """Digits: ten pairs of classes a seed; MNIST: two, one where poison is rare; CIFAR-10: one, with each trigger."""
    if part == "cifar10":
        kinds = [(name, SHARES[0]) for name in LEARNT] + [("white patch", SHARES[1])]
        return [Case(part, name, share, seed % 10, seed) for seed in seeds for name, share in kinds]
    trigger = "corner pixels" if part == "digits" else "white patch"
    sources = {seed: range(10) if part == "digits" else (2 * seed % 10, (2 * seed + 1) % 10) for seed in seeds}
    strong = [Case(part, trigger, SHARES[0], source, seed) for seed in seeds for source in sources[seed]]
    weak = [Case(part, trigger, SHARES[1], source, seed) for seed in seeds for source in sources[seed]]
    weak = weak[::2] if part == "mnist" else weak
    return strong + weak + [Case(part, trigger, 0.0, seed % 10, seed) for seed in seeds]


def run_part(part: str, seeds: list[int], root: Path | None, num_epochs: int, file: Path | None) -> dict[str, Any]:
    """Measure one part; `file` is written anew after each record, and an unfinished one is gone on with."""
    started = time.process_time()
    setting = load("cifar10" if part == "frequency" else part, root)
    found: dict[str, Any] = {"seeds": seeds, "records": [], "cpu_seconds": 0.0}
    if file is not None and file.exists():
        found = json.loads(file.read_text())
    before, todo = found["cpu_seconds"], seeds if part == "frequency" else cases_of(part, seeds)
    for one in track(todo[len(found["records"]) :], description=part):
        record = measure(one, setting) if isinstance(one, Case) else measure_frequency(setting, SEEN, one, num_epochs)
        found["records"].append(record)
        found["cpu_seconds"] = before + time.process_time() - started
        if file is not None:
            file.write_text(json.dumps(found) + "\n")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--data-root", type=Path, help="default: FEDROBUST_DATA, else the user's cache folder")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--quick", action="store_true", help="digits and one short detector, one seed, no files")
    parser.add_argument("--report", action="store_true", help="write README.md and the plots from results/ alone")
    options = parser.parse_args()
    torch.set_num_threads(1)  # threads would wait for one another longer than so small a network takes
    if options.quick:
        for part in ("digits", "frequency"):
            found = run_part(part, options.seeds[:1], options.data_root, num_epochs=2, file=None)
            print(json.dumps(found["records"][0], indent=1))
        return
    (HERE / "results").mkdir(exist_ok=True)
    for part in [] if options.report else options.parts:
        run_part(part, options.seeds, options.data_root, num_epochs=20, file=HERE / "results" / f"{part}.json")
    files = {part: HERE / "results" / f"{part}.json" for part in PARTS}
    if all(file.exists() for file in files.values()):
        write_report({part: json.loads(file.read_text()) for part, file in files.items()}, HERE, options.data_root)


if __name__ == "__main__":
    main()
