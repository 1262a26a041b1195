"""Image scaling: what a person sees of a large picture, and what a model sees of it once it is scaled.

    python experiments/image_scaling/run.py [--data-root FOLDER] [--seeds 0 1 2] [--quick]

Needs `dogfish/` below the data root (FEDROBUST_DATA) and the extra `scaling`. Writes `results.jsonl`, where an
interrupted run goes on, `README.md` and `scalers.png` here.
"""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from fedrobust.attacks.data.scaled_picture import hide, psnr
from fedrobust.clients.population import Population
from fedrobust.data.dogfish import DogFish
from fedrobust.data.examples import Examples
from fedrobust.data.scalers import Scaler, ScalerName, to_bytes
from fedrobust.seeds import torch_generator
from fedrobust.study import (
    data_root_override,
    markdown_table,
    mean_and_deviation,
    measure_parts,
    percent,
    play_rounds,
    prepare_scenario,
    study_parser,
)

HERE = Path(__file__).parent
RAW, EPSILON, HIDDEN = 224, 0.01, 18.0
"""Side of a large picture; ε; the PSNR in dB above which a change counts as hidden."""
SIZES = (28, 56, 112)
NUM_PAIRS = 4
SCALERS: tuple[ScalerName, ...] = (
    "opencv_nearest",
    "opencv_linear",
    "opencv_cubic",
    "opencv_area",
    "pillow_nearest",
    "pillow_bilinear",
    "pillow_bicubic",
    "torchvision_bilinear",
    "torchvision_bilinear_plain",
    "interpolate_bilinear",
)
SHOWN: tuple[ScalerName, ...] = (
    "opencv_nearest",
    "opencv_linear",
    "opencv_cubic",
    "opencv_area",
    "pillow_bilinear",
    "torchvision_bilinear",
    "interpolate_bilinear",
)
TRAINED = {
    "opencv_linear": ("opencv_linear", "opencv_linear"),
    "opencv_area": ("opencv_area", "opencv_linear"),
    "pillow_bilinear": ("pillow_bilinear", "opencv_linear"),
    "opencv_area, known to the attackers": ("opencv_area", "opencv_area"),
}
"""The scaler of the victim's pipeline, and the one that the attackers reckon with."""
FEDERATED = ("opencv_linear", "pillow_bilinear")


def pairs(photographs: Examples, seed: int, number: int) -> tuple[Tensor, Tensor]:
    """Fish to change, and dogs to hide in them."""
    draws = torch_generator(seed, "pairs")
    chosen = []
    for label in (1, 0):
        of_class = (photographs.labels == label).nonzero().squeeze(1)
        chosen.append(photographs.inputs[of_class[torch.randperm(len(of_class), generator=draws)[:number]]])
    return chosen[0], chosen[1]


def whole_bytes(pictures: Tensor) -> Tensor:
    return torch.from_numpy(to_bytes(pictures)).permute(0, 3, 1, 2).float() / 255


