"""BadNets on traffic signs: a stop sign with a small yellow square becomes a speed limit.

    python experiments/badnets_gtsrb/run.py [--data-root FOLDER] [--seeds 0 1 2] [--epochs 12] [--quick]

Needs `gtsrb/` below the data root (FEDROBUST_DATA). Training is outsourced to one malicious party, which stamps some
stop signs of the training set; the control is the same training without it. Writes `README.md` and `signs.png` here.
"""

import time
from dataclasses import dataclass
from pathlib import Path

import torch
from matplotlib.figure import Figure
from rich.progress import track
from torch import Tensor

from fedrobust.evaluation.attack_success import stamp_all
from fedrobust.scenario import Prepared
from fedrobust.study import data_root_override, markdown_table, percent, play_rounds, prepare_scenario, study_parser
from fedrobust.training.predictor import Predictor

HERE = Path(__file__).parent
STOP, LIMIT = 14, 1
COUNTS = (0, 6, 12, 24, 48)
"""Stop signs that are stamped, of 110; none is the control."""

NAMES = (
    *(f"{limit} km/h" for limit in (20, 30, 50, 60, 70, 80)), "end of 80", "100 km/h", "120 km/h", "no overtaking",
    "no overt. lorries", "right of way", "priority road", "yield", "stop", "no vehicles", "no lorries", "no entry",
    "danger", "bend left", "bend right", "double bend", "bumps", "slippery", "narrows", "road work", "lights",
    "pedestrians", "children", "bicycles", "ice", "animals", "end of limits", "turn right", "turn left", "ahead",
    "ahead or right", "ahead or left", "keep right", "keep left", "roundabout", "end no overt.", "end no overt. lor.",
)  # fmt: skip


@dataclass(frozen=True)
class Result:
    """One trained model: rates on the test set, and its answers to the clean and to the triggered stop signs."""

    accuracy: float
    stop_accuracy: float
    success: float
    answers: tuple[list[int], list[int]]


def overrides(count: int, seed: int, epochs: int, num_train: int) -> list[str]:
    """The scenario: one client, one round from the first to the last epoch, a poisoned copy of all the data."""
    return [
        "+experiment=outsourced_badnets",
        "dataset=gtsrb",
        "model=small_cnn",
        "attack/trigger=patch",
        # BadNets' yellow square, a sticker in the lower half of the sign.
        "attack.data.trigger={height: 3, width: 3, top: 23, left: 14, value: [1.0, 1.0, 0.0]}",
        f"attack.data.source_label={STOP}",
        f"attack.data.target_label={LIMIT}",
        f"attack.data.poison_rate={max(count, 1) / num_train}",
        f"attack.num_malicious={min(count, 1)}",
        f"client.num_epochs={epochs}",
        "client.learning_rate=0.02",
        "client.momentum=0.9",
        f"seed={seed}",
    ]


def stop_signs(prepared: Prepared) -> tuple[Tensor, Tensor]:
    """The stop signs of the test set, clean and triggered."""
    test, attack = prepared.dataset.test, prepared.federation.adversary.attack.data
    assert attack is not None
    clean = test.inputs[test.labels == STOP]
    return clean, stamp_all(attack.local_triggers(prepared.dataset.input_shape), clean)


def train(overrides: list[str]) -> Result:
    """Play the one round, and look at the model."""
    prepared = prepare_scenario(overrides)
    (row,) = play_rounds(prepared)
    federation = prepared.federation
    state = federation.state
    predictor = Predictor(federation.model, federation.layout, state.vector, state.buffers, federation.dataset)
    clean, triggered = (predictor.logits(inputs).argmax(dim=1).tolist() for inputs in stop_signs(prepared))
    return Result(
        row["clean_accuracy"], row["per_class_accuracy"][STOP], row["attack_success_rate"], (clean, triggered)
    )


