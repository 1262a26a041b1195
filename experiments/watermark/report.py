"""The page and the picture of what `run.py` measured."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from matplotlib.figure import Figure

from fedrobust.data.examples import Examples

COLOURS = {
    "noise": "#0072B2",
    "noise, just learnt": "#999999",
    "abstract": "#D55E00",
    "unrelated": "#009E73",
    "content": "#CC79A7",
    "rare words": "#E69F00",
    "word combination": "#56B4E9",
}
LABELS = {
    "noise": "20, random labels",
    "noise, just learnt": "20, random labels",
    "abstract": "100, random labels",
    "unrelated": "50, one label",
    "content": "50, one label",
    "rare words": "50, one label",
    "word combination": "50, one label",
}


def per_cent(values: Sequence[float]) -> str:
    """Mean ± standard deviation in per cent."""
    spread = stdev(values) if len(values) > 1 else 0.0
    return f"{100 * mean(values):.1f} ± {100 * spread:.1f}"


def table(heading: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heading, ["---"] * len(heading), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def of_models(cells: Sequence[Mapping[str, Any]], name: str, figure: str) -> list[Any]:
    return [cell["models"][name][figure] for cell in cells]


def accuracy_table(results: Mapping[str, Any]) -> str:
    """Watermark accuracy of the stolen model, by trigger set and what the thief did."""
    kinds = results["kinds"]
    names = list(next(iter(kinds.values()))[0]["models"])
    rows = [
        [kind, LABELS[kind], *(per_cent(of_models(cells, name, "accuracy")) for name in names)]
        for kind, cells in kinds.items()
    ]
    return table(["trigger set", "triggers", *names], rows)


def verdict_table(results: Mapping[str, Any]) -> str:
    """Seeds in which the owner is recognised, and unmarked models that are wrongly accused."""
    kinds, n = results["kinds"], len(results["seeds"])
    names = list(next(iter(kinds.values()))[0]["models"])
    rows = []
    for kind, cells in kinds.items():
        verdicts = [f"{sum(of_models(cells, name, 'is_owner'))} of {n}" for name in names]
        strangers = [one for cell in cells for one in cell["unmarked"].values()]
        accused = f"{sum(one['is_owner'] for one in strangers)} of {len(strangers)}"
        rows.append([kind, *verdicts, accused])
    return table(["owner recognised", *names, "unmarked models accused"], rows)


def proof_table(results: Mapping[str, Any]) -> str:
    """What unmarked models do, the chance that is taken for theirs, the p-value, and what the mark costs."""
    rows = []
    for kind, cells in results["kinds"].items():
        strangers = [one["accuracy"] for cell in cells for one in cell["unmarked"].values()]
        chances = of_models(cells, "as trained", "chance")
        drops = [cell["models"]["as trained"]["clean_accuracy"] - cell["clean_accuracy_unmarked"] for cell in cells]
        clean = of_models(cells, "as trained", "clean_accuracy")
        rows.append(
            [
                kind,
                f"{per_cent(strangers)}, at most {100 * max(strangers):.0f}",
                f"{min(chances):.2f} to {max(chances):.2f}" if min(chances) < max(chances) else f"{max(chances):.2f}",
                f"{max(of_models(cells, 'as trained', 'p_value')):.0e}",
                per_cent(clean),
                f"{100 * mean(drops):+.1f} ± {100 * (stdev(drops) if len(drops) > 1 else 0):.1f}",
                f"{1e3 * mean(cell['seconds_watermark'] for cell in cells):.1f} (training "
                f"{1e3 * mean(cell['seconds_training'] for cell in cells):.0f})",
            ]
        )
    heading = ["trigger set", "unmarked models, %", "chance assumed", "largest p-value", "clean accuracy, %"]
    return table([*heading, "against unmarked, points", "ms a round"], rows)


def stage_table(results: Mapping[str, Any]) -> str:
    """Where the mark is embedded, and what is left of it."""
    rows = []
    for stage, cells in results["stages"].items():
        accuracies = [cell["accuracies"] for cell in cells]
        rounds = [index for index in (1, 5, 10, 20, 30) if index <= len(accuracies[0])]
        cells_of = [per_cent([one[number - 1] for one in accuracies]) for number in rounds]
        rows.append([stage, *cells_of, per_cent([cell["clean_accuracy"] for cell in cells])])
    return table(["noise, embedded in", *(f"round {number}" for number in rounds), "clean accuracy"], rows)


def rule_table(results: Mapping[str, Any]) -> str:
    """The mark under attack and defence, beside the same federation without one."""
    rows = []
    for name, cells in results["rules"].items():
        rule, mark = name.split(", ")
        values = {key: [cell[key] for cell in cells] for key in cells[0]}
        marked = mark != "none"
        rows.append(
            [
                f"`{rule}`",
                mark,
                per_cent(values["clean_accuracy"]),
                per_cent(values["attack_success_rate"]),
                per_cent(values["watermark_accuracy"]) if marked else "–",
                f"{max(values['watermark_p_value']):.0e}" if marked else "–",
            ]
        )
    return table(
        ["rule", "watermark", "clean accuracy, %", "attack success, %", "watermark accuracy, %", "largest p-value"],
        rows,
    )


def write_page(results: Mapping[str, Any]) -> str:
    """The README, with the tables in it."""
    text = (Path(__file__).parent / "page.md").read_text()
    tables = {
        "ACCURACY": accuracy_table(results),
        "VERDICTS": verdict_table(results),
        "PROOF": proof_table(results),
        "STAGES": stage_table(results),
        "RULES": rule_table(results),
        "SEEDS": ", ".join(map(str, results["seeds"])),
        "MINUTES": f"{results['cpu_minutes']:.0f}",
    }
    for name, content in tables.items():
        text = text.replace(f"{{{name}}}", content)
    return text


def draw(results: Mapping[str, Any], shown: Mapping[str, Examples], path: Path) -> None:
    """Trigger pictures with their labels; watermark accuracy against pruning; and over the rounds."""
    figure = Figure(figsize=(14, 4.8), layout="constrained")
    left, middle, right = figure.subfigures(1, 3, width_ratios=(1.15, 1, 1))
    left.suptitle("Triggers, and the digit to be answered", fontsize=11)
    grid = left.subplots(len(shown), 6)
    for line, (kind, examples) in enumerate(shown.items()):
        for column in range(6):
            axes = grid[line][column]
            axes.imshow(examples.inputs[column, 0], cmap="gray", vmin=0, vmax=1, interpolation="nearest")
            axes.set(xticks=[], yticks=[])
            axes.set_title(str(int(examples.labels[column])), fontsize=10, pad=2)
        grid[line][0].set_ylabel(kind, fontsize=10)
    _draw_pruning(results, middle)
    _draw_rounds(results, right)
    figure.savefig(path, dpi=120)


def _draw_pruning(results: Mapping[str, Any], panel: Any) -> None:
    axes = panel.subplots()
    for kind, cells in results["kinds"].items():
        names = [name for name in cells[0]["models"] if name == "as trained" or name.startswith("pruned")]
        x = [0.0 if name == "as trained" else float(name.split()[1]) for name in names]
        y = [100 * mean(of_models(cells, name, "accuracy")) for name in names]
        axes.plot(x, y, "o-", color=COLOURS[kind], markersize=4, label=kind)
        if kind == "noise":
            clean = [100 * mean(of_models(cells, name, "clean_accuracy")) for name in names]
            axes.plot(x, clean, "--", color="#555555", label="clean accuracy (noise)")
    axes.set(xlabel="weights pruned in each layer, %", ylabel="watermark accuracy, %", ylim=(-3, 103))
    axes.set_title("Pruning the marked model", fontsize=11)
    axes.grid(alpha=0.25)
    axes.legend(fontsize=8.5, loc="lower left")


def _draw_rounds(results: Mapping[str, Any], panel: Any) -> None:
    axes = panel.subplots()
    styles = {"every round": ("#0072B2", "-"), "initial model alone": ("#D55E00", "-"), "both": ("#009E73", ":")}
    for stage, cells in results["stages"].items():
        colour, style = styles[stage]
        accuracies = [[100 * value for value in cell["accuracies"]] for cell in cells]
        rounds = range(1, len(accuracies[0]) + 1)
        middle = [mean(values) for values in zip(*accuracies, strict=True)]
        axes.plot(rounds, middle, style, color=colour, linewidth=2, label=stage)
        low, high = ([pick(values) for values in zip(*accuracies, strict=True)] for pick in (min, max))
        axes.fill_between(rounds, low, high, color=colour, alpha=0.15, linewidth=0)
    axes.axhline(10, color="#999999", linestyle="--", linewidth=1, label="chance")
    axes.set(xlabel="round", ylabel="watermark accuracy at the end of the round, %", ylim=(-3, 103))
    axes.set_title("Noise, embedded when? (band: all seeds)", fontsize=11)
    axes.grid(alpha=0.25)
    axes.legend(fontsize=9, loc="center right")
