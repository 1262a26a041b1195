"""README.md from results.json."""

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from cases import NUM_UNLEARNING

from fedrobust.audits.model import anomaly_index
from fedrobust.seeds import torch_generator

Row = Mapping[str, Any]

PAGE = """# Neural Cleanse: backdoored models flagged, and where it fails

**Claim** (Wang et al., "Neural Cleanse", IEEE S&P 2019, https://doi.org/10.1109/SP.2019.00031): in a backdoored model,
a much smaller patch makes every input the target than any other label; an anomaly index above 2 tells it, clean models
stay below, and fine-tuning on inputs with the recovered trigger removes the backdoor.

**Setting**: digits are scikit-learn's 8x8, with the default `mlp`, trained as `conf/experiment/outsourced_badnets.yaml`
says: 40 epochs of SGD (0.1, batches of 32), BadNets' four pixels on 5 % of the examples; the target is the seed's last
digit. The auditor has the 500 test examples; 10 labels, the default `NeuralCleanse`. *Trained harder* is with momentum
0.9, 30 epochs. MNIST: 6,000 examples, `dba_cnn`, 4 epochs; traffic signs: GTSRB at 32x32, 43 labels, `small_cnn`, 10
epochs, half of the default's steps in the audit; for both a white 4x4 square in the bottom right corner on 10 % of the
examples (size, place and target of the paper's on traffic signs), 200 test examples for the auditor, seed 0.

```
python experiments/audits/neural_cleanse/run.py                            # digits and limits need no files
python experiments/audits/neural_cleanse/run.py --part digits limits
python experiments/audits/neural_cleanse/run.py --quick                    # one seed on digits, no files
```

**Hardware**: 2 CPU cores (AMD EPYC), no GPU, one thread; {minutes} of CPU time: {parts}.

## Digits, {num} seeds

{digits}

Index: of the target for backdoored models, the largest of all labels for clean ones; mean ± standard deviation (least
to greatest). *Right label*: the target is flagged, and the most suspicious.

Why clean models are flagged at all: the median absolute deviation of ten values is a coarse ruler. Of ten draws from
one Gaussian, some index is above 2 in {ten:.0f} % of 10,000 cases, of 43 draws in {many:.0f} % (`anomaly_index`, the
same threshold). Sizes of masks have shorter tails than that, unless most of them happen to be nearly alike; then the
labels that are easiest to reach stand out. On these digits those are {easiest}; flagged in clean models are
{flagged}.

## Unlearning

{num_unlearning} examples of the training set, 5 epochs of SGD (0.01, momentum 0.9), the recovered triggers on 20 % of
them; *control* is the same without triggers. Success is that of the attacker's own trigger.

{unlearning}

## Where it fails

Digits as above, {num_limits} seeds; several triggers have 5 % of the examples each, and one for a single source class
half of its examples. Index: of the targets.

{limits}

Large patches leave no small mask to be found, and once half of the labels are targets, their masks are what the median
calls normal. Faint triggers over all pixels are no hiding place here: a few strong pixels do for the model what many
faint ones did.
{networks}"""

NETWORK = """
## {title}

{table}

![{name}, backdoored]({file}_backdoored.png)

![{name}, clean]({file}_clean.png)
"""


def write_readme(folder: Path) -> None:
    """Write the page; parts that have not been run are left out."""
    results = json.loads((folder / "results.json").read_text())
    if not {"digits", "limits"} <= results.keys():
        return
    digits, limits = results["digits"]["rows"], results["limits"]["rows"]
    minutes = {name: part["cpu_minutes"] for name, part in results.items()}
    networks = ""
    for file, name, title in (
        ("mnist", "MNIST", "MNIST, a convolutional network"),
        ("gtsrb", "Traffic signs", "Traffic signs, 43 labels"),
    ):
        if file in results:
            table = network_table(results[file]["rows"])
            networks += NETWORK.format(title=title, table=table, name=name, file=file)
    page = PAGE.format(
        minutes=f"{sum(minutes.values()):.0f} minutes",
        parts=", ".join(f"{name} {minutes[name]:.1f}" for name in minutes),
        num=len(digits["backdoored"]),
        digits=digits_table(digits),
        ten=100 * chance_of_an_outlier(10),
        many=100 * chance_of_an_outlier(43),
        easiest=" and ".join(map(str, sorted(easiest_labels(digits["clean"])))),
        flagged=counted([label for key in ("clean", "clean_hard") for row in digits[key] for label in row["flagged"]]),
        num_unlearning=NUM_UNLEARNING,
        unlearning=unlearning_table(digits["unlearning"]),
        num_limits=len(next(iter(limits.values()))),
        limits=limits_table(limits),
        networks=networks,
    )
    (folder / "README.md").write_text(page)


