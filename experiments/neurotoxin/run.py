"""Does Neurotoxin's backdoor outlast a plain one? Digits, under the mean, for 40 rounds after the attack has stopped.

    python experiments/neurotoxin/run.py [--seeds 3 4 5 6 7] [--quick]

Prints and writes `table.md`, and `results.jsonl` (one line a run, as it ends: a run that is there already is not played
again). `--quick` plays one seed for a few rounds and writes nothing here.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from fedrobust.study import markdown_table, mean_and_deviation, measure_cells, percent, play_scenario, study_parser

HERE = Path(__file__).parent
AFTER = (0, 10, 20, 40)
SETTINGS = {
    "IID": (11, 20, ["attack.num_malicious=4"]),
    "Dirichlet 0.5": (
        41,
        60,
        [
            *["num_clients=40", "server.num_sampled=10", "attack.num_malicious=8"],
            *["partition=dirichlet", "partition.alpha=0.5", "partition.min_examples=10"],
        ],
    ),
}
"""The first and the last attack round, and the federation."""
ATTACKS = {
    "plain": ["attack=badnets"],
    "Neurotoxin, κ = 0.05": ["attack=neurotoxin"],
    "Neurotoxin, κ = 0.2": ["attack=neurotoxin", "attack.update.top_fraction=0.2"],
    "nobody malicious": ["attack=badnets", "attack.num_malicious=0"],
}


def play(setting: str, attack: str, seed: int, quick: bool) -> dict[str, Any]:
    """Attack success when the attack stops and AFTER rounds later, and the clean accuracy in the end."""
    start, stop, federation = SETTINGS[setting]
    if quick:
        start, stop = 2, 4
    last = stop + (4 if quick else AFTER[-1])
    schedule = [f"attack.schedule.start={start}", f"attack.schedule.stop={stop}", f"num_rounds={last}"]
    rows = play_scenario(["aggregator=mean", *federation, *ATTACKS[attack], *schedule, f"seed={seed}"])
    success = {row["round"]: row["attack_success_rate"] for row in rows}
    return {
        "success": [success[min(stop + after, last)] for after in AFTER],
        "clean_accuracy": rows[-1]["clean_accuracy"],
    }


def table(results: Mapping[tuple[Any, ...], Mapping[str, Any]], seeds: Sequence[int]) -> str:
    """Mean ± standard deviation over seeds; *left* is the share of its own first success that a run keeps."""
    heads = ["clients' data", "attack", "as it stops", *(f"{after} rounds later" for after in AFTER[1:])]
    rows = []
    for setting in SETTINGS:
        for attack in ATTACKS:
            runs = [results[setting, attack, seed] for seed in seeds]
            success = [[run["success"][index] for run in runs] for index in range(len(AFTER))]
            left = [run["success"][-1] / run["success"][0] for run in runs if run["success"][0] > 0]
            cells = [*map(percent, success), mean_and_deviation(left, 2) if attack != "nobody malicious" else ""]
            rows.append([setting, attack, *cells, percent(run["clean_accuracy"] for run in runs)])
    return markdown_table([*heads, "left", "clean accuracy"], rows) + "\n"


def main() -> None:
    parser = study_parser(__doc__, quick="one seed, eight rounds", seeds=range(3, 8))
    options = parser.parse_args()
    torch.set_num_threads(1)
    seeds = [3] if options.quick else options.seeds
    results = measure_cells(
        ("setting", "attack", "seed"),
        [(setting, attack, seed) for setting in SETTINGS for attack in ATTACKS for seed in seeds],
        lambda setting, attack, seed: play(setting, attack, seed, options.quick),
        path=None if options.quick else HERE / "results.jsonl",
        description="neurotoxin",
    )
    text = table(results, seeds)
    print(text)
    if not options.quick:
        (HERE / "table.md").write_text(text)


if __name__ == "__main__":
    main()
