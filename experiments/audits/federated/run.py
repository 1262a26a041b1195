"""BadNets and DBA on digits, with nobody auditing, clients auditing themselves, a trusted auditor, and the server.

    python experiments/audits/federated/run.py [--seeds 0 1 2 3 4] [--quick]

Prints the table of this folder's README, writes `results.jsonl` (one line a run, as it ends: a run that is there
already is not played again) and `federated.png`. `--quick` plays one seed for a few rounds and writes nothing here.
"""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.ticker import PercentFormatter

from fedrobust.figures.style import BLUE, ORANGE, legend_below, new_figure, save_figure
from fedrobust.study import markdown_table, measure_cells, percent, play_rounds, prepare_scenario, study_parser

HERE = Path(__file__).parent
SETTING = ["dataset=digits", "num_clients=10", "num_rounds=20", "evaluate_every=20", "aggregator=mean"]
ATTACKERS = ["attack.num_malicious=3", "attack.data.poison_rate=0.1"]
SCENARIOS = {
    "BadNets": ["attack=badnets", *ATTACKERS],
    "DBA": ["attack=dba", *ATTACKERS, "attack.update=null", "attack.data.poison_rate=0.3"],
}
FROM = ["audit.start=5"]
AUDITS = {
    "nobody": [],
    "each client: spectral signatures": ["audit=spectral_signatures", "audit.auditor=client", "DROP"],
    "each client: activation clustering": ["audit=activation_clustering", "audit.auditor=client", "DROP"],
    "trusted auditor: spectral signatures": ["audit=spectral_signatures", "DROP"],
    "trusted auditor: activation clustering": ["audit=activation_clustering", "DROP"],
    "trusted auditor: STRIP": ["audit=strip", "DROP"],
    "server: Neural Cleanse, unlearning": ["audit=neural_cleanse", "audit.action=unlearn", "audit.every=10"],
    "server: update clustering, exclusion": ["audit=update_clustering", "audit.action=exclude_clients"],
    "server: ranks of the spectral filter, exclusion": [
        *["aggregator=spectral_filter", "audit=reputation", "audit.action=exclude_clients"],
    ],
    "server: spectral filter, no audit": ["aggregator=spectral_filter"],
    "server: ranks of the spectral filter told 0.3, exclusion": [
        *["aggregator=spectral_filter", "aggregator.assumed_fraction=0.3"],
        *["audit=reputation", "audit.action=exclude_clients"],
    ],
    "server: spectral filter told 0.3, no audit": ["aggregator=spectral_filter", "aggregator.assumed_fraction=0.3"],
}
"""The filter's config has `assumed_fraction` 0.2, two of ten clients, where three are malicious; 0.3 is the truth."""
STARTS = {"server: Neural Cleanse, unlearning": ["audit.start=10"]}
Key = tuple[Any, ...]


def overrides(scenario: str, audit: str, seed: int, quick: bool) -> list[str]:
    """One run; audits begin once the model has learnt something."""
    own = [one for one in AUDITS[audit] if one != "DROP"]
    if "DROP" in AUDITS[audit]:  # spectral signatures flag at no stated rate; what that costs is a question here
        own += ["audit.action=drop_samples", "audit.allow_uncalibrated=true"]
    if any(one.startswith("audit=") for one in own):
        own += STARTS.get(audit, FROM)
    few = ["num_rounds=6", "evaluate_every=6"] if quick else []
    return [*SETTING, *SCENARIOS[scenario], *own, f"seed={seed}", *few]


def play(overrides: Sequence[str]) -> dict[str, Any]:
    """What a run comes to."""
    prepared = prepare_scenario(overrides)
    started = time.perf_counter()
    rows = play_rounds(prepared)
    seconds = time.perf_counter() - started
    audits = [row["audit"] for row in rows if row["audit"]]
    last = rows[-1]
    found: dict[str, Any] = {
        "clean_accuracy": last["clean_accuracy"],
        "attack_success_rate": last["attack_success_rate"],
        "seconds_per_round": seconds / len(rows),
        "num_audits": len(audits),
    }
    for name in ("recall", "false_positive_rate"):
        known = [one[name] for one in audits if one.get(name) is not None]
        found[name] = float(np.mean(known)) if known else None
    for name in ("client_auc", "excluded_tpr", "excluded_fpr", "flagged_labels", "unlearnt"):
        found[name] = audits[-1].get(name) if audits else None
    found["unlearnings"] = sum(bool(one.get("unlearnt")) for one in audits)
    return found


