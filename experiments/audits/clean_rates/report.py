"""README.md, from what `run.py` measured."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cases import AUDITS, SETTINGS, TRIGGERS
from scipy.stats import binomtest

from fedrobust.study import markdown_table, percent
from fedrobust.study.cells import Key, read_cells

Rows = list[dict[str, Any]]
DATA_AUDITS = [name for name in AUDITS if name != "Neural Cleanse"]


def write_readme(folder: Path, names: Sequence[str]) -> None:
    """Write the page from the parts that there are."""
    parts = {part: read_cells(names, folder / "results" / f"{part}.jsonl") for part in ("chosen", "clean", "poisoned")}
    page = README.format(
        chosen=clean_table(parts["chosen"]),
        clean=clean_table(parts["clean"]),
        summary=summary_table(parts["clean"]),
        cases=case_table(parts["poisoned"]),
        poisoned=detection_table(parts["poisoned"]),
        refusals=refusals(parts["clean"]),
    )
    (folder / "README.md").write_text(page)


def select(cells: dict[Key, dict[str, Any]], **wanted: Any) -> Rows:
    return [row for row in cells.values() if all(row[name] == value for name, value in wanted.items())]


def interval(hits: int, num: int) -> str:
    """Clopper and Pearson's, 95 %."""
    found = binomtest(hits, num).proportion_ci(method="exact")
    return f"{100 * found.low:.0f} to {100 * found.high:.0f} %"


def clean_table(cells: dict[Key, dict[str, Any]]) -> str:
    rows = []
    for dataset in SETTINGS:
        for audit in AUDITS:
            found = [row for row in select(cells, dataset=dataset, audit=audit) if "refusal" not in row]
            if found:
                rows.append([dataset, audit, *clean_cells(found)])
    heads = ["data", "audit", "clean models of which a class is convicted", "95 % interval", "classes convicted"]
    return markdown_table([*heads, "classes without verdict", "clean examples flagged", "most of a class"], rows)


def clean_cells(found: Rows) -> list[str]:
    accused, classes = sum(bool(row["convicted"]) for row in found), sum(row["num_classes"] for row in found)
    convicted, undecided = (sum(len(row[name]) for row in found) for name in ("convicted", "undecided"))
    cells = [f"**{accused} of {len(found)}**", interval(accused, len(found)), f"{convicted} of {classes}"]
    cells.append(f"{undecided} of {classes}")
    if "false_positive_rate" not in found[0]:
        return [*cells, "", ""]
    most = max(row["largest_clean_share"] for row in found)
    return [*cells, percent(row["false_positive_rate"] for row in found), f"{100 * most:.0f} %"]


def summary_table(cells: dict[Key, dict[str, Any]]) -> str:
    """Models of which a class is convicted, audit by data set."""
    rows = []
    for audit in AUDITS:
        row = [audit]
        for dataset in SETTINGS:
            found = [one for one in select(cells, dataset=dataset, audit=audit) if "refusal" not in one]
            accused = sum(bool(one["convicted"]) for one in found)
            silent = all(len(one["undecided"]) == one["num_classes"] for one in found)
            row.append("no verdict" if silent else f"{accused} of {len(found)} ({interval(accused, len(found))})")
            if not found:
                row[-1] = "not for it"
        rows.append(row)
    return markdown_table(["audit", *SETTINGS], rows)


def case_table(cells: dict[Key, dict[str, Any]]) -> str:
    rows = []
    for trigger in TRIGGERS:
        for rate in (0.04, 0.1):
            found = select(cells, trigger=trigger, rate=rate, audit="STRIP")
            if found:
                values = ([row[name] for row in found] for name in ("poisoned_share", "success", "accuracy"))
                rows.append([trigger, f"{100 * rate:.0f} %", *map(percent, values)])
    heads = ["trigger", "poison rate", "poison's share of the target class", "attack success", "clean accuracy"]
    return markdown_table(heads, rows)