def make(fish: Tensor, dogs: Tensor, name: ScalerName, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Changed fish, what the scaler makes of them, and what of the dogs should have come out."""
    scaler = Scaler(name, (size, size))
    wanted = whole_bytes(scaler(dogs))
    changed = hide(fish, wanted, scaler, EPSILON)
    return changed, scaler(changed), wanted


def measure(photographs: Examples, name: ScalerName, size: int, seed: int) -> dict[str, Any]:
    """PSNR of each changed fish, and whether what comes out is the dog."""
    fish, dogs = pairs(photographs, seed, NUM_PAIRS)
    changed, seen, wanted = make(fish, dogs, name, size)
    fits = (seen - wanted).abs().flatten(1).amax(dim=1) <= EPSILON + 1e-6
    return {"psnr": psnr(changed, fish).tolist(), "fits": fits.tolist()}


def shown(population: Population) -> float | None:
    """The mean PSNR in dB of what the first attacker changes in round 1."""
    attack, malicious = population.adversary.attack.data, population.adversary.malicious
    if attack is None or not malicious:
        return None
    own = population.dataset.train.subset(population.assignment[malicious[0]])
    poisoned = attack.poison(own, 0, torch_generator(population.seed, "poison", 1, malicious[0]))
    changed = (poisoned.inputs != own.inputs).flatten(1).any(dim=1)
    return float(psnr(poisoned.inputs[changed], own.inputs[changed]).mean())


def play(overrides: list[str]) -> dict[str, Any]:
    """The last round's figures, and how much shows."""
    prepared = prepare_scenario(overrides)
    rows = play_rounds(prepared)
    figures = {key: rows[-1][key] for key in ("attack_success_rate", "clean_accuracy")}
    return figures | {"psnr": shown(prepared.population)}


def scenario(victim: str, assumed: str, seed: int) -> list[str]:
    return [
        "attack=image_scaling",
        "dataset=dogfish",
        f"dataset.scaler={victim}",
        "dataset.size=28",
        f"attack.data.assumed_scaler={assumed}",
        "model=small_cnn",
        "aggregator=mean",
        "client.learning_rate=0.01",
        "client.momentum=0.9",
        "evaluate_every=1000",
        f"seed={seed}",
    ]


OUTSOURCED = ["num_clients=1", "num_rounds=1", "client.num_epochs=15"]
FEDERATION = ["num_clients=5", "num_rounds=10", "client.num_epochs=1"]


def decibels(values: Iterable[float]) -> str:
    return mean_and_deviation(values, 1, " dB")


def scaler_table(lines: dict[str, Any], seeds: list[int], sizes: tuple[int, ...]) -> str:
    heads = [f"{RAW} to {size} (ratio {RAW // size})" for size in sizes]
    table = []
    for name in SCALERS:
        cells = []
        for size in sizes:
            found = [lines[f"{name} to {size}, seed {seed}"] for seed in seeds]
            hidden = [
                value > HIDDEN and fits for one in found for value, fits in zip(one["psnr"], one["fits"], strict=True)
            ]
            cells.append(f"{decibels(np.mean(one['psnr']) for one in found)}, {sum(hidden)} of {len(hidden)}")
        table.append([name, *cells])
    return markdown_table(["scaler", *heads], table)


def training_table(lines: dict[str, Any], seeds: list[int], names: dict[str, tuple[str, str]]) -> str:
    """A row for each name, from what was attacked and what was not."""
    heads = ["scaler of the pipeline", "PSNR of the changed pictures", "attack success", "clean training (control)"]
    table = []
    for name, parts in names.items():
        attacked, clean = ([lines[f"{part}, seed {seed}"] for seed in seeds] for part in parts)
        success = [percent(one["attack_success_rate"] for one in kind) for kind in (attacked, clean)]
        accuracy = [percent(one["clean_accuracy"] for one in kind) for kind in (attacked, clean)]
        table.append([name, decibels(one["psnr"] for one in attacked), *success, *accuracy])
    return markdown_table([*heads, "accuracy", "clean training"], table)


def draw(photographs: Examples, path: Path, seed: int = 0, size: int = 28) -> None:
    """One fish and one dog; what a person and a model see, scaler by scaler."""
    fish, dogs = pairs(photographs, seed, 1)
    columns: list[tuple[str, Tensor, Tensor]] = [
        ("the two pictures", fish, Scaler("pillow_bilinear", (size, size))(dogs))
    ]
    for name in SHOWN:
        changed, seen, _ = make(fish, dogs, name, size)
        columns.append((f"{name}\n{float(psnr(changed, fish)):.1f} dB", changed, seen))
    figure = Figure(figsize=(1.75 * len(columns), 4.2), layout="constrained")
    axes = figure.subplots(2, len(columns))
    for column, (title, large, small) in enumerate(columns):
        for line, picture in enumerate((large, small)):
            one = axes[line][column]
            one.imshow(picture[0].clamp(0, 1).permute(1, 2, 0).numpy(), interpolation="nearest")
            one.set(xticks=[], yticks=[])
        axes[0][column].set_title(title.replace("_", " ", 1).replace("_", "\n", 1), fontsize=10)
    axes[0][0].set_ylabel(f"a person sees ({RAW}x{RAW})", fontsize=10)
    axes[1][0].set_ylabel(f"the model sees ({size}x{size})", fontsize=10)
    heading = "A fish that scales to a dog: hidden above 18 dB, plain to see where the scaler antialiases"
    figure.suptitle(heading, fontsize=12, fontweight="bold", x=0.01, ha="left")
    figure.savefig(path, dpi=110)


README = """# Image scaling: what a person sees, and what the model sees

**Claims.** Xiao, Chen, Shen, Chen, Li, USENIX Security 2019
(https://www.usenix.org/conference/usenixsecurity19/presentation/xiao): a large picture can be changed so little that it
looks the same and yet scales to another picture. Quiring, Rieck, DLS 2020 (https://arxiv.org/abs/2003.08633): so are
poisoned training pictures hidden from whoever looks through them.

**Setting**: photographs of fish and dogs at {raw}x{raw}; every dog is hidden in a fish, for each scaler, by its own
matrices. Success: what the scaler makes of the changed fish, rounded to bytes, is within ε = {epsilon} of the scaled
dog, and the change stays above {hidden:.0f} dB. Training: 600 photographs, scaled to 28x28 on their way into
`small_cnn`; the attackers, who reckon with `opencv_linear` unless the row says otherwise, hide in fish dogs with a
white 42x42 square, in 20 % of their pictures. **No label is wrong, and a picture whose change is hidden looks like what
it is labelled.** Attack success: test dogs with the square, in the open, taken for fish; the control is the same
training without attackers.

```
python experiments/image_scaling/run.py                # seeds {seeds}
python experiments/image_scaling/run.py --quick        # one seed, one ratio, one training, no files
```

**Hardware**: 2 CPU cores (AMD EPYC), no GPU; {minutes:.0f} minutes for the full command, the cores shared with other
work.

## Result

Seeds {seeds}: {number} pairs of pictures each; mean ± standard deviation over the seeds of the mean PSNR, and how many
of all pairs succeed.

{scalers}

![What a person and a model see, scaler by scaler](scalers.png)

At a ratio of 8 every scaler that does not antialias is fooled; at 4 the nearest ones are, and mostly the cubic one; at
2 nearly none is. Those that antialias read every pixel with much the same weight: the change that they ask for shows.

One party trains on all the data (15 epochs); mean ± standard deviation over the seeds.

{outsourced}

Where the pipeline antialiases, pictures made for another scaler teach nothing. Attackers who know that it does get
their trigger in all the same, with pictures that nobody takes for fish.

Five clients, two of them malicious, IID, 10 rounds of one epoch, plain mean:

{federated}
"""


def main() -> None:
    parser = study_parser(__doc__, quick="one seed, one ratio, one training, no files", data="dogfish/")
    options = parser.parse_args()
    seeds, sizes, trained, federated = options.seeds, SIZES, TRAINED, FEDERATED
    if options.quick:
        seeds, sizes, trained, federated = seeds[:1], SIZES[:1], {"opencv_linear": TRAINED["opencv_linear"]}, ()
    root = data_root_override(options.data_root)
    torch.set_num_threads(1)  # threads would wait for one another longer than so small a network takes
    photographs = DogFish(size=RAW).load(options.data_root, torch.device("cpu")).test
    parts: dict[str, Callable[[], dict[str, Any]]] = {
        f"{name} to {size}, seed {seed}": lambda name=name, size=size, seed=seed: measure(photographs, name, size, seed)
        for name in SCALERS
        for size in sizes
        for seed in seeds
    }
    runs = [("", name, *scalers, OUTSOURCED, 1) for name, scalers in trained.items()]
    runs += [("federated ", name, name, "opencv_linear", FEDERATION, 2) for name in federated]
    for prefix, name, victim, assumed, extra, attackers in runs:
        for seed in seeds:
            overrides = [*scenario(victim, assumed, seed), *extra, *root]
            for part, num_malicious in ((f"{prefix}{name}, attacked", attackers), (f"{prefix}{victim}, clean", 0)):
                parts[f"{part}, seed {seed}"] = lambda overrides=overrides, number=num_malicious: play(
                    [*overrides, f"attack.num_malicious={number}"]
                )
    lines = measure_parts(parts, path=None if options.quick else HERE / "results.jsonl", description="scaling")
    tables = [
        scaler_table(lines, seeds, sizes),
        training_table(
            lines, seeds, {name: (f"{name}, attacked", f"{victim}, clean") for name, (victim, _) in trained.items()}
        ),
        training_table(
            lines, seeds, {name: (f"federated {name}, attacked", f"federated {name}, clean") for name in federated}
        ),
    ]
    print(*tables, sep="\n\n")
    if options.quick:
        return
    draw(photographs, HERE / "scalers.png")
    page = README.format(
        raw=RAW,
        epsilon=EPSILON,
        hidden=HIDDEN,
        seeds=", ".join(map(str, seeds)),
        minutes=sum(line["seconds"] for line in lines.values()) / 60,
        number=NUM_PAIRS,
        scalers=tables[0],
        outsourced=tables[1],
        federated=tables[2],
    )
    (HERE / "README.md").write_text(page)


if __name__ == "__main__":
    main()