def run(seeds: Sequence[int], quick: bool) -> dict[Key, dict[str, Any]]:
    """Play what is not there yet."""
    return measure_cells(
        ("scenario", "audit", "seed"),
        [(scenario, audit, seed) for scenario in SCENARIOS for audit in AUDITS for seed in seeds],
        lambda scenario, audit, seed: play(overrides(scenario, audit, seed, quick)),
        path=None if quick else HERE / "results.jsonl",
        description="audits in a federation",
    )


def column(results: Mapping[Key, Mapping[str, Any]], scenario: str, audit: str, key: str) -> np.ndarray:
    """`key` of each seed; empty where it is not known."""
    rows = [row for (one, other, _), row in sorted(results.items()) if (one, other) == (scenario, audit)]
    return np.array([row[key] for row in rows if row[key] is not None], dtype=np.float64)


def table(results: Mapping[Key, Mapping[str, Any]]) -> str:
    """One row for each scenario and audit."""
    heads = ["scenario", "who audits, with what", "attack success", "clean accuracy", "poison flagged", "clean flagged"]
    heads += ["attackers excluded", "benign excluded", "client AUC", "s/round"]
    rows = []
    for scenario in SCENARIOS:
        for audit in AUDITS:
            keys = ["attack_success_rate", "clean_accuracy", "recall", "false_positive_rate"]
            cells = [percent(column(results, scenario, audit, key)) for key in [*keys, "excluded_tpr", "excluded_fpr"]]
            if "exclusion" not in audit:
                cells[4] = cells[5] = ""
            auc, seconds = (column(results, scenario, audit, key) for key in ("client_auc", "seconds_per_round"))
            cells.append(f"{auc.mean():.3f} (min {auc.min():.3f})" if len(auc) else "")
            cells.append(f"{np.median(seconds):.3f}")
            rows.append([scenario, audit, *cells])
    return markdown_table(heads, rows) + "\n"


def draw(results: Mapping[Key, Mapping[str, Any]], path: Path) -> None:
    """Attack success and clean accuracy under each audit: mean as a bar, seeds as points."""
    figure = new_figure(11.0, 5.4)
    names = list(AUDITS)
    places = np.arange(len(names))[::-1]
    for axes, scenario in zip(figure.subplots(1, len(SCENARIOS), sharey=True), SCENARIOS, strict=True):
        for key, label, colour, shift in (
            ("attack_success_rate", "attack success", ORANGE, 0.2),
            ("clean_accuracy", "clean accuracy", BLUE, -0.2),
        ):
            values = [column(results, scenario, audit, key) for audit in names]
            axes.barh(places + shift, [one.mean() for one in values], height=0.36, color=colour, alpha=0.6, label=label)
            for place, one in zip(places, values, strict=True):
                axes.plot(one, np.full(len(one), place + shift), ".", color="black", markersize=4)
        axes.set_title(scenario, loc="left", fontsize=12, fontweight="bold")
        axes.set_yticks(places, names)
        axes.set_xlim(0, 1.02)
        axes.xaxis.set_major_formatter(PercentFormatter(1.0))
        axes.spines[["top", "right"]].set_visible(False)
    legend_below(figure, axes)
    save_figure(figure, path)


def main() -> None:
    parser = study_parser(__doc__, quick="one seed, six rounds", seeds=range(5))
    options = parser.parse_args()
    results = run([0] if options.quick else options.seeds, options.quick)
    print(table(results))
    if not options.quick:
        draw(results, HERE / "federated.png")


if __name__ == "__main__":
    main()
