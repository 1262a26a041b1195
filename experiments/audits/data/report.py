"""README.md and the plots, from what `run.py` measured."""

import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from cases import Case, load, poison, train
from matplotlib.ticker import PercentFormatter
from measure import NUM_REFERENCE

from fedrobust.audits import ActivationClustering, SpectralSignatures
from fedrobust.figures.style import BLUE, LIGHT_ORANGE, ORANGE, legend_below, new_figure, save_figure
from fedrobust.seeds import torch_generator

Records = list[dict[str, Any]]
TITLES = {"digits": "digits, MLP", "mnist": "MNIST, CNN", "cifar10": "CIFAR-10, CNN"}
STRONG, WEAK = 1 / 3, 0.1
CLUSTERED, RETRAINED = ("digits", "mnist"), ("mnist", "cifar10")
"""Parts that clustering reads, and those where spectral signatures are followed by training anew."""


def write_report(results: dict[str, Any], folder: Path, root: Path | None) -> None:
    records = {part: results[part]["records"] for part in results}
    plot_clustering(records, folder / "clustering.png")
    plot_spectral(records, folder / "spectral.png")
    plot_detectors(records, folder / "detectors.png")
    plot_example(folder, root)
    seconds = sum(results[part]["cpu_seconds"] for part in results)
    page = README.format(
        seeds=", ".join(map(str, results["digits"]["seeds"])),
        minutes=seconds / 60,
        clustering=clustering_table(records),
        verdicts=verdict_table(records),
        spectral=spectral_table(records),
        detectors=detector_table(records),
        failures=failure_table(records),
        frequency_fpr=spread([one["fpr"] for one in records["frequency"]]),
        strip_fpr=spread([one["strip"]["fpr"] for part in RETRAINED for one in records[part]]),
    )
    (folder / "README.md").write_text(page)


def select(records: dict[str, Records], part: str, share: float, trigger: str | None = None) -> Records:
    of_share = [one for one in records[part] if abs(one["share"] - share) < 1e-9]
    return [one for one in of_share if trigger in (None, one["trigger"])]


def spread(values: Iterable[float], digits: int = 2) -> str:
    """Mean ± standard deviation."""
    found = torch.tensor([one for one in values if not math.isnan(one)], dtype=torch.float64)
    return f"{float(found.mean()):.{digits}f} ± {float(found.std()):.{digits}f}" if len(found) > 1 else "-"


def groups(parts: tuple[str, ...]) -> list[tuple[str, float, str | None, str]]:
    """(part, share, trigger, words)."""
    plain: list[tuple[str, float, str | None]] = [
        (part, share, None) for part in ("digits", "mnist") for share in (STRONG, WEAK)
    ]
    cifar = [("cifar10", STRONG, name) for name in ("white patch", "noise blend", "smooth")]
    return [
        (part, share, trigger, TITLES[part] + (f", {trigger}" if trigger else ""))
        for part, share, trigger in [*plain, *cifar, ("cifar10", WEAK, "white patch")]
        if part in parts
    ]


def table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def rows_of(
    records: dict[str, Records], parts: tuple[str, ...], cells: Callable[[Records], list[str]]
) -> list[list[str]]:
    rows = []
    for part, share, trigger, words in groups(parts):
        chosen = select(records, part, share, trigger)
        number = round(sum(one["num_poisoned"] for one in chosen) / len(chosen))
        rows.append([words, f"{100 * share:.0f} %", str(number), str(len(chosen)), *cells(chosen)])
    return rows