def chance_of_an_outlier(num_values: int, num_draws: int = 10_000) -> float:
    """How often some of so many Gaussian values has an index above 2."""
    draws = torch.randn(num_draws, num_values, generator=torch_generator(0, "outliers"))
    return sum(bool((anomaly_index(draw)[0] > 2).any()) for draw in draws) / num_draws


def easiest_labels(rows: Sequence[Row]) -> list[int]:
    """The two labels with the smallest masks on average."""
    sizes = [statistics.mean(row["sizes"][label] for row in rows) for label in range(10)]
    return sorted(range(10), key=sizes.__getitem__)[:2]


def counted(labels: Sequence[int]) -> str:
    """Each label and how often."""
    return ", ".join(f"{label} ({labels.count(label)} times)" for label in sorted(set(labels)))


def digits_table(rows: Mapping[str, Sequence[Row]]) -> str:
    names = {
        "backdoored": "backdoored", "clean": "clean", "clean_hard": "clean, trained harder",
    }  # fmt: skip
    lines = [
        "| models | flagged | right label | other labels flagged | anomaly index | clean accuracy | attack success |",
        "|---|---|---|---|---|---|---|",
    ]
    for key, name in names.items():
        some = rows[key]
        count = len(some)
        right = f"**{sum(row['found'] for row in some)} of {count}**" if key == "backdoored" else ""
        tops = [row["indices"][row["targets"][0]] if row["targets"] else max(row["indices"]) for row in some]
        others = sum(bool(set(row["flagged"]) - set(row["targets"])) for row in some)
        cells = [
            name,
            f"**{sum(bool(row['flagged']) for row in some)} of {count}**",
            right,
            f"in {others}" if key == "backdoored" else "",
            f"{spread(tops)} ({min(tops):.1f} to {max(tops):.1f})",
            percent([row["accuracy"] for row in some]),
            percent([row["success"] for row in some]) if key == "backdoored" else "",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def unlearning_table(rows: Sequence[Row]) -> str:
    lines = ["| | attack success | clean accuracy |", "|---|---|---|"]
    for key, name in (("before", "before"), ("after", "after unlearning"), ("control", "control: without triggers")):
        cells = [percent([row[f"{what}_{key}"] for row in rows]) for what in ("success", "accuracy")]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def limits_table(rows: Mapping[str, Sequence[Row]]) -> str:
    lines = [
        "| trigger | pixels | all targets flagged | anomaly index | attack success |",
        "|---|---|---|---|---|",
    ]
    for name, some in rows.items():
        tops = [row["indices"][target] for row in some for target in dict.fromkeys(row["targets"])]
        cells = [
            name,
            " + ".join(map(str, some[0]["pixels"])),
            f"{sum(row['found'] for row in some)} of {len(some)}",
            spread(tops),
            percent([row["success"] for row in some]),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def network_table(rows: Mapping[str, Row]) -> str:
    lines = [
        "| model | flagged labels | index of the target | largest other index | mask of the target | median mask "
        "| clean accuracy | attack success | CPU time of the audit |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, row in rows.items():
        target = row["targets"][0] if row["targets"] else None
        known = [index for label, index in enumerate(row["indices"]) if index is not None and label != target]
        sizes = [size for size in row["sizes"] if size is not None]
        own = ["", "", ""]
        if target is not None:
            own = [f"{row['indices'][target]:.1f}", f"{row['sizes'][target]:.1f} px", f"{100 * row['success']:.1f} %"]
        cells = [
            name if target is None else f"{name}, target {target}",
            ", ".join(map(str, row["flagged"])) or "none",
            own[0],
            f"{max(known):.1f}",
            own[1],
            f"{statistics.median(sizes):.1f} px",
            f"{100 * row['accuracy']:.1f} %",
            own[2],
            f"{row['seconds']:.0f} s",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def spread(values: Sequence[float]) -> str:
    return f"{statistics.mean(values):.1f} ± {statistics.stdev(values) if len(values) > 1 else math.nan:.1f}"


def percent(values: Sequence[float]) -> str:
    return f"{spread([100 * value for value in values])} %"


if __name__ == "__main__":
    write_readme(Path(__file__).parent)
