"""What an attack costs: seconds a round with each attack, with the same attack and nobody malicious, and with none.

    python benchmarks/attack_cost/run.py [--rounds 15] [--repeats 3] [--only badnets dba] [--quick]

The default scenario (digits, 20 clients, 4 malicious, local engine, cohorts) under a spectral filter. Runs of the three
kinds take turns, so that other work on the machine meets all alike. Writes `table.md` unless `--only` or `--quick`.
"""

import argparse
import os
import platform
import time
from pathlib import Path

import numpy as np
import torch
from rich.progress import track

from fedrobust.commands.registry import attack_entries
from fedrobust.config.building import ConfigError
from fedrobust.study import play_rounds, prepare_scenario

HERE = Path(__file__).parent
OWN_DATA = {
    "explanation_guided": ["dataset=malware", "model=mlp"],
    "image_scaling": ["dataset=dogfish", "model=small_cnn", "dataset.scaler=opencv_linear"],
}
"""Attacks that need another data set than digits; their yardstick is that data set's round without an attack."""


def seconds_of_rounds(overrides: list[str], num_rounds: int) -> tuple[float, list[float]]:
    """Seconds to prepare a scenario, and seconds of clients, attackers and rule in each of its rounds but the first."""
    started = time.perf_counter()
    prepared = prepare_scenario([*overrides, f"num_rounds={num_rounds}", f"evaluate_every={num_rounds}"])
    preparation = time.perf_counter() - started
    rows = play_rounds(prepared)
    parts = ("seconds_training", "seconds_attack", "seconds_aggregation")
    return preparation, [sum(row[part] for part in parts) for row in rows[1:]]


def measure(attack: str, num_rounds: int, repeats: int) -> dict[str, float]:
    """Medians over rounds and repeats, in seconds."""
    data = OWN_DATA.get(attack, [])
    kinds = {
        "benign": ["attack=none", *data],
        "idle": [f"attack={attack}", "attack.num_malicious=0", *data],
        "attack": [f"attack={attack}", "attack.schedule.rounds=null", *data],
    }
    rounds: dict[str, list[float]] = {kind: [] for kind in kinds}
    start: dict[str, list[float]] = {kind: [] for kind in kinds}
    for _ in range(repeats):
        for kind, overrides in kinds.items():
            preparation, seconds = seconds_of_rounds(overrides, num_rounds)
            rounds[kind] += seconds
            start[kind].append(preparation)
    figures = {kind: float(np.median(values)) for kind, values in rounds.items()}
    return figures | {"start": float(np.median(start["attack"]) - np.median(start["benign"]))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", nargs="+", metavar="ATTACK", help="measure these attacks alone")
    parser.add_argument("--quick", action="store_true", help="four rounds, once")
    options = parser.parse_args()
    num_rounds, repeats = (4, 1) if options.quick else (options.rounds, options.repeats)
    entries = [entry for entry in attack_entries() if entry.name != "none"]
    chosen = [entry for entry in entries if options.only is None or entry.name in options.only]
    machine = f"{os.cpu_count()} cores, {platform.processor() or platform.machine()}, torch {torch.__version__}"
    lines = [f"{machine}; load average {os.getloadavg()[0]:.1f} at the start. Milliseconds a round, medians.", ""]
    lines.append("| attack | stage | benign | nobody malicious | attacked | attacked / benign | before round 1, s |")
    lines.append("|---|---|--:|--:|--:|--:|--:|")
    for entry in track(chosen, description="attacks"):
        try:
            found = measure(entry.name, num_rounds, repeats)
        except ConfigError as error:
            print(f"{entry.name}: not measured: {error}")
            continue
        milliseconds = [f"{1e3 * found[kind]:.1f}" for kind in ("benign", "idle", "attack")]
        ratio = f"{found['attack'] / found['benign']:.2f}"
        start = f"{max(found['start'], 0.0):.2f}"
        lines.append(f"| `{entry.name}` | {', '.join(entry.stages)} | {' | '.join(milliseconds)} | {ratio} | {start} |")
    text = "\n".join(lines) + "\n"
    print(text)
    if options.only is None and not options.quick:
        (HERE / "table.md").write_text(text)


if __name__ == "__main__":
    main()
