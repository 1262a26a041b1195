"""What decides the success of a multi-shot DBA: trigger size, gap, location, scale; each beside the centralised twin.

The control is what each trigger does to a model of the same seed that nobody attacked.

    python experiments/dba/factors.py [--seeds 0 1 2] [--data-root FOLDER] [--quick]

One factor changes at a time, all others keep `DEFAULTS`. Prints the table of this folder's README, writes
`factors.jsonl` (one line a run, as it ends: a run that is there already is not played again) and `factors.png`.
`--quick` plays two values of each factor for one seed on digits and writes nothing here.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.ticker import PercentFormatter

from fedrobust.attacks.data.coalition import members_of
from fedrobust.config.compose import compose_config
from fedrobust.evaluation.accuracy import measure_accuracy
from fedrobust.evaluation.attack_success import measure_attack_success
from fedrobust.figures.style import BLUE, GREEN, LIGHT_BLUE, ORANGE, legend_below, new_figure, save_figure
from fedrobust.scenario import Prepared, build_scenario
from fedrobust.study import (
    data_root_override,
    markdown_table,
    measure_cells,
    percent,
    play_rounds,
    play_scenario,
    prepare_scenario,
    study_parser,
)

HERE = Path(__file__).parent
SETTING = [
    *["dataset=mnist", "dataset.num_train=6000", "num_clients=20", "num_rounds=30"],
    *[
        "partition=dirichlet",
        "partition.alpha=0.5",
        "client.batch_size=32",
        "aggregator=mean",
        "server.weights=uniform",
    ],
]
QUICK = ["dataset=digits", "num_clients=20", "num_rounds=5", "aggregator=mean", "server.weights=uniform"]
DEFAULTS: dict[str, float] = {"size": 4, "gap": 2, "location": 0, "scale": 1}
VALUES: dict[str, tuple[float, ...]] = {
    "size": (1, 2, 4, 6),
    "gap": (0, 2, 6, 12),
    "location": (0, 6, 12, 18),
    "scale": (1, 2, 4, 8),
}
LABELS = {
    "size": "width of a local trigger, pixels",
    "gap": "gap between local triggers, pixels",
    "location": "top left corner at (x, x), pixels",
    "scale": "scale factor of the updates",
}
SHAPES = ("DBA", "centralised", "control")
FIGURES = ("clean_accuracy", "attack_success_rate", "local_attack_success_rates")
Key = tuple[Any, ...]


def overrides(factors: Mapping[str, float], shape: str, seed: int, quick: bool) -> list[str]:
    """One run: four attackers with a local trigger each, one with the whole one, or none; attacks in every round."""
    setting = QUICK if quick else SETTING
    (num_rounds,) = (one.partition("=")[2] for one in setting if one.startswith("num_rounds"))
    size, gap, place = (int(factors[name]) for name in ("size", "gap", "location"))
    if quick:
        size, gap, place = min(size, 2), min(gap, 1), min(place, 2)
    kind = [f"attack.num_malicious={dict(zip(SHAPES, (4, 1, 0), strict=True))[shape]}"]
    if shape == "centralised":
        kind.append("attack.data._target_=fedrobust.attacks.BadNets")
    trigger = f"attack.data.trigger={{height: 1, width: {size}, gap: {gap}, top: {place}, left: {place}}}"
    return [
        *setting,
        f"seed={seed}",
        f"evaluate_every={num_rounds}",
        "attack=dba",
        *kind,
        trigger,
        "attack.data.poison_rate=0.3",
        f"attack.update.scale_factor={factors['scale']}",
    ]


def cells() -> list[tuple[str, float]]:
    """Every factor with each of its values."""
    return [(factor, value) for factor, values in VALUES.items() for value in values]


def run(seeds: Sequence[int], data_root: Path | None, quick: bool) -> dict[Key, dict[str, Any]]:
    """Play what is not there yet. A cell at the default values is the same run for every factor."""
    chosen = [cell for cell in cells() if not quick or cell[1] in VALUES[cell[0]][:2]]
    work = [(factor, value, shape, seed) for factor, value in chosen for shape in SHAPES for seed in seeds]

    @cache
    def play(factors: tuple[tuple[str, float], ...], shape: str, seed: int) -> dict[str, Any]:
        settings = [*overrides(dict(factors), shape, seed, quick), *data_root_override(data_root)]
        if shape == "control":  # the same model, whatever the trigger
            federation = clean(seed).federation
            (attack,) = members_of(build_scenario(compose_config(settings)[0]).attack.data)
            success = measure_attack_success(federation.predictor, attack, federation.dataset.test)
            accuracy = measure_accuracy(federation.predictor, federation.dataset.test, federation.dataset.num_classes)
            rates = (accuracy.accuracy, success.global_trigger, success.local_triggers)
            return dict(zip(FIGURES, rates, strict=True))
        last = play_scenario(settings)[-1]
        return {key: last[key] for key in FIGURES}

    @cache
    def clean(seed: int) -> Prepared:
        prepared = prepare_scenario([*overrides(DEFAULTS, "control", seed, quick), *data_root_override(data_root)])
        play_rounds(prepared)
        return prepared

    def measure(factor: str, value: float, shape: str, seed: int) -> dict[str, Any]:
        return play(tuple({**DEFAULTS, factor: value}.items()), shape, seed)

    names, path = ("factor", "value", "shape", "seed"), None if quick else HERE / "factors.jsonl"
    return measure_cells(names, work, measure, path=path, description="factors of DBA")


def figures(results: Mapping[Key, Mapping[str, Any]], cell: tuple[str, float], shape: str, key: str) -> np.ndarray:
    """`key` of each seed; the local triggers' largest success."""
    found = [
        row for (factor, value, its, _), row in sorted(results.items()) if (factor, value) == cell and its == shape
    ]
    if key == "local":
        return np.array([max(row["local_attack_success_rates"]) for row in found])
    return np.array([row[key] for row in found])


