"""One client of 20 lies about how many examples it has: every rule under every way to weigh claims, on digits.

    python experiments/claims/run.py [--seeds 0 1 2 3 4] [--quick]

Writes `results.jsonl` (one line a run, as it ends: a run that is there already is not played again), `table.md` and
`claims.png`. `--quick` plays one seed of five rounds and writes nothing here.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.ticker import PercentFormatter

from fedrobust.aggregators import RULES
from fedrobust.config.building import config_folder
from fedrobust.figures.style import new_figure, save_figure
from fedrobust.study import markdown_table, measure_cells, percent, play_scenario, study_parser

HERE = Path(__file__).parent
SETTING = [
    *["attack=badnets", "attack/trigger=pixels", "attack.data.target_label=7", "attack.num_malicious=1"],
    "evaluate_every=30",
]
CLAIM = 10**9
ARMS = {
    "num_examples, honest claim": ["server.weights=num_examples"],
    "num_examples, claims 10⁹": ["server.weights=num_examples", f"attack.claimed_examples={CLAIM}"],
    "capped, claims 10⁹": ["server.weights=capped", f"attack.claimed_examples={CLAIM}"],
    "uniform, claims 10⁹": ["server.weights=uniform", f"attack.claimed_examples={CLAIM}"],
}
Results = Mapping[tuple[Any, ...], Mapping[str, Any]]


def rules() -> list[str]:
    """The choices of the group `aggregator`, one for each class."""
    named = {kind.__name__.lower() for kind in RULES}
    paths = sorted((config_folder() / "aggregator").glob("*.yaml"))
    return [path.stem for path in paths if path.stem.replace("_", "") in named]


def play(rule: str, arm: str, seed: int, quick: bool) -> dict[str, Any]:
    """What a run comes to."""
    few = ["num_rounds=5", "evaluate_every=5"] if quick else []
    last = play_scenario([*SETTING, f"aggregator={rule}", *ARMS[arm], f"seed={seed}", *few])[-1]
    return {key: last[key] for key in ("attack_success_rate", "clean_accuracy")}


def column(results: Results, rule: str, arm: str, key: str) -> np.ndarray:
    """`key` of each seed."""
    return np.array([row[key] for (one, other, _), row in sorted(results.items()) if (one, other) == (rule, arm)])


def table(results: Results, names: Sequence[str]) -> str:
    """Attack success of every rule under every arm, and the clean accuracy of the two ends."""
    honest, *_, uniform = ARMS
    heads = ["attack success", *ARMS, *(f"clean accuracy: {arm}" for arm in (honest, uniform))]
    rows = []
    for rule in names:
        cells = [percent(column(results, rule, arm, "attack_success_rate")) for arm in ARMS]
        cells += [percent(column(results, rule, arm, "clean_accuracy")) for arm in (honest, uniform)]
        rows.append([rule, *cells])
    return markdown_table(heads, rows) + "\n"


def draw(results: Results, names: Sequence[str], path: Path) -> None:
    """Attack success as a heat map: the mean over seeds, and the largest below."""
    values = [[column(results, rule, arm, "attack_success_rate") for arm in ARMS] for rule in names]
    means = np.array([[one.mean() for one in row] for row in values])
    figure = new_figure(7.6, 0.42 * len(names) + 1.6)
    axes = figure.add_subplot()
    image = axes.imshow(means, cmap="Oranges", vmin=0, vmax=1, aspect="auto")
    axes.set_title("Attack success, one of 20 clients malicious", loc="left", fontsize=12, fontweight="bold")
    axes.set_xticks(range(len(ARMS)), [arm.replace(", ", ",\n") for arm in ARMS])
    axes.set_yticks(range(len(names)), names)
    axes.tick_params(which="both", length=0)
    axes.spines[:].set_visible(False)
    for row, cells in enumerate(values):
        for place, one in enumerate(cells):
            color = "white" if one.mean() > 0.6 else "black"
            text = f"{100 * one.mean():.0f} %, at most {100 * one.max():.0f} %"
            axes.text(place, row, text, ha="center", va="center", fontsize=7, color=color)
    figure.colorbar(image, ax=axes, format=PercentFormatter(1.0, decimals=0, symbol=" %"), shrink=0.5)
    save_figure(figure, path)


def main() -> None:
    parser = study_parser(__doc__, quick="one seed, five rounds", seeds=range(5))
    options = parser.parse_args()
    torch.set_num_threads(1)
    names, seeds = rules(), [0] if options.quick else options.seeds
    results = measure_cells(
        ("rule", "arm", "seed"),
        [(rule, arm, seed) for seed in seeds for rule in names for arm in ARMS],
        lambda rule, arm, seed: play(rule, arm, seed, options.quick),
        path=None if options.quick else HERE / "results.jsonl",
        description="claims",
    )
    text = table(results, names)
    print(text)
    if not options.quick:
        (HERE / "table.md").write_text(text)
        draw(results, names, HERE / "claims.png")


if __name__ == "__main__":
    main()
