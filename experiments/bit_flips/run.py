"""Attacks on the int8 weights of a deployed model: BFA, TBT, TBA, with random flips as control.

    python experiments/bit_flips/run.py [--data-root FOLDER] [--seeds 0 1 2] [--chosen 10] [--quick]

Digits need no files; MNIST lies below the data root (FEDROBUST_DATA). Writes `results.json`, `table.md` and
`accuracy.png` here; `--quick` takes digits, one seed and two chosen inputs, and writes nothing.
"""

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.ticker import PercentFormatter
from rich.progress import Progress

from fedrobust.attacks import BitFlipAttack, OneBitBackdoor, Patch, TargetedBitTrojan, WeightTamper
from fedrobust.attacks.base import ReceivedModel
from fedrobust.attacks.deployed_model.base import Tampering, clean_samples
from fedrobust.attacks.deployed_model.quantisation import StoredModel, quantised, random_flips
from fedrobust.evaluation.deployed import measure_tampering
from fedrobust.figures.style import new_figure, save_figure
from fedrobust.seeds import torch_generator
from fedrobust.study import data_root_override, mean_and_deviation, percent, prepare_scenario, study_parser

HERE = Path(__file__).parent
TRAINING = [
    *["attack=none", "aggregator=mean", "num_clients=1", "num_rounds=1", "client.vectorize=false"],
    "client.batch_size=32",
]
SETTINGS = {
    "digits": ["dataset=digits", "client.num_epochs=20"],
    "mnist": ["dataset=mnist", "dataset.num_train=6000", "dataset.num_test=2000", "client.num_epochs=10"],
}
TITLES = {"digits": "digits, 64-128-64-10, 136,192 bits", "mnist": "MNIST, 784-128-64-10, 873,472 bits"}
FLIPS = (0, 1, 2, 5, 10, 20, 30, 40, 50, 60)
RANDOM = (*FLIPS, 100)
TRIGGERS = {"digits": Patch(height=3, width=3), "mnist": Patch(height=6, width=6)}
TARGET = 2


def trained(name: str, seed: int, root: list[str]) -> ReceivedModel:
    """The default network (`model=mlp`), trained by one client that holds all data."""
    prepared = prepare_scenario([*TRAINING, *SETTINGS[name], *root, f"seed={seed}"])
    state = prepared.federation.state
    vector = state.vector + prepared.population.train(1, [0], state.vector, state.buffers).updates[0]
    return ReceivedModel(prepared.model, vector, state.buffers, prepared.dataset)


def accuracy(received: ReceivedModel, before: StoredModel, after: StoredModel, seed: int) -> float:
    """Clean accuracy of `after` on the test set."""
    row = measure_tampering(received, Tampering(before, after), torch_generator(seed, "not used"))
    return float(row["deployed_clean_accuracy"] or 0.0)


def attack(name: str, seed: int, num_chosen: int, root: list[str]) -> dict[str, Any]:
    """All attacks on one trained model."""
    received = trained(name, seed, root)
    dataset, stored = received.dataset, quantised(received.module())
    samples = clean_samples(dataset, 128, torch_generator(seed, "samples"))
    flips = BitFlipAttack(num_flips=max(FLIPS)).search(received.module(), stored, dataset.normalise(samples.inputs))
    chance = random_flips(stored, max(RANDOM), torch_generator(seed, "random flips"))
    result: dict[str, Any] = {
        "dataset": name,
        "seed": seed,
        "num_bits": stored.num_bits,
        "bfa": [accuracy(received, stored, stored.flipped(*flips[:count]), seed) for count in FLIPS],
        "random": [accuracy(received, stored, stored.flipped(*chance[:count]), seed) for count in RANDOM],
    }
    others = {
        "tbt": TargetedBitTrojan(target_label=TARGET, trigger=TRIGGERS[name]),
        "single_bias": WeightTamper(target_label=TARGET),
        "gradient_descent": WeightTamper(
            method="gradient_descent", target_label=TARGET, sample=int((dataset.test.labels != TARGET).nonzero()[seed])
        ),
    }
    for key, one in others.items():
        tampering = one.tamper(received, torch_generator(seed, key))
        result[key] = measure_tampering(received, tampering, torch_generator(seed, key, "control"))
    result["tba"] = []
    for index in range(num_chosen):
        tampering = OneBitBackdoor().tamper(received, torch_generator(seed, "tba", index))
        result["tba"].append(measure_tampering(received, tampering, torch_generator(seed, "tba", index, "control")))
    return result


