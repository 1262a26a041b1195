"""Poison Frogs: rightly labelled poisons that make a model take one untouched test example for their class.

    python experiments/poison_frogs/run.py [--parts digits conditions dogfish end_to_end] [--seeds 0 1 2]
        [--data-root FOLDER] [--quick]

The part `dogfish` needs `dogfish/` and CIFAR-10 below the data root (FEDROBUST_DATA). Each part writes its pictures and
its figures (`results.json`), then `README.md` is written from all figures that there are.
"""

import argparse
import json
import time
from collections.abc import Iterable
from itertools import product
from pathlib import Path

import torch
from end_to_end import clean_victim, examples_of, success
from page import write_page
from pictures import draw_curves, draw_rows
from rich.progress import track
from transfer import HEADS, Extractor, Outcome, Setting, attack, clean_accuracy, control, digits, dog_and_fish

from fedrobust.attacks.data.feature_collision import Solver

HERE = Path(__file__).parent
PARTS = ("digits", "conditions", "dogfish", "end_to_end")
BETAS = (1e-4, 1e-2, 3e-2, 1e-1)
EXTRACTORS: tuple[Extractor, ...] = ("two_layers", "one_layer", "one_layer_sgd")
SOLVERS: tuple[Solver, ...] = ("adam", "forward_backward")
COUNTS, OPACITIES = (1, 10, 30, 60), (0.0, 0.1, 0.2, 0.3)

Rows = dict[str, dict[str, list[float]]]
"""What was measured: for each row of a table its columns, a figure for each seed."""


def add(rows: Rows, row: str, **figures: float) -> None:
    """Append one seed's figures to a row."""
    for column, figure in figures.items():
        rows.setdefault(row, {}).setdefault(column, []).append(figure)


def transfer_rows(
    rows: Rows, setting: Setting, seed: int, betas: Iterable[float], learning_rate: float
) -> dict[float, Outcome]:
    """One seed of a transfer table: the control, the sweep of β, and the collision of logits."""
    accuracy = {f"accuracy_{head}": clean_accuracy(setting, head) for head in HEADS}
    add(rows, "control", **control(setting, seed), **accuracy)
    outcomes = {beta: attack(setting, seed, beta, learning_rate=learning_rate) for beta in betas}
    on_logits = attack(setting, seed, next(iter(outcomes)), learning_rate=learning_rate, on_logits=True)
    for name, outcome in [*((f"{beta:g}", one) for beta, one in outcomes.items()), ("logits", on_logits)]:
        add(rows, name, **outcome.success, distance=outcome.distance, moved=outcome.moved)
    return outcomes


def condition_rows(rows: Rows, seed: int, num_targets: int) -> None:
    """One seed of the table of conditions: what the features, the inputs and the optimiser have to do with it."""
    for extractor, normalised, solver in product(EXTRACTORS, (False, True), SOLVERS):
        setting = digits(seed, num_targets, extractor, normalised)
        for beta in BETAS[:2]:
            outcome = attack(setting, seed, beta, solver)
            figures = {f"{head}/{beta:g}": rate for head, rate in outcome.success.items()}
            figures[f"moved/{beta:g}"] = outcome.moved
            add(rows, f"{extractor}/{'normalised' if normalised else 'raw'}/{solver}", **figures)


def draw_transfer(outcomes: dict[float, Outcome], title: str, path: Path, columns: int = 8) -> None:
    """Base, target and the poisons of each β."""
    target, base, _ = next(iter(outcomes.values())).pictures
    poisons = [(f"poison\nβ = {beta:g}", one.pictures[2][:columns]) for beta, one in outcomes.items()]
    draw_rows([("base", base[:columns]), ("target", target[:columns]), *poisons], title, path)