def clustering_table(records: dict[str, Records]) -> str:
    def cells(chosen: Records) -> list[str]:
        f1 = [one["clustering"]["f1_in_class"] for one in chosen]
        convicted = sum(one["reference"]["target_convicted"] for one in chosen)
        undecided = sum(one["reference"]["target_undecided"] for one in chosen)
        wrongly = sum(one["reference"]["clean_convicted"] for one in chosen)
        clean = sum(one["reference"]["num_clean"] for one in chosen)
        return [
            spread(one["success"] for one in chosen), f"**{spread(f1)}**", f"{min(f1):.2f}",
            f"{convicted}/{len(chosen)}", f"{undecided}/{len(chosen)}", f"{wrongly}/{clean}",
            spread(one["clustering"]["f1_flagged"] for one in chosen),
        ]  # fmt: skip

    head = ["data, model", "of the target class", "poisons", "models", "attack success", "F1 in the target class"]
    more = ["worst", "target convicted", "cannot tell", "clean classes convicted", "F1 of all flagged"]
    return table([*head, *more], rows_of(records, CLUSTERED, cells))


def verdict_table(records: dict[str, Records]) -> str:
    rows = []
    for part in CLUSTERED:
        for share, words in ((STRONG, "33 %"), (WEAK, "10 %"), (0.0, "clean")):
            chosen = select(records, part, share)
            row = [TITLES[part], words]
            for verdict in ("reference", "reclassification", "silhouette", "size", "spectral"):
                hits = sum(one[verdict]["target_convicted"] for one in chosen)
                wrongly = sum(one[verdict]["clean_convicted"] for one in chosen)
                clean = sum(one[verdict]["num_clean"] for one in chosen)
                row.append((f"{hits}/{len(chosen)} and " if share else "") + f"{100 * wrongly / clean:.0f} %")
            rows.append(row)
    head = ["data, model", "poison", "by clean examples", "reclassification", "silhouette", "size"]
    return table([*head, "top eigenvalue (spectral)"], rows)


def spectral_table(records: dict[str, Records]) -> str:
    def cells(chosen: Records) -> list[str]:
        found = [one["spectral"] for one in chosen]
        return [
            f"**{spread(one['recall'] for one in found)}**", spread(one["random_recall"] for one in found),
            spread(one["auc"] for one in found), spread((one["left"] for one in found), 0),
            spread(one["success"] for one in chosen), spread(one["success_after"] for one in found),
            spread(one["accuracy"] for one in chosen), spread(one["accuracy_after"] for one in found),
        ]  # fmt: skip

    head = [
        "data, model",
        "of the target class",
        "poisons",
        "models",
        "recall at 1.5ε",
        "random removal",
        "AUC in class",
    ]
    more = ["poisons left", "attack success", "trained anew", "accuracy", "trained anew"]
    return table([*head, *more], rows_of(records, RETRAINED, cells))


def detector_rates(records: dict[str, Records]) -> list[tuple[str, list[dict[str, float]], list[dict[str, float]]]]:
    """(trigger, of the frequency detectors, of STRIP on models that have learnt it)."""
    names = list(records["frequency"][0]["triggers"])
    return [
        (
            name,
            [one["triggers"][name] for one in records["frequency"]],
            [one["strip"] for one in select(records, "cifar10", STRONG, name)],
        )
        for name in names
    ]


def detector_table(records: dict[str, Records]) -> str:
    rows = []
    for name, frequency, strip in detector_rates(records):
        learnt = select(records, "cifar10", STRONG, name)
        cells = [spread((one[key] for one in frequency), 2) for key in ("auc", "tpr")]
        cells += [spread((one[key] for one in strip), 2) if strip else "not trained" for key in ("auc", "tpr")]
        rows.append([f"CIFAR-10, {name}", f"**{cells[0]}**", *cells[1:], spread(one["success"] for one in learnt)])
    for share in (STRONG, WEAK):
        chosen = select(records, "mnist", share)
        strip = [one["strip"] for one in chosen]
        cells = [spread(one[key] for one in strip) for key in ("auc", "tpr")]
        rows.append(
            [f"MNIST, white patch, {100 * share:.0f} %", "", "", *cells, spread(one["success"] for one in chosen)]
        )
    head = ["pictures, trigger", "frequency: AUC", "caught at 5 %", "STRIP: AUC", "caught at 5 %"]
    return table([*head, "attack success of STRIP's models"], rows)


