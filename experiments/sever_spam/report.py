"""The tables and the picture of the spam experiment."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from defences import DEFENCES
from matplotlib.figure import Figure

NAMES = {
    "none": "no defence",
    "l2": "L2",
    "loss": "loss",
    "gradient": "gradient",
    "gradient_centred": "gradient, centred",
    "sever": "Sever",
}
COLOURS = ("#000000", "#0072B2", "#56B4E9", "#009E73", "#E69F00", "#D55E00")
STYLES = ("--", "-", "-", "-", "-", "-")
PUBLISHED_CLEAN = 0.02995
PUBLISHED_SEVER = {"median": 0.0377, "largest": 0.0734}
"""Over the 96 attacks at 1 %: the authors' results, https://github.com/hoonose/sever (plot_scripts/results/enron)."""

TEXT = """# Sever on a spam filter: the authors' 480 attacks on Enron

**Claim** (Diakonikolas et al., ICML 2019, https://arxiv.org/abs/1803.02815, Section 4.2): with 1 % of the training
mails poisoned, a support vector machine with any of the usual defences can be made to err several times as often as
with Sever. That holds attack by attack, and in no other reading (below). Accepted here: a clean test error of
{published_clean} to four digits; Sever at 1 % with a median of at most 0.05 and a largest error of at most 0.10 over
the authors' 96 attacks. These two bounds are our own choice, about a third above the published {published_median} and
{published_largest}; nothing follows from them but that the figures are not far off.

**Setting**: Enron, word counts, 4137 training mails (1209 spam) and 1035 test mails. Mean hinge loss + 0.045‖w‖² with
a free intercept. The authors' poisoned mails: ε of 0.5, 1, 1.5, 2 and 3 %, made under a bound on the distance from
the mean (`exact_L2`) or on that and the gradient (`exact_L2_grad`), 48 each. Every defence knows ε and filters twice
the top part p = (N/n₊)ε/2 of each class by its score, then fits again (N/n₊ = 4137/1209, as in the authors' code):
the distance from the class's mean (L2), the loss, the length of the gradient, the distance of the gradient from the
class's mean gradient, Sever.

Departs: the subgradient of a mail on the margin is the one that makes the machine optimal, its dual variable over C,
where the authors take 0 or 1 by the side of the margin that their solver's last digits leave it on; the quantile is
MATLAB's in all defences, where the authors' rivals of Sever count one more; ties as in `Sever`.

```
python experiments/sever_spam/run.py            # FEDROBUST_DATA holds sever/enron_*; nothing is drawn, so no seeds
python experiments/sever_spam/run.py --quick    # 8 attacks
```

**Hardware**: 2 CPU cores (AMD EPYC), no GPU; {seconds:.1f} s (median) an attack on one core, other work beside it.

## Result

Test error without poisoned mails: {clean:.5f} (published {published_clean}).

Sever at 1 %, over 96 attacks: median {median:.4f} (published {published_median}), largest {largest:.4f}
(published {published_largest}; ours is {above:.0f} % above it).

How many times as often as Sever a defence errs at 1 %, in three readings:

{readings}

- *Attack by attack*, as the paper draws it: both under the attack that is strongest against the defence. Here every
  defence errs several times as often.
- *Worst against worst*: each under the attack that is strongest against it, which is what its user has to fear from
  somebody who knows the defence. Here the three that look at the loss or the gradient err less than twice as often.
- *Median against median*, over the 96 attacks. Here the loss errs less often than Sever, at 0.5 % and at 1 %
  ({loss_medians}).

Median over the 96 attacks of each ε, in brackets the tenth and ninetieth percentile, and the largest:

{spread}

As the paper draws it: at each ε the attack under which a defence errs most, and what all defences make of that attack.

{strongest}

![Test error against ε](errors.png)
"""

READINGS = ("attack by attack", "worst against worst", "median against median")
TARGETS = ("loss", "gradient_centred", "sever")