def table(results: Mapping[Key, Mapping[str, Any]]) -> str:
    """Success of the whole trigger under both, of DBA's best local one, and clean accuracy."""
    heads = ["factor", "value", "DBA, global trigger", "DBA, best local", "centralised", "nobody attacks (control)"]
    heads += ["clean, DBA", "clean, centralised"]
    rows = []
    for cell in cells():
        columns = [
            *[("DBA", "attack_success_rate"), ("DBA", "local"), ("centralised", "attack_success_rate")],
            ("control", "attack_success_rate"),
            *[("DBA", "clean_accuracy"), ("centralised", "clean_accuracy")],
        ]
        values = [figures(results, cell, shape, key) for shape, key in columns]
        if all(len(one) for one in values):
            rows.append([cell[0], f"{cell[1]:g}", *map(percent, values)])
    return markdown_table(heads, rows) + "\n"


def draw(results: Mapping[Key, Mapping[str, Any]], path: Path) -> None:
    """One panel a factor: mean and range over seeds."""
    figure = new_figure(10.0, 6.5)
    lines = [
        ("DBA", "attack_success_rate", "DBA, global trigger", ORANGE, "o-"),
        ("DBA", "local", "DBA, best local trigger", LIGHT_BLUE, "s--"),
        ("centralised", "attack_success_rate", "centralised trigger", BLUE, "^-"),
        ("control", "attack_success_rate", "global trigger, nobody attacks (control)", "black", "v:"),
        ("DBA", "clean_accuracy", "clean accuracy under DBA", GREEN, "x:"),
    ]
    panels = figure.subplots(2, 2, sharey=True).flat
    for axes, (factor, values) in zip(panels, VALUES.items(), strict=True):
        for shape, key, label, colour, style in lines:
            seen = [figures(results, (factor, value), shape, key) for value in values]
            means = [one.mean() for one in seen]
            axes.plot(values, means, style, color=colour, label=label)
            axes.fill_between(
                values, [one.min() for one in seen], [one.max() for one in seen], color=colour, alpha=0.15
            )
        axes.set_xlabel(LABELS[factor])
        axes.set_xticks(values)
        axes.set_ylim(-0.03, 1.03)
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
        axes.grid(axis="y", color="#DDDDDD", linewidth=0.7)
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle("Multi-shot DBA, one factor at a time (line: mean, band: range over seeds)", x=0.02, ha="left")
    legend_below(figure, axes)
    save_figure(figure, path)


def main() -> None:
    parser = study_parser(__doc__, quick="digits, one seed, two values of each factor", data="MNIST")
    options = parser.parse_args()
    results = run([0] if options.quick else options.seeds, options.data_root, options.quick)
    print(table(results))
    if not options.quick:
        draw(results, HERE / "factors.png")


if __name__ == "__main__":
    main()