def failure_table(records: dict[str, Records]) -> str:
    """Each audit where it does well, and where an attacker who knows it would go."""

    def f1(part: str, share: float) -> str:
        return spread(one["clustering"]["f1_in_class"] for one in select(records, part, share))

    def recall(part: str, share: float) -> str:
        found = [one["spectral"] for one in select(records, part, share, "white patch")]
        return f"{spread(one['recall'] for one in found)} (random {found[0]['random_recall']:.2f})"

    def after(part: str, share: float) -> str:
        return spread(one["spectral"]["success_after"] for one in select(records, part, share, "white patch"))

    def seen(trigger: str) -> str:
        return spread(one["triggers"][trigger]["auc"] for one in records["frequency"])

    def strip(part: str, trigger: str) -> str:
        return spread(one["strip"]["auc"] for one in select(records, part, STRONG, trigger))

    def wrongly(share: float) -> str:
        found = [one["reclassification"] for one in select(records, "digits", share)]
        return f"{100 * sum(one['clean_convicted'] for one in found) / sum(one['num_clean'] for one in found):.0f} %"

    def convicted(part: str, share: float) -> str:
        found = [one["reference"]["target_convicted"] for one in select(records, part, share)]
        return f"{sum(found)} of {len(found)}"

    rows = [
        [
            "activation clustering",
            f"a third of the class: F1 {f1('digits', STRONG)} (digits), {f1('mnist', STRONG)} (MNIST); convicted "
            f"{convicted('digits', STRONG)} and {convicted('mnist', STRONG)}",
            f"little poison: at 10 % F1 {f1('digits', WEAK)} (digits), {f1('mnist', WEAK)} (MNIST), convicted "
            f"{convicted('digits', WEAK)} and {convicted('mnist', WEAK)}, as so few examples may be chance; without "
            f"clean examples {wrongly(0.0)} of the classes of clean digits are convicted",
        ],
        [
            "spectral signatures",
            f"on MNIST, a third of the class: recall {recall('mnist', STRONG)}; a tenth: {recall('mnist', WEAK)}",
            f"little poison in weak features: a tenth on CIFAR-10: {recall('cifar10', WEAK)}; and what is left is "
            f"often enough: attack success {after('mnist', STRONG)} after training anew (MNIST, a third)",
        ],
        [
            "frequency detector",
            f"sharp triggers: AUC {seen('checkered patch')} (checkered), {seen('noise blend')} (noise), "
            f"{seen('white patch')} (white)",
            f"smooth ones: AUC {seen('smooth')} (smooth pattern), {seen('wave')} (wave)",
        ],
        [
            "STRIP",
            f"a patch on simple pictures: AUC {strip('mnist', 'white patch')} (MNIST)",
            f"triggers that an overlay hides: AUC {strip('cifar10', 'white patch')} (white patch), "
            f"{strip('cifar10', 'noise blend')} (noise), {strip('cifar10', 'smooth')} (smooth) on CIFAR-10",
        ],
    ]
    return table(["audit", "sees", "misses"], rows)


def plot_clustering(records: dict[str, Records], path: Path) -> None:
    figure = new_figure(7.0, 4.2)
    axes = figure.add_subplot()
    names = []
    for place, (part, share, trigger, words) in enumerate(groups(CLUSTERED)):
        chosen = select(records, part, share, trigger)
        names.append(f"{words.replace(', ', chr(10))}\n{100 * share:.0f} %")
        for one in chosen:
            shift = 0.5 * float(torch.rand((), generator=torch_generator(one["seed"], one["source"]))) - 0.25
            colour = BLUE if one["reference"]["target_convicted"] else ORANGE
            axes.scatter(place + shift, one["clustering"]["f1_in_class"], s=16, color=colour, alpha=0.7, linewidth=0)
    for label, colour in (("target class convicted", BLUE), ("not convicted", ORANGE)):
        axes.scatter([], [], s=24, color=colour, label=label)
    axes.axhline(0.9, color="black", linestyle="--", linewidth=1, label="0.9")
    axes.set_xticks(range(len(names)), names, fontsize=8)
    axes.set_ylabel("F1 of the smaller cluster in the target class")
    axes.set_title("Activation clustering: one point a model", loc="left", fontsize=12, fontweight="bold")
    finish(axes)
    legend_below(figure, axes)
    save_figure(figure, path)