def write_report(folder: Path, clean: float, rows: Sequence[dict[str, Any]]) -> None:
    """Write `README.md` and `errors.png`."""
    rows = sorted(rows, key=lambda row: (row["epsilon"], row["constraint"], row["number"]))
    epsilons = sorted({row["epsilon"] for row in rows})

    def of(epsilon: float, name: str) -> np.ndarray:
        return np.array([row["errors"][name] for row in rows if row["epsilon"] == epsilon])

    def worst(epsilon: float, target: str) -> dict[str, Any]:
        return max((row for row in rows if row["epsilon"] == epsilon), key=lambda row: row["errors"][target])

    spread = ["| ε | attacks | " + " | ".join(NAMES[name] for name in DEFENCES) + " |", "|---" * 8 + "|"]
    for epsilon in epsilons:
        cells = [f"{epsilon:.1%}", str(len(of(epsilon, "none")))]
        for name in DEFENCES:
            low, middle, high, largest = np.quantile(of(epsilon, name), [0.1, 0.5, 0.9, 1.0])
            cells.append(f"{middle:.3f} ({low:.3f}..{high:.3f}), {largest:.3f}")
        spread.append("| " + " | ".join(cells) + " |")
    strongest = ["| strongest against | ε | attack | " + " | ".join(NAMES[name] for name in DEFENCES) + " |"]
    strongest.append("|---" * 9 + "|")
    for target in TARGETS:
        for epsilon in epsilons:
            row = worst(epsilon, target)
            cells = [NAMES[target], f"{epsilon:.1%}", f"{row['constraint']} {row['number']}"]
            cells += [f"{row['errors'][name]:.3f}" for name in DEFENCES]
            strongest.append("| " + " | ".join(cells) + " |")
    sever = of(0.01, "sever")
    rivals = [name for name in DEFENCES if name != "sever"]
    ratios = {
        "attack by attack": [worst(0.01, one)["errors"][one] / worst(0.01, one)["errors"]["sever"] for one in rivals],
        "worst against worst": [of(0.01, one).max() / sever.max() for one in rivals],
        "median against median": [np.median(of(0.01, one)) / np.median(sever) for one in rivals],
    }
    readings = ["| reading | " + " | ".join(NAMES[one] for one in rivals) + " |", "|---" * (1 + len(rivals)) + "|"]
    readings += [f"| {name} | " + " | ".join(f"{one:.1f}" for one in ratios[name]) + " |" for name in READINGS]
    pairs = [[np.median(of(epsilon, name)) for name in ("loss", "sever")] for epsilon in (0.005, 0.01)]
    text = TEXT.format(
        published_clean=PUBLISHED_CLEAN,
        published_median=PUBLISHED_SEVER["median"],
        published_largest=PUBLISHED_SEVER["largest"],
        clean=clean,
        median=np.median(sever),
        largest=sever.max(),
        above=100 * sever.max() / PUBLISHED_SEVER["largest"] - 100,
        readings="\n".join(readings),
        loss_medians=", ".join(f"{loss:.3f} against {own:.3f}" for loss, own in pairs),
        seconds=np.median([row["seconds"] for row in rows]),
        spread="\n".join(spread),
        strongest="\n".join(strongest),
    )
    (folder / "README.md").write_text(text)
    print(f"Sever at 1 %: median {np.median(sever):.4f}, largest {sever.max():.4f}")
    figure = Figure(figsize=(13, 4.4), layout="constrained")
    panels = figure.subplots(1, 1 + len(TARGETS), sharey=True)
    percent = [100 * epsilon for epsilon in epsilons]
    for axes, target in zip(panels, (None, *TARGETS)):
        axes.axhline(clean, color="0.6", label="without poisoned mails")
        for name, colour, style in zip(DEFENCES, COLOURS, STYLES):
            if target is None:
                values = [float(np.median(of(epsilon, name))) for epsilon in epsilons]
            else:
                values = [worst(epsilon, target)["errors"][name] for epsilon in epsilons]
            axes.plot(percent, values, style, color=colour, label=NAMES[name])
        title = "median of 96 attacks" if target is None else f"strongest against\n{NAMES[target]}"
        axes.set(xlabel="poisoned mails ε (%)", title=title)
    panels[0].set_ylabel("test error")
    panels[0].set_ylim(bottom=0)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right upper", frameon=False)
    figure.savefig(folder / "errors.png", dpi=120)
