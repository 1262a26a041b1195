"""Every update attack against eight rules: 20 of 100 clients malicious, on MNIST.

    python experiments/update_attacks/run.py [--seeds 0 1 2] [--processes 2] [--data-root FOLDER] [--quick]

Attacks and rules run as their config files say, but for what `SETTING` and `ATTACKERS` change. Writes `results.jsonl`
(one line a run, as it ends: a run that is there already is not played again), `table.md` and `clean_accuracy.png`.
`--quick` plays one seed of a few rounds on digits and writes nothing here.
"""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.ticker import PercentFormatter

from fedrobust.attacks import UPDATE_ATTACKS
from fedrobust.config.building import config_folder
from fedrobust.config.compose import compose_config
from fedrobust.figures.style import new_figure, save_figure
from fedrobust.study import data_root_override, markdown_table, measure_cells, percent, play_scenario, study_parser

HERE = Path(__file__).parent
RULES = (
    *("mean", "coordinate_median", "trimmed_mean", "krum", "multi_krum", "bulyan"),
    *("spectral_filter", "sever"),
)
ASSUMED = 0.2
"""Told to every rule that asks: f = 20 of 100, the truth. Bulyan needs 4f + 3 = 83 clients."""
SETTING = [
    *["dataset=mnist", "dataset.num_train=6000", "num_clients=100", "client.batch_size=20"],
    *["model=mlp", "model.hidden_sizes=[32]", "num_rounds=20"],
]
QUICK = ["dataset=digits", "num_clients=20", "num_rounds=5"]
ATTACKERS = ["attack.num_malicious=null", "attack.malicious_fraction=0.2", "attack.schedule.rounds=null"]
BENIGN = "none"
TWIN = "attack=badnets"
"""Played with nobody malicious: the same bytes as `attack=none`, judged by the backdoors' trigger, too."""
SHADES = (0.8, 0.92)
"""What lies below the range of shades is drawn as its lower end; the numbers are in the cells."""


def update_attacks() -> list[str]:
    """The choices of the group `attack` that are named after an update attack, and first nobody."""
    named = {kind.__name__.lower() for kind in UPDATE_ATTACKS}
    paths = sorted((config_folder() / "attack").glob("*.yaml"))
    return [BENIGN, *(path.stem for path in paths if path.stem.replace("_", "") in named)]


def overrides(attack: str, rule: str, seed: int, quick: bool) -> list[str]:
    """One run: evaluated after its last round."""
    setting = QUICK if quick else SETTING
    attackers = [TWIN, "attack.num_malicious=0"] if attack == BENIGN else [f"attack={attack}", *ATTACKERS]
    (num_rounds,) = (one.partition("=")[2] for one in setting if one.startswith("num_rounds"))
    told = [] if rule in ("mean", "coordinate_median") else [f"aggregator.assumed_fraction={ASSUMED}"]
    return [*attackers, f"aggregator={rule}", *told, f"seed={seed}", f"evaluate_every={num_rounds}", *setting]


def check_twin(attacks: Sequence[str]) -> None:
    """See to it that one benign twin stands for all backdoors.

    Raises:
        ValueError: a backdoor has another trigger or target.
    """
    keys = ("trigger", "target_label", "source_label")
    wanted = compose_config([TWIN])[0]["attack"]["data"]
    for attack in attacks:
        data = compose_config([f"attack={attack}"])[0]["attack"]["data"]
        if data is not None and any(data[key] != wanted[key] for key in keys):
            raise ValueError(f"attack={attack} has not the trigger and target of {TWIN}")


def play(overrides: Sequence[str]) -> dict[str, Any]:
    """What a run comes to."""
    torch.set_num_threads(1)
    started = time.perf_counter()
    rows = play_scenario(overrides)
    last = rows[-1]
    return {
        "clean_accuracy": last["clean_accuracy"],
        "attack_success_rate": last["attack_success_rate"],
        "num_rejected": sum(row["num_rejected"] for row in rows),
        "seconds": time.perf_counter() - started,
    }


