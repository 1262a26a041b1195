"""Watermarks in a federation: what they prove, what they cost, what removes them.

    python experiments/watermark/run.py [--seeds 0 1 2 3 4] [--quick]

No files needed. Plays a federation for each trigger set and seed, tries to remove the mark, and asks every model
whose it is; unmarked models are asked, too. Writes `README.md`, `results.json` and `watermark.png` here.
"""

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from report import draw, write_page
from rich.progress import Progress

from fedrobust.config.compose import compose_config
from fedrobust.evaluation.accuracy import measure_accuracy
from fedrobust.federation.round import Row
from fedrobust.scenario import build_scenario, draw_mark, load_dataset, prepare
from fedrobust.study import play_rounds, study_parser
from fedrobust.training.local_training import LocalTraining
from fedrobust.training.predictor import Predictor
from fedrobust.watermarks import Triggers, verify
from fedrobust.watermarks.removal import fine_tune, prune, with_new_head

HERE = Path(__file__).parent

BENIGN = ["attack=none", "aggregator=mean", "verbose=false", "checkpoint_every=0"]
TEXT = ["dataset=text", "model=text_bag", "client.learning_rate=2", "num_rounds=15"]
KINDS = {
    "noise": ["watermark=noise"],
    "noise, just learnt": ["watermark=noise", "watermark.max_loss=null"],
    "abstract": ["watermark=abstract"],
    "unrelated": ["watermark=unrelated"],
    "content": ["watermark=content"],
    "rare words": [*TEXT, "watermark=rare_words"],
    "word combination": [
        *TEXT,
        "watermark=rare_words",
        "watermark.trigger_set.combination=true",
        "watermark.trigger_set.words=[150,200,250]",
        "watermark.max_loss=null",
        "watermark.num_own_examples=400",
        "watermark.own_per_batch=200",
    ],
}
"""Overrides of each trigger set; the combination is of common neutral words."""

PRUNED = (0.3, 0.5, 0.7, 0.8, 0.9)
THIEF_EPOCHS = 20
STAGES = {"every round": "rounds", "initial model alone": "initial_model", "both": "both"}
RULES = ("mean", "coordinate_median", "spectral_filter")


@dataclass(frozen=True)
class Played:
    """A federation that has been played: its model, its rounds, and the scenario it came from."""

    predictor: Predictor
    rows: list[Row]
    values: dict[str, Any]

    @property
    def clean_accuracy(self) -> float:
        """Of the last round."""
        return float(self.rows[-1]["clean_accuracy"])


def play(*overrides: str, every_round: bool = False) -> Played:
    """Play a scenario on the local engine; evaluated after the last round, or after every one."""
    values, _ = compose_config([*overrides, f"evaluate_every={1 if every_round else 1000}"])
    prepared = prepare(build_scenario(values))
    rows = play_rounds(prepared)
    return Played(prepared.federation.predictor, rows, values)


def triggers_of(values: dict[str, Any]) -> Triggers:
    """The trigger set of a scenario, drawn again as its owner would to prove something."""
    scenario = build_scenario(values)
    mark = draw_mark(scenario, load_dataset(scenario))
    assert mark is not None
    return mark.triggers


def thieves(played: Played, seed: int) -> dict[str, Predictor]:
    """What a thief who holds the training set makes of the model."""
    predictor, train = played.predictor, played.predictor.dataset.train
    rate, size = played.values["client"]["learning_rate"], played.values["client"]["batch_size"]
    everything = LocalTraining(learning_rate=rate, num_epochs=THIEF_EPOCHS, batch_size=size)
    head = LocalTraining(learning_rate=rate, num_epochs=THIEF_EPOCHS, batch_size=size, trained_layers="head")
    return {
        "as trained": predictor,
        "fine-tuned": fine_tune(predictor, train, everything, seed),
        "new head": fine_tune(with_new_head(predictor, seed), train, head, seed),
        **{f"pruned {100 * fraction:.0f} %": prune(predictor, fraction) for fraction in PRUNED},
    }


