"""One shot of model replacement by 1 to 20 % of the clients, and what is left of it in the rounds that follow.

    python experiments/model_replacement/fraction.py [--seeds 0 1 2] [--data-root FOLDER] [--quick]

Prints the table of the README, writes `fraction.jsonl` (one line a run, as it ends: a run that is there already is
not played again) and `fraction.png`. `--quick` plays one seed of two fractions on digits and writes nothing here.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps

from fedrobust.federation.round import Row, evaluate_model
from fedrobust.figures.style import legend_below, new_figure, round_axes, save_figure
from fedrobust.study import (
    data_root_override,
    markdown_table,
    measure_cells,
    percent,
    play_rounds,
    prepare_scenario,
    study_parser,
)

HERE = Path(__file__).parent
FRACTIONS = (0.01, 0.02, 0.05, 0.1, 0.2)
WARM, AFTER = 40, 30
Key = tuple[Any, ...]
SHOWN = (0, 1, 5, 10, 20, 30)
MNIST = ["dataset=mnist", "dataset.num_train=12000", "client.batch_size=20", "num_clients=100"]
QUICK = ["dataset=digits", "num_clients=20"]
SETTING = [
    *["aggregator=mean", "attack=model_replacement", "attack.loss=null", "attack.num_malicious=null"],
    *["attack.data.poison_rate=0.5", "attack.training.num_epochs=20"],
]


def overrides(fraction: float, seed: int, quick: bool) -> list[str]:
    """One run: warm rounds, one shot, and what follows."""
    schedule = [f"attack.schedule.rounds=[{WARM + 1}]", f"num_rounds={WARM + 1 + AFTER}", f"evaluate_every={WARM + 99}"]
    return [*(QUICK if quick else MNIST), *SETTING, f"attack.malicious_fraction={fraction}", f"seed={seed}", *schedule]


def play(overrides: Sequence[str]) -> dict[str, list[float]]:
    """Attack success and clean accuracy before the shot, after it, and after each of the rounds that follow."""
    prepared = prepare_scenario(overrides)
    federation = prepared.federation
    seen: list[Row] = []

    def on_round(_row: Row) -> None:
        if federation.state.round_number >= WARM:
            seen.append(evaluate_model(federation))

    play_rounds(prepared, on_round=on_round)
    return {key: [row[key] for row in seen] for key in ("attack_success_rate", "clean_accuracy")}


def run(seeds: Sequence[int], data_root: Path | None, quick: bool) -> dict[Key, dict[str, Any]]:
    """Play what is not there yet; by fraction and seed."""
    cells = [(fraction, seed) for fraction in ((0.05, 0.2) if quick else FRACTIONS) for seed in seeds]
    return measure_cells(
        ("fraction", "seed"),
        cells,
        lambda fraction, seed: play([*overrides(fraction, seed, quick), *data_root_override(data_root)]),
        path=None if quick else HERE / "fraction.jsonl",
        description="one shot by a fraction of the clients",
    )


def curves(results: Mapping[Key, Mapping[str, Any]], fraction: float, key: str) -> np.ndarray:
    """`(seeds, 2 + AFTER)`: before the shot, after it, and so on."""
    return np.array([row[key] for (its, _), row in sorted(results.items()) if its == fraction])


def table(results: Mapping[Key, Mapping[str, Any]]) -> str:
    """Mean ± standard deviation over seeds."""
    heads = ["before", *("the shot's round" if after == 0 else f"{after} later" for after in SHOWN)]
    rows = []
    for fraction in FRACTIONS:
        success = curves(results, fraction, "attack_success_rate")
        if len(success) == 0:
            continue
        accuracy = curves(results, fraction, "clean_accuracy")
        columns = [success[:, 0], *(success[:, 1 + after] for after in SHOWN), accuracy[:, 0], accuracy[:, 1]]
        rows.append([f"{fraction:.0%}", *map(percent, columns)])
    return markdown_table(["malicious", *heads, "clean accuracy before", "after the shot"], rows) + "\n"


def draw(results: Mapping[Key, Mapping[str, Any]], path: Path) -> None:
    """Attack success over the rounds around the shot: mean, and range over seeds."""
    figure = new_figure(8.0, 4.8)
    axes = round_axes(figure, "Attack success after one shot of model replacement", num_rounds=AFTER, percent=True)
    rounds = np.arange(-1, AFTER + 1)
    for fraction, shade in zip(FRACTIONS, np.linspace(0.85, 0.1, len(FRACTIONS)), strict=True):
        success, colour = curves(results, fraction, "attack_success_rate"), colormaps["viridis"](shade)
        axes.plot(rounds, success.mean(axis=0), color=colour, label=f"{fraction:.0%} malicious")
        axes.fill_between(rounds, success.min(axis=0), success.max(axis=0), color=colour, alpha=0.15)
    axes.set_xlim(-1.5, AFTER + 0.5)
    axes.set_xlabel("rounds after the shot (line: mean, band: range over seeds)")
    legend_below(figure, axes)
    save_figure(figure, path)


def main() -> None:
    parser = study_parser(__doc__, quick="digits, one seed, two fractions", data="MNIST")
    options = parser.parse_args()
    results = run([0] if options.quick else options.seeds, options.data_root, options.quick)
    print(table(results))
    if not options.quick:
        draw(results, HERE / "fraction.png")


if __name__ == "__main__":
    main()