def figures(
    results: Mapping[tuple[Any, ...], Mapping[str, Any]], attacks: Sequence[str], seeds: Sequence[int], key: str
) -> np.ndarray:
    """`key` as `(attacks, rules, seeds)`; NaN where there is none."""
    empty: dict[str, Any] = {}
    values = [
        [[results.get((attack, rule, seed), empty).get(key) for seed in seeds] for rule in RULES] for attack in attacks
    ]
    return np.array(values, dtype=np.float64)


def write_table(path: Path | None, attacks: Sequence[str], accuracy: np.ndarray, success: np.ndarray) -> None:
    """Clean accuracy of all, attack success of the backdoors and without attackers; printed, and written to `path`."""
    parts = [_table("clean accuracy", attacks, accuracy)]
    backdoors = ~np.isnan(success).all(axis=(1, 2))
    names = [attack for attack, has in zip(attacks, backdoors, strict=True) if has]
    parts.append(_table("attack success", names, success[backdoors]))
    text = "\n\n".join(parts) + "\n"
    print(text)
    if path is not None:
        path.write_text(text)


def _table(title: str, attacks: Sequence[str], values: np.ndarray) -> str:
    rows = [[attack, *map(percent, row)] for attack, row in zip(attacks, values, strict=True)]
    return markdown_table([title, *RULES], rows)


def _deviation(values: np.ndarray) -> float:
    return float(values.std(ddof=1)) if len(values) > 1 else 0.0


def draw(path: Path, attacks: Sequence[str], accuracy: np.ndarray) -> None:
    """The clean accuracy as a heat map: mean over seeds, and standard deviation below."""
    means = accuracy.mean(axis=2)
    figure = new_figure(11.0, 0.48 * len(attacks) + 1.5)
    axes = figure.add_subplot()
    low, high = SHADES
    image = axes.imshow(means, cmap="Blues", vmin=low, vmax=high, aspect="auto")
    axes.set_title("Clean accuracy, 20 of 100 clients malicious", loc="left", fontsize=12, fontweight="bold")
    axes.set_xticks(range(len(RULES)), [rule.replace("_", "_\n") for rule in RULES])
    axes.set_yticks(range(len(attacks)), attacks)
    axes.set_xlabel("aggregator")
    axes.set_ylabel("attack")
    axes.set_xticks(np.arange(0.5, len(RULES) - 1), minor=True)
    axes.set_yticks(np.arange(0.5, len(attacks) - 1), minor=True)
    axes.grid(which="minor", color="white", linewidth=2)
    axes.tick_params(which="both", length=0)
    axes.spines[:].set_visible(False)
    for row in range(len(attacks)):
        for column in range(len(RULES)):
            text = f"{100 * means[row, column]:.1f} %\n± {100 * _deviation(accuracy[row, column]):.1f}"
            color = "white" if means[row, column] > low + 0.6 * (high - low) else "black"
            axes.text(column, row, text, ha="center", va="center", fontsize=8, color=color, linespacing=1.0)
    percent = PercentFormatter(1.0, decimals=0, symbol=" %")
    figure.colorbar(image, ax=axes, format=percent, label="clean accuracy", shrink=0.5, extend="min")
    save_figure(figure, path)


def main() -> None:
    parser = study_parser(__doc__, quick="digits, one seed, 5 rounds", data="MNIST")
    parser.add_argument("--processes", type=int, default=2, help="runs at a time")
    options = parser.parse_args()
    seeds = [0] if options.quick else options.seeds
    attacks, root = update_attacks(), data_root_override(options.data_root)
    check_twin(attacks)
    results = measure_cells(
        ("attack", "rule", "seed"),
        [(attack, rule, seed) for seed in seeds for attack in attacks for rule in RULES],
        lambda attack, rule, seed: play([*overrides(attack, rule, seed, options.quick), *root]),
        path=None if options.quick else HERE / "results.jsonl",
        description="update attacks",
        processes=options.processes,
    )
    accuracy = figures(results, attacks, seeds, "clean_accuracy")
    success = figures(results, attacks, seeds, "attack_success_rate")
    write_table(None if options.quick else HERE / "table.md", attacks, accuracy, success)
    if not options.quick:
        draw(HERE / "clean_accuracy.png", attacks, accuracy)


if __name__ == "__main__":
    main()
