"""Neural Cleanse on clean and backdoored models: what it finds, where it fails, and what unlearning does.

    python experiments/audits/neural_cleanse/run.py [--part digits limits mnist gtsrb] [--data-root FOLDER] [--quick]

Digits need no files; `mnist` and `gtsrb` need theirs below the data root (FEDROBUST_DATA). Writes `results.json`, one
part after the other, pictures, and `README.md` from all parts that there are.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from cases import (
    DIGITS,
    DIGITS_HARD,
    FOUR_PIXELS,
    LIMITS,
    SQUARES,
    TASKS,
    Backdoor,
    audit,
    load,
    pixels_changed,
    plain,
    train,
    unlearn,
)
from report import write_readme
from rich.progress import track

from fedrobust.figures.style import save_figure
from fedrobust.records.files import to_json

HERE = Path(__file__).parent
PARTS = ("digits", "limits", "mnist", "gtsrb")


def digits(options: argparse.Namespace) -> dict[str, Any]:
    """Backdoored and clean models, and the backdoored ones unlearned; then clean models that are trained harder."""
    dataset, seeds = load(DIGITS, None), options.seeds
    rows: dict[str, list[Any]] = {"backdoored": [], "clean": [], "clean_hard": [], "unlearning": []}
    for seed in track(seeds, description="digits"):
        backdoor = Backdoor(FOUR_PIXELS, seed % 10)
        for name, task, backdoors in (
            ("backdoored", DIGITS, [backdoor]), ("clean", DIGITS, []), ("clean_hard", DIGITS_HARD, []),
        ):  # fmt: skip
            model = train(task, dataset, backdoors, seed)
            verdict, report = audit(task, dataset, model, backdoors, seed)
            rows[name].append(plain(verdict))
            if backdoors and verdict.found:
                rows["unlearning"].append(unlearn(model, report, backdoor, dataset, seed))
    return rows


def limits(options: argparse.Namespace) -> dict[str, Any]:
    """Larger triggers, several, and for one class alone."""
    dataset, seeds = load(DIGITS, None), options.seeds[: options.limit_seeds]
    rows: dict[str, Any] = {name: [] for name in LIMITS}
    for name, seed in track([(name, seed) for name in LIMITS for seed in seeds], description="limits"):
        backdoors = LIMITS[name](seed % 10)
        verdict, _ = audit(DIGITS, dataset, train(DIGITS, dataset, backdoors, seed), backdoors, seed)
        rows[name].append(plain(verdict) | {"pixels": pixels_changed(backdoors, dataset)})
    return rows


def network(name: str) -> Callable[[argparse.Namespace], dict[str, Any]]:
    def part(options: argparse.Namespace) -> dict[str, Any]:
        """One backdoored and one clean network, with pictures."""
        task, rows = TASKS[name], {}
        dataset = load(task, options.data_root)
        for kind, backdoors in track([("backdoored", [SQUARES[name]]), ("clean", [])], description=name):
            verdict, report = audit(task, dataset, train(task, dataset, backdoors, 0), backdoors, 0)
            rows[kind] = plain(verdict)
            if not options.quick:
                save_figure(report.plot(), HERE / f"{name}_{kind}.png")
        return rows

    return part


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", nargs="+", choices=PARTS, default=list(PARTS), help="default: all")
    parser.add_argument("--data-root", type=Path, help="default: FEDROBUST_DATA, else the user's cache folder")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(20)), help="of the models on digits")
    parser.add_argument("--limit-seeds", type=int, default=5, help="of these, how many for the limits")
    parser.add_argument("--quick", action="store_true", help="digits and limits, one seed, no files")
    options = parser.parse_args()
    if options.quick:
        options.seeds, options.part = options.seeds[:1], ["digits", "limits"]
    torch.set_num_threads(1)  # threads would wait for one another longer than such small steps take
    parts = {"digits": digits, "limits": limits, "mnist": network("mnist"), "gtsrb": network("gtsrb")}
    for name in options.part:
        started = time.process_time()
        result = {"rows": parts[name](options), "cpu_minutes": (time.process_time() - started) / 60}
        if options.quick:
            print(to_json(result, indent=1))
            continue
        path = HERE / "results.json"
        known = json.loads(path.read_text()) if path.exists() else {}
        known[name] = result
        lines = [f'"{part}": {to_json(known[part])}' for part in PARTS if part in known]
        path.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    if not options.quick:
        write_readme(HERE)


if __name__ == "__main__":
    main()