def tables(results: Sequence[dict[str, Any]]) -> str:
    """BFA by flips, then the attacks with a target."""
    names = list(dict.fromkeys(one["dataset"] for one in results))
    lines = [
        f"| flips | {' | '.join(f'BFA, {name} | random, {name}' for name in names)} |",
        "|---" * (1 + 2 * len(names)) + "|",
    ]
    for place, flips in enumerate(RANDOM):
        cells = []
        for name in names:
            own = [one for one in results if one["dataset"] == name]
            cells.append(percent([one["bfa"][place] for one in own]) if place < len(FLIPS) else "")
            cells.append(percent([one["random"][place] for one in own]))
        lines.append(f"| {flips} | {' | '.join(cells)} |")
    lines += [
        "",
        "| attack | data | bits flipped | weights changed | attack success | released model's | clean accuracy "
        "| released model's |",
        "|---|---|---|---|---|---|---|---|",
    ]
    kinds = {
        "tbt": "TBT (int8, trigger)",
        "tba": "TBA (int8, one input)",
        "single_bias": "single bias (float32, all inputs)",
        "gradient_descent": "gradient descent (float32, one input)",
    }
    for key, title in kinds.items():
        for name in names:
            own = [one[key] for one in results if one["dataset"] == name]
            rows = [row for per_seed in own for row in per_seed] if key == "tba" else own
            cells = [
                mean_and_deviation([row["num_bit_flips"] for row in rows]),
                mean_and_deviation([row["num_changed_weights"] for row in rows]),
                *(percent([row[f"{which}_attack_success_rate"] for row in rows]) for which in ("deployed", "released")),
                *(percent([row[f"{which}_clean_accuracy"] for row in rows]) for which in ("deployed", "released")),
            ]
            lines.append(f"| {title} | {name} | {' | '.join(cells)} |")
    for name in names:
        rows = [row for one in results if one["dataset"] == name for row in one["tba"]]
        few = [row["deployed_attack_success_rate"] == 1.0 and row["num_bit_flips"] <= 2 for row in rows]
        single = [row["deployed_attack_success_rate"] == 1.0 and row["num_bit_flips"] == 1 for row in rows]
        lines += [
            "",
            f"TBA, {name}: {sum(single)} of {len(rows)} chosen inputs with one flip, {sum(few)} with two at most.",
        ]
    return "\n".join(lines) + "\n"


def draw(path: Path, results: Sequence[dict[str, Any]]) -> None:
    """Clean accuracy against flips: a line for each model, a thick one for their mean."""
    names = list(dict.fromkeys(one["dataset"] for one in results))
    figure = new_figure(4.5 * len(names), 3.7)
    panels = np.atleast_1d(figure.subplots(1, len(names), sharey=True))
    for panel, name in zip(panels, names, strict=True):
        own = [one for one in results if one["dataset"] == name]
        for key, places, colour, label in (
            ("random", RANDOM, "#0072B2", "random flips"),
            ("bfa", FLIPS, "#D55E00", "BFA"),
        ):
            values = np.array([one[key] for one in own])
            for row in values:
                panel.plot(places, row, color=colour, alpha=0.3, linewidth=0.8)
            panel.plot(places, values.mean(axis=0), color=colour, linewidth=2.2, label=f"{label}, mean")
        panel.axhline(0.1, color="grey", linestyle=":", linewidth=1.2, label="guessing")
        panel.set_title(TITLES[name], loc="left", fontsize=10)
        panel.set_xlabel("bits flipped")
        panel.set_ylim(0, 1.0)
        panel.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol=" %"))
    panels[0].set_ylabel("clean accuracy")
    panels[0].legend(fontsize=8, loc="lower left")
    save_figure(figure, path)


def main() -> None:
    parser = study_parser(__doc__, quick="digits, one seed, two chosen inputs, no files", data="MNIST")
    parser.add_argument("--chosen", type=int, default=8, help="inputs that TBA attacks on each model")
    options = parser.parse_args()
    torch.set_num_threads(1)
    names, seeds, num_chosen = list(SETTINGS), options.seeds, options.chosen
    if options.quick:
        names, seeds, num_chosen = names[:1], seeds[:1], 2
    root = data_root_override(options.data_root)
    started, results = time.perf_counter(), []
    cells = [(name, seed) for name in names for seed in seeds]
    with Progress() as progress:
        task = progress.add_task("bit flips", total=len(cells))
        for name, seed in cells:
            progress.update(task, description=f"{name}, seed {seed}")
            results.append(attack(name, seed, num_chosen, root))
            progress.advance(task)
    text = tables(results)
    print(text)
    print(f"{time.perf_counter() - started:.0f} s")
    if options.quick:
        return
    (HERE / "results.json").write_text(json.dumps(results) + "\n")
    (HERE / "table.md").write_text(text)
    draw(HERE / "accuracy.png", results)


if __name__ == "__main__":
    main()