def plot_spectral(records: dict[str, Records], path: Path) -> None:
    figure = new_figure(10.0, 3.8)
    left, right = figure.subplots(1, 2)
    names = [f"{words.replace(', ', ' ')} {100 * share:.0f} %" for _, share, _, words in groups(RETRAINED)]
    for place, (part, share, trigger, _) in enumerate(groups(RETRAINED)):
        chosen = select(records, part, share, trigger)
        pairs = (
            (left, [one["spectral"]["recall"] for one in chosen], [one["spectral"]["random_recall"] for one in chosen]),
            (right, [one["spectral"]["success_after"] for one in chosen], [one["success"] for one in chosen]),
        )
        for axes, ours, control in pairs:
            for shift, values, colour in ((0.17, ours, BLUE), (-0.17, control, LIGHT_ORANGE)):
                found = torch.tensor(values)
                axes.barh(place + shift, float(found.mean()), height=0.32, color=colour, xerr=float(found.std()))
    for axes, labels, title in (
        (left, ("spectral signatures", "random removal"), "Poison found at 1.5ε"),
        (right, ("after retraining", "before"), "Attack success"),
    ):
        for label, colour in zip(labels, (BLUE, LIGHT_ORANGE), strict=True):
            axes.barh([0], [0], color=colour, label=label)
        axes.set_yticks(range(len(names)), names if axes is left else [""] * len(names), fontsize=8)
        axes.invert_yaxis()
        axes.set_xlim(0, 1.05)
        axes.xaxis.set_major_formatter(PercentFormatter(1.0))
        axes.set_title(title, loc="left", fontsize=12, fontweight="bold")
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize=9, loc="upper center", bbox_to_anchor=(0.5, -0.1), ncols=2)
    save_figure(figure, path)


def plot_detectors(records: dict[str, Records], path: Path) -> None:
    figure = new_figure(8.0, 4.2)
    axes = figure.add_subplot()
    found = detector_rates(records)
    for place, (_, frequency, strip) in enumerate(found):
        for shift, rates, colour in ((-0.18, frequency, BLUE), (0.18, strip, LIGHT_ORANGE)):
            if rates:
                values = torch.tensor([one["auc"] for one in rates])
                axes.bar(place + shift, float(values.mean()), width=0.34, color=colour, yerr=float(values.std()))
    for label, colour in (("frequency detector", BLUE), ("STRIP, on models that learnt the trigger", LIGHT_ORANGE)):
        axes.bar([0], [0], color=colour, label=label)
    axes.axhline(0.5, color="black", linestyle="--", linewidth=1, label="chance")
    axes.set_xticks(range(len(found)), [name if strip else f"{name}\n(not trained)" for name, _, strip in found])
    axes.set_xlim(-0.5, len(found) - 0.5)
    axes.set_ylabel("AUC, triggered against clean")
    axes.set_title("CIFAR-10: who sees which trigger", loc="left", fontsize=12, fontweight="bold")
    finish(axes)
    legend_below(figure, axes)
    save_figure(figure, path)