def judge(models: dict[str, Predictor], triggers: Triggers, references: list[Predictor]) -> dict[str, dict[str, Any]]:
    """Ownership and clean accuracy of each model."""
    found = {}
    for name, model in models.items():
        clean = measure_accuracy(model, model.dataset.test, model.dataset.num_classes).accuracy
        found[name] = {**asdict(verify(model, triggers, references)), "clean_accuracy": clean}
    return found


def measure(seeds: list[int], kinds: list[str], fast: list[str], progress: Progress) -> dict[str, Any]:
    """All that the page shows, by kind and seed; `fast` are overrides of every scenario."""
    total = len(seeds) * (2 + len(kinds) + len(STAGES) + 2 * len(RULES))
    task = progress.add_task("federations", total=total)
    unmarked: dict[bool, list[Played]] = {False: [], True: []}
    for seed in seeds:
        for is_text, overrides in ((False, []), (True, TEXT)):
            unmarked[is_text].append(play(*BENIGN, *overrides, *fast, f"seed={seed}"))
            progress.advance(task)
    results: dict[str, Any] = {"kinds": {}, "stages": {}, "rules": {}}
    for kind in kinds:
        results["kinds"][kind] = []
        plain = unmarked["dataset=text" in KINDS[kind]]
        for index, seed in enumerate(seeds):
            played = play(*BENIGN, *KINDS[kind], *fast, f"seed={seed}")
            triggers, references = triggers_of(played.values), [one.predictor for one in plain]
            # The worst unmarked model: each against the others, as the owner of the mark would wrongly accuse it.
            strangers = {
                f"unmarked {number}": judge(
                    {"it": one}, triggers, [other for other in references if other is not one] or [one]
                )["it"]
                for number, one in enumerate(references)
            }
            results["kinds"][kind].append(
                {
                    "seed": seed,
                    "models": judge(thieves(played, seed), triggers, references),
                    "unmarked": strangers,
                    "clean_accuracy_unmarked": plain[index].clean_accuracy,
                    "seconds_watermark": sum(row["seconds_watermark"] for row in played.rows) / len(played.rows),
                    "seconds_training": sum(row["seconds_training"] for row in played.rows) / len(played.rows),
                }
            )
            progress.advance(task)
    for stage, choice in STAGES.items():
        results["stages"][stage] = []
        for seed in seeds:
            options = ["watermark=noise", f"watermark.embed_in={choice}", f"seed={seed}"]
            played = play(*BENIGN, *options, *fast, every_round=True)
            accuracies = [row["watermark_accuracy"] for row in played.rows]
            results["stages"][stage].append({"accuracies": accuracies, "clean_accuracy": played.clean_accuracy})
            progress.advance(task)
    for rule in RULES:
        for mark in ("none", "noise"):
            cell = results["rules"].setdefault(f"{rule}, {mark}", [])
            for seed in seeds:
                options = ["attack=dba", f"aggregator={rule}", f"watermark={mark}", f"seed={seed}", "verbose=false"]
                row = play(*options, *fast).rows[-1]
                names = ("clean_accuracy", "attack_success_rate", "watermark_accuracy", "watermark_p_value")
                cell.append({name: row[name] for name in names})
                progress.advance(task)
    return results


def main() -> None:
    """Measure, and write what was measured."""
    parser = study_parser(__doc__, quick="two seeds, six rounds, two trigger sets, no files", seeds=range(5))
    options = parser.parse_args()
    seeds, kinds, fast = options.seeds, list(KINDS), []
    if options.quick:
        seeds, kinds, fast = seeds[:2], ["noise", "rare words"], ["num_rounds=6"]
    torch.set_num_threads(1)  # threads would wait for one another longer than so small a network takes
    started = time.process_time()
    with Progress() as progress:
        results = measure(seeds, kinds, fast, progress)
    results |= {"seeds": seeds, "cpu_minutes": (time.process_time() - started) / 60}
    page = write_page(results)
    print(page)
    if options.quick:
        return
    shown = {}
    for kind in ("noise", "abstract", "unrelated", "content"):
        values, _ = compose_config([*BENIGN, *KINDS[kind], f"seed={seeds[0]}"])
        shown[kind] = triggers_of(values).examples.subset(torch.arange(6))
    draw(results, shown, HERE / "watermark.png")
    (HERE / "README.md").write_text(page)
    (HERE / "results.json").write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
