"""A backdoored pretrained model: what fine-tuning leaves of the backdoor, all layers or a new head.

    python experiments/pretrained/run.py [--seeds 0 1 2 3 4] [--rounds 20] [--quick]

Digits, no files needed. Writes `results.json`, `table.md` and `attack_success.png` here; `--quick` plays one seed and
five rounds and writes nothing.
"""

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.ticker import MaxNLocator, PercentFormatter
from rich.progress import track

from fedrobust.federation.round import evaluate_model
from fedrobust.figures.style import new_figure, save_figure
from fedrobust.study import markdown_table, percent, play_rounds, prepare_scenario, study_parser

HERE = Path(__file__).parent
NUM_CLIENTS = 10
SETTING = [
    *["attack=pretrained_backdoor", "aggregator=mean", f"num_clients={NUM_CLIENTS}"],
    "attack.data.trigger.pixels=[[-1,-1],[-1,-2],[-2,-1]]",
    "attack.initial_model.training.learning_rate=0.1",
]
FINE_TUNING = {
    "all layers": [],
    "new head": ["attack.initial_model.new_head=true", "client.trained_layers=head"],
}
RATES = (0.05, 0.1, 0.2, 0.3)
"""Learning rates of the clients; the provider's is 0.1."""
COLOURS = ("#56B4E9", "#0072B2", "#E69F00", "#D55E00")


def play(kind: str, rate: float, malicious: bool, seed: int, num_rounds: int) -> dict[str, list[float]]:
    """Clean accuracy and attack success before round 1 and after each round."""
    overrides = [
        *SETTING,
        *FINE_TUNING[kind],
        f"client.learning_rate={rate}",
        f"attack.initial_model.malicious={str(malicious).lower()}",
        f"num_rounds={num_rounds}",
        f"seed={seed}",
    ]
    prepared = prepare_scenario(overrides)
    rows = [evaluate_model(prepared.federation), *play_rounds(prepared)]
    return {key: [row[key] for row in rows] for key in ("clean_accuracy", "attack_success_rate")}


def values(results: Sequence[dict[str, Any]], kind: str, rate: float, malicious: bool, key: str) -> np.ndarray:
    """`(seeds, rounds + 1)`."""
    wanted = (kind, rate, malicious)
    rows = [one[key] for one in results if (one["fine_tuning"], one["learning_rate"], one["malicious"]) == wanted]
    return np.array(rows, dtype=np.float64)


def table(results: Sequence[dict[str, Any]], num_rounds: int) -> str:
    """What is left after half of the rounds and after all."""
    half = num_rounds // 2
    heads = ["fine-tuned", "learning rate", f"attack success, round {half}", f"round {num_rounds}", "clean accuracy"]
    rows = []
    for kind in FINE_TUNING:
        for rate in RATES:
            success = values(results, kind, rate, True, "attack_success_rate")
            accuracy = values(results, kind, rate, True, "clean_accuracy")
            control = values(results, kind, rate, False, "attack_success_rate")
            found = (success[:, half], success[:, -1], accuracy[:, -1], control[:, -1])
            rows.append([kind, str(rate), *map(percent, found)])
    before = {
        malicious: [values(results, "all layers", RATES[0], malicious, key)[:, 0] for key in ("attack_success_rate",
                                                                                             "clean_accuracy")]
        for malicious in (True, False)
    }  # fmt: skip
    released = (
        f"The pretrained model itself: attack success {percent(before[True][0])}, clean accuracy "
        f"{percent(before[True][1])}; from a clean provider {percent(before[False][0])} and "
        f"{percent(before[False][1])}."
    )
    return f"{markdown_table([*heads, 'attack success, clean provider'], rows)}\n\n{released}\n"


def draw(path: Path, results: Sequence[dict[str, Any]], num_rounds: int) -> None:
    """Attack success by round, a line for each learning rate, with a band of one standard deviation."""
    figure = new_figure(9.0, 3.9)
    axes = figure.subplots(1, 2, sharey=True)
    rounds = np.arange(num_rounds + 1)
    for panel, kind in zip(axes, FINE_TUNING, strict=True):
        for rate, colour in zip(RATES, COLOURS, strict=True):
            success = values(results, kind, rate, True, "attack_success_rate")
            mean, deviation = success.mean(axis=0), success.std(axis=0)
            first = 1 if kind == "new head" else 0  # a fresh head says nothing of the features before it is trained
            panel.plot(rounds[first:], mean[first:], color=colour, label=f"{rate}")
            panel.fill_between(
                rounds[first:],
                (mean - deviation).clip(0)[first:],
                (mean + deviation).clip(None, 1)[first:],
                color=colour,
                alpha=0.15,
                linewidth=0,
            )
        control = np.stack([values(results, kind, rate, False, "attack_success_rate").mean(axis=0) for rate in RATES])
        first = 1 if kind == "new head" else 0
        panel.plot(rounds[first:], control.mean(axis=0)[first:], color="black", linestyle="--", label="clean provider")
        panel.set_title(f"fine-tuned: {kind}", loc="left", fontsize=11)
        panel.set_xlabel("round")
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
        panel.set_ylim(-0.02, 1.02)
        panel.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol=" %"))
    axes[0].set_ylabel("attack success rate")
    axes[1].legend(
        title="clients' learning rate", fontsize=8, title_fontsize=8, loc="lower right", bbox_to_anchor=(1.0, 0.08)
    )
    save_figure(figure, path)


def main() -> None:
    parser = study_parser(__doc__, quick="one seed, five rounds, no files", seeds=range(5))
    parser.add_argument("--rounds", type=int, default=20)
    options = parser.parse_args()
    torch.set_num_threads(1)
    seeds, num_rounds = (options.seeds[:1], 5) if options.quick else (options.seeds, options.rounds)
    cells = [
        (kind, rate, malicious, seed)
        for seed in seeds
        for kind in FINE_TUNING
        for rate in RATES
        for malicious in (True, False)
    ]
    started, results = time.perf_counter(), []
    for kind, rate, malicious, seed in track(cells, description="fine-tuning"):
        cell = {"fine_tuning": kind, "learning_rate": rate, "malicious": malicious, "seed": seed}
        results.append(cell | play(kind, rate, malicious, seed, num_rounds))
    text = table(results, num_rounds)
    print(text)
    print(f"{time.perf_counter() - started:.0f} s")
    if options.quick:
        return
    (HERE / "results.json").write_text(json.dumps(results) + "\n")
    (HERE / "table.md").write_text(text)
    draw(HERE / "attack_success.png", results, num_rounds)


if __name__ == "__main__":
    main()