def plot_example(folder: Path, root: Path | None) -> None:
    """The reports' own plots, for one MNIST model."""
    case, setting = Case("mnist", "white patch", STRONG, 0, 0), load("mnist", root)
    examples, poisoned, _ = poison(case, setting)
    model = train(case, setting, examples, "model")
    for name, audit in (
        ("report_clustering", ActivationClustering(layer=setting.layer)),
        ("report_spectral", SpectralSignatures(max_poison_fraction=STRONG)),
    ):
        clean = setting.dataset.test.subset(torch.arange(NUM_REFERENCE))
        report = audit(examples, model, torch_generator(case.seed, "audit"), clean)
        save_figure(report.plot(poisoned), folder / f"{name}.png")


def finish(axes: Any) -> None:
    axes.set_ylim(0, 1.04)
    axes.grid(axis="y", color="#DDDDDD", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


README = """# Audits of data: what each finds, and where each fails

**Claims.** Activation clustering tells poison from a class's own examples with an F1 of 0.9 and more where poison is a
third of the class (Chen et al., 2018, https://arxiv.org/abs/1811.03728). Spectral signatures find most of it by leaving
out 1.5ε (Tran, Li, Madry, NeurIPS 2018, https://arxiv.org/abs/1811.00636). A detector over frequencies sees triggers
that it was never shown, unless they are smooth (Zeng et al., ICCV 2021, https://arxiv.org/abs/2104.03413); STRIP sees
those that hold under overlays (Gao et al., ACSAC 2019, https://arxiv.org/abs/1902.06531).

**Setting.** Single-source BadNets: examples of class s with a trigger and the label s + 1, so many that they are 33 %
or 10 % of that label. Digits (1,297 examples, MLP 128-64, three corner pixels; ten pairs of classes a seed), MNIST
(5,000 examples, two convolutions and 64 hidden units, a white 4x4 patch; two pairs a seed, one at 10 %), CIFAR-10
(5,000 examples, the same network; one pair a seed, each trigger). Clustering reads the layer before the last hidden
ReLU, and has 500 clean test examples; spectral signatures the one after it. Spectral signatures get the true share of
poison as ε and filter every class, as the paper has it; the model is then trained anew. Every frequency detector is
trained on the 5,000 clean training pictures of CIFAR-10 and sees all 2,000 test pictures with and without each trigger.
STRIP has 400 clean test pictures, 20 overlays, and is shown 250 other clean ones and the triggered ones of the source
class. Thresholds of both are set for 5 % false positives.

```
FEDROBUST_DATA=FOLDER python experiments/audits/data/run.py            # seeds {seeds}
FEDROBUST_DATA=FOLDER python experiments/audits/data/run.py --quick    # digits and a short detector, one seed, no files
```

**Hardware**: 2 CPU cores (AMD EPYC), no GPU; {minutes:.0f} CPU minutes in all, one thread, the cores shared with other
work.

Seeds {seeds}; mean ± standard deviation over models.

## Where each works, and where each fails

{failures}

## Activation clustering

{clustering}

F1 in the target class asks whether its smaller cluster is the poison; F1 of all flagged also counts what is flagged in
clean classes that the verdict convicts, and what is not flagged for want of one. Verdict: by clean examples, which must
avoid the cluster (Fisher's exact test, 95 % over all classes), and not above 35 % of the class; *cannot tell* is a
cluster above 35 %, or too small for 50 clean examples to say that they avoid it.

![F1 of every model](clustering.png)

![One report: MNIST, a third of the ones are triggered noughts](report_clustering.png)

## Verdicts on classes

How many poisoned target classes are convicted, and what part of the clean classes is. The paper's three verdicts are
without clean examples, and convict no cluster above 35 % of the class; nothing states how often they are wrong.

{verdicts}

## Spectral signatures

{spectral}

![Recall and attack success](spectral.png)

![One report: MNIST, a third of the ones are triggered noughts](report_spectral.png)

## Frequencies and STRIP

{detectors}

False positives on clean test pictures: frequency detectors {frequency_fpr}, STRIP {strip_fpr} (stated: 0.05). White
patches of other sizes and places are among what the detectors are trained on; checkered ones, one fixed noise, waves
and smooth patterns are not.

![AUC of both](detectors.png)
"""
