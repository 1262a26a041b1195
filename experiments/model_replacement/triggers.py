"""The default shot of model replacement with other triggers and targets, and the settings that it was chosen among.

    python experiments/model_replacement/triggers.py [--quick]

The settings are compared on seeds 101 to 103; the default is then measured on seeds 0 to 4, with more targets. Prints
and writes `triggers.md`, and `triggers.jsonl` (one line a run, as it ends: a run that is there already is not played
again). `--quick` plays one seed of one trigger and writes nothing here.
"""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fedrobust.federation.round import evaluate_model
from fedrobust.study import markdown_table, measure_cells, percent, play_rounds, prepare_scenario

HERE = Path(__file__).parent
SHOT, AFTER = 20, 5
TRIGGERS = {
    "pixels": ["attack/trigger=pixels"],
    "patch": ["attack/trigger=patch"],
    "blend": ["attack/trigger=blend"],
    "sinusoid, amplitude 0.4": ["attack/trigger=sinusoid", "attack.data.trigger.amplitude=0.4"],
    "sinusoid, amplitude 0.08": ["attack/trigger=sinusoid"],
}
LEARNABLE = list(TRIGGERS)[:4]
TEN = ["attack.training.num_epochs=10", "attack.data.poison_rate=0.3"]
SETTINGS = {
    "10 epochs, 30 % stamped, α = 0.9, squared distance": [
        *TEN,
        *["attack.loss.alpha=0.9", "attack.loss.anomaly=squared_euclidean"],
    ],
    "10 epochs, 30 % stamped, α = 0.9": [*TEN, "attack.loss.alpha=0.9"],
    "10 epochs, 30 % stamped": TEN,
    "40 epochs, 30 % stamped": ["attack.data.poison_rate=0.3"],
    "20 epochs, 50 % stamped": ["attack.training.num_epochs=20"],
    "40 epochs, 50 % stamped (the default)": [],
    "40 epochs at 0.1, 50 % stamped": ["attack.training.learning_rate=0.1"],
    "40 epochs, 50 % stamped, α = 0.9": ["attack.loss.alpha=0.9"],
}
DEFAULT = next(name for name, overrides in SETTINGS.items() if not overrides)
CHOICE_SEEDS, SEEDS, TARGETS = (101, 102, 103), (0, 1, 2, 3, 4), (2, 7)
FIGURES = ("before", "after", "later", "accuracy_before", "accuracy_after")
Cell = tuple[str, str, int, int]


def shoot(setting: str, trigger: str, target: int, seed: int) -> dict[str, float]:
    """One run under the mean: attack success and clean accuracy before the shot, right after it and AFTER rounds on."""
    overrides = ["attack=model_replacement", "aggregator=mean", f"seed={seed}", f"attack.data.target_label={target}"]
    overrides += [f"attack.schedule.rounds=[{SHOT}]", f"num_rounds={SHOT + AFTER}", f"evaluate_every={SHOT + AFTER}"]
    prepared = prepare_scenario([*overrides, *TRIGGERS[trigger], *SETTINGS[setting]])
    seen = []
    for rounds in (SHOT - 1, 1, AFTER):
        play_rounds(prepared, rounds)
        seen.append(evaluate_model(prepared.federation))
    success = [row["attack_success_rate"] for row in seen]
    accuracy = [row["clean_accuracy"] for row in seen]
    return dict(zip(FIGURES, [*success, *accuracy[:2]], strict=True))


def columns(results: Mapping[Cell, Mapping[str, Any]], cells: list[Cell]) -> list[str]:
    """Each figure over `cells`, and the least success right after the shot."""
    values = {key: [results[cell][key] for cell in cells] for key in FIGURES}
    shown = [percent(values[key]) for key in FIGURES]
    return [shown[0], shown[1], f"{100 * np.min(values['after']):.1f} %", *shown[2:]]


def tables(results: Mapping[Cell, Mapping[str, Any]], choice: list[Cell], held_out: list[Cell]) -> str:
    """Settings over the triggers that can be learnt; then the default by trigger and target."""
    heads = ["before", "after", "least", f"{AFTER} later", "clean accuracy before", "after"]
    settings = dict.fromkeys(cell[0] for cell in choice)
    first = [[one, *columns(results, [cell for cell in choice if cell[0] == one])] for one in settings]
    pairs = dict.fromkeys(cell[1:3] for cell in held_out)
    second = [
        [trigger, str(target), *columns(results, [cell for cell in held_out if cell[1:3] == (trigger, target)])]
        for trigger, target in pairs
    ]
    parts = [markdown_table(["attackers' training", *heads], first)]
    parts.append(markdown_table(["trigger", "target", *heads], second))
    return "\n\n".join(parts) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one seed of one trigger")
    quick = parser.parse_args().quick
    torch.set_num_threads(1)
    choice = [(setting, trigger, 2, seed) for setting in SETTINGS for trigger in LEARNABLE for seed in CHOICE_SEEDS]
    held_out = [(DEFAULT, trigger, target, seed) for trigger in TRIGGERS for target in TARGETS for seed in SEEDS]
    if quick:
        choice, held_out = choice[:1], held_out[:1]
    results = measure_cells(
        ("setting", "trigger", "target", "seed"),
        [*choice, *held_out],
        shoot,
        path=None if quick else HERE / "triggers.jsonl",
        description="one shot",
    )
    text = tables(results, choice, held_out)
    print(text)
    if not quick:
        (HERE / "triggers.md").write_text(text)


if __name__ == "__main__":
    main()