def run_digits(seeds: list[int], options: argparse.Namespace) -> Rows:
    """Transfer on the digits."""
    rows: Rows = {}
    num_targets = 4 if options.quick else 25
    for seed in track(seeds, description="digits"):
        outcomes = transfer_rows(rows, digits(seed, num_targets), seed, BETAS[:2] if options.quick else BETAS, 0.05)
        if seed == seeds[0] and not options.quick:
            draw_transfer(outcomes, "Digits: features of width 1,024", HERE / "digits.png")
    return rows


def run_conditions(seeds: list[int], options: argparse.Namespace) -> Rows:
    """Transfer on the digits under other conditions."""
    rows: Rows = {}
    for seed in track(seeds, description="conditions"):
        condition_rows(rows, seed, 2 if options.quick else 25)
    return rows


def run_dogfish(seeds: list[int], options: argparse.Namespace) -> Rows:
    """Transfer from CIFAR-10 to dogs against fish."""
    rows: Rows = {}
    num_train, epochs, num_targets, betas = (1000, 1, 2, (1e-4,)) if options.quick else (5000, 4, 10, (1e-4, 1e-2))
    for seed in track(seeds, description="dogfish"):
        setting = dog_and_fish(seed, num_targets, options.data_root, num_train, epochs)
        outcomes = transfer_rows(rows, setting, seed, betas, 0.01)
        if seed == seeds[0] and not options.quick:
            draw_transfer(outcomes, "Dog against fish: features learned on CIFAR-10", HERE / "dogfish.png")
    return rows


def run_end_to_end(seeds: list[int], options: argparse.Namespace) -> Rows:
    """All layers trained on, with more and more poisons."""
    rows: Rows = {}
    counts, opacities, num_targets = ((10,), (0.3,), 3) if options.quick else (COUNTS, OPACITIES, 10)
    for seed in track(seeds, description="end to end"):
        victim = clean_victim(seed, num_targets)
        settings = [(0, 0.0, True), (30, 0.3, False)]
        settings += [(count, opacity, True) for opacity in opacities for count in counts]
        for count, opacity, collide in settings:
            taken, accuracy = success(victim, count, opacity, collide)
            name = "control" if count == 0 else f"{opacity:g}/{count}" if collide else "blended"
            add(rows, name, success=taken, accuracy=accuracy)
        if seed == seeds[0] and not options.quick:
            shown = [examples_of(victim, index, OPACITIES) for index in range(8)]
            lines = [
                ("base", torch.stack([one[1] for one in shown])),
                ("target", torch.stack([one[0] for one in shown])),
            ]
            lines += [
                (f"poison\nopacity {opacity:.0%}", torch.stack([one[2][index] for one in shown]))
                for index, opacity in enumerate(OPACITIES)
            ]
            draw_rows(lines, "Digits: poisons for end-to-end training", HERE / "end_to_end_poisons.png")
    if not options.quick:
        curves = {
            opacity: {count: rows[f"{opacity:g}/{count}"]["success"] for count in COUNTS} for opacity in OPACITIES
        }
        draw_curves(curves, HERE / "end_to_end.png")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--data-root", type=Path, help="default: FEDROBUST_DATA, else the user's cache folder")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--quick", action="store_true", help="one seed, few targets, no files")
    options = parser.parse_args()
    torch.set_num_threads(1)  # threads would wait for one another longer than so small a network takes
    runs = {"digits": run_digits, "conditions": run_conditions, "dogfish": run_dogfish, "end_to_end": run_end_to_end}
    for part in options.parts:
        started = time.perf_counter()
        seeds = options.seeds[:1] if options.quick else options.seeds
        rows = runs[part](seeds, options)
        if options.quick:
            print(json.dumps({part: rows}, indent=1))
            continue
        file = HERE / "results.json"
        results = json.loads(file.read_text()) if file.exists() else {}
        results[part] = {"seeds": seeds, "minutes": (time.perf_counter() - started) / 60, "rows": rows}
        file.write_text(json.dumps(results, indent=1) + "\n")
    if not options.quick:
        write_page(json.loads((HERE / "results.json").read_text()), HERE / "README.md")


if __name__ == "__main__":
    main()