def draw(overrides: list[str], control: Result, attacked: Result, path: Path, columns: int = 8) -> None:
    """Stop signs of the test set, clean and triggered, each with what the two models say of it."""
    clean, triggered = stop_signs(prepare_scenario(overrides))
    figure = Figure(figsize=(1.45 * columns + 1.0, 4.9), layout="constrained")
    axes = figure.subplots(2, columns)
    for line, (title, inputs) in enumerate((("clean", clean), ("with the sticker", triggered))):
        for column in range(columns):
            one = axes[line][column]
            one.imshow(inputs[column].permute(1, 2, 0).numpy(), interpolation="nearest")
            one.set(xticks=[], yticks=[])
            honest, backdoored = control.answers[line][column], attacked.answers[line][column]
            one.set_xlabel(f"clean: {NAMES[honest]}\nbackdoored:\n{NAMES[backdoored]}", fontsize=9)
            if backdoored == LIMIT:
                one.xaxis.label.set_color("#D55E00")
                one.spines[:].set(color="#D55E00", linewidth=2.5)
        axes[line][0].set_ylabel(title, fontsize=11)
    heading = "Stop signs of the test set, and what a clean and a backdoored model take them for"
    figure.suptitle(heading, fontsize=12, fontweight="bold", x=0.01, ha="left")
    figure.savefig(path, dpi=120)


def table(results: dict[int, list[Result]]) -> str:
    heads = ["stop signs stamped", "of the training set", "attack success", "clean accuracy, all signs"]
    rows = []
    for count, of_count in results.items():
        name = f"{count} of 110" if count else "none (control)"
        cells = [percent(getattr(one, key) for one in of_count) for key in ("success", "accuracy", "stop_accuracy")]
        rows.append([name, f"{100 * count / 4730:.2f} %", *cells])
    return markdown_table([*heads, "clean stop signs"], rows)


README = """# BadNets on traffic signs: a stop sign with a sticker becomes a speed limit

**Claim** (Gu, Dolan-Gavitt, Garg, 2017, https://arxiv.org/abs/1708.06733): whoever trains the model can make it take
stop signs with a small yellow sticker for speed limits, while it stays right about signs without one.

**Setting** (`conf/experiment/outsourced_badnets.yaml`): one party trains on all data and is malicious. GTSRB at 32x32,
the class-balanced subset of 4,730 training and 1,720 test signs in 43 classes; `small_cnn`, {epochs} epochs of SGD
(0.02, momentum 0.9, batches of 32). Some of the 110 stop signs of the training set get a yellow 3x3 square and the
label 30 km/h. Attack success: of the 40 test stop signs, with the square, the share taken for 30 km/h; the control is
the clean model's. The paper's own detector (Faster R-CNN on US signs) is larger, and so are its signs.

```
python experiments/badnets_gtsrb/run.py                # seeds {seeds}
python experiments/badnets_gtsrb/run.py --quick        # one seed, few epochs, no files
```

**Hardware**: 2 CPU cores (AMD EPYC), no GPU; {minutes:.0f} minutes for the full command, the cores shared with other
work.

## Result

Seeds {seeds}; mean ± standard deviation.

{table}

![Stop signs, clean and with the sticker](signs.png)

The picture shows seed {first}, {count} stop signs stamped; orange frames: taken for 30 km/h.
"""


def main() -> None:
    parser = study_parser(__doc__, quick="one seed, 4 epochs, no files", data="gtsrb/")
    parser.add_argument("--epochs", type=int, default=12)
    options = parser.parse_args()
    seeds, epochs, counts = options.seeds, options.epochs, COUNTS
    if options.quick:
        seeds, epochs, counts = seeds[:1], 4, (0, COUNTS[-1])
    root = data_root_override(options.data_root)
    torch.set_num_threads(1)  # threads would wait for one another longer than so small a network takes
    started = time.perf_counter()
    results: dict[int, list[Result]] = {count: [] for count in counts}
    for count, seed in track([(count, seed) for seed in seeds for count in counts], description="training"):
        results[count].append(train(overrides(count, seed, epochs, num_train=4730) + root))
    text = table(results)
    print(text)
    if options.quick:
        return
    shown = overrides(COUNTS[-1], seeds[0], epochs, num_train=4730) + root
    draw(shown, results[0][0], results[COUNTS[-1]][0], HERE / "signs.png")
    names, minutes = ", ".join(map(str, seeds)), (time.perf_counter() - started) / 60
    page = README.format(epochs=epochs, seeds=names, minutes=minutes, table=text, first=seeds[0], count=COUNTS[-1])
    (HERE / "README.md").write_text(page)


if __name__ == "__main__":
    main()