def detection_table(cells: dict[Key, dict[str, Any]]) -> str:
    rows = []
    for audit in AUDITS:
        for rate in (0.04, 0.1):
            for trigger in TRIGGERS:
                found = select(cells, trigger=trigger, rate=rate, audit=audit)
                if found:
                    rows.append([audit, f"{100 * rate:.0f} %", trigger, *detection_cells(found)])
    heads = ["audit", "poison rate", "trigger", "target convicted", "no verdict on it", "wrong classes convicted"]
    return markdown_table([*heads, "poison flagged", "clean flagged"], rows)


def detection_cells(found: Rows) -> list[str]:
    n, targets = len(found), [row["seed"] % 10 for row in found]
    hits, silent = (
        sum(target in row[name] for target, row in zip(targets, found, strict=True))
        for name in ("convicted", "undecided")
    )
    wrong = [sorted(set(row["convicted"]) - {target}) for target, row in zip(targets, found, strict=True)]
    names = "; ".join(", ".join(map(str, one)) for one in wrong if one) or "none"
    cells = [f"{hits} of {n}", f"{silent} of {n}", names]
    if "recall" not in found[0]:
        return [*cells, "", ""]
    return cells + [percent(row[name] for row in found) for name in ("recall", "false_positive_rate")]


def refusals(cells: dict[Key, dict[str, Any]]) -> str:
    found = {(row["dataset"], row["audit"]): row["refusal"] for row in cells.values() if "refusal" in row}
    return "\n".join(f"- {dataset}, {audit}: {refusal}" for (dataset, audit), refusal in found.items())


README = """# Audits of clean data and clean models, and of triggers other than the usual

**Claims.** Activation clustering by clean examples convicts a class of at most one clean model in twenty (its
`confidence` is 0.95 over all classes), whatever the data set, and convicts no clean class where poison is half of the
target class. How often the other audits convict a clean class is in the same table, and what each finds of four
triggers on Fashion-MNIST in another, also where it is bad.

**Setting.** BadNets' poison, from all classes to the last digit of the seed. An MLP (128-64), SGD (0.1, batches of 32):
digits and breast_cancer (40 and 20 epochs; training and test examples drawn anew for each seed from all there are),
Fashion-MNIST and MNIST (3,000 training examples drawn for each seed, 20 epochs). The auditor has 500 clean examples
that no model was trained on, of breast_cancer 169. Every audit has its defaults, but: `max_poison_fraction=0.8`
convicts larger parts of a class; *no clean examples* is the paper's exclusionary reclassification, with no cluster
above 35 % of the class convicted. Settings of the calibrated verdict were chosen on digits, seeds 0 to 4 (first table);
nothing was chosen on the seeds and data of the others.

```
FEDROBUST_DATA=FOLDER python experiments/audits/clean_rates/run.py
FEDROBUST_DATA=FOLDER python experiments/audits/clean_rates/run.py --quick     # two clean models, no files written
```

**Hardware**: 2 CPU cores (AMD EPYC), no GPU, one thread, the cores shared with other work: no times were taken.

## Clean models of which a class is convicted

{summary}

In brackets Clopper and Pearson's 95 % interval for the share of models: with five or ten of them it is wide. Models of
one data set have some examples in common, so that the interval is narrower than it should be.

{clean}

*Most of a class*: the largest share of one class's clean examples that is flagged, in any of the models. Spectral
signatures flag 15 % of every class by design. Calibrated per example, STRIP's and the frequency detector's thresholds
hold for all classes together: of single classes several times as many are flagged.

What does not apply:

{refusals}

Digits that settings were chosen on:

{chosen}

## Fashion-MNIST, poisoned

{cases}

{poisoned}

Three models a row, seeds 101 to 103. Where poison is half of the target class, the default of activation clustering
says that it cannot tell, and names the part that clean examples avoid; with `max_poison_fraction=0.8` it convicts that
part. Models of one seed share their data and the auditor's: where these happen to differ in a class, they do for all
eight. So class 4, wrongly convicted in three models by the default, is of seed 102 alone, at 1 - p between 0.953 and
0.991 where 0.95 convicts.
"""
