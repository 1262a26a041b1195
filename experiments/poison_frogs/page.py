"""The page of this experiment, from its figures."""

from pathlib import Path
from typing import Any

import torch

PAGE = """# Poison Frogs: one target, rightly labelled poisons

**Claim** (Shafahi, Huang, Najibi, Suciu, Studer, Dumitras, Goldstein, NeurIPS 2018, https://arxiv.org/abs/1804.00792):
a picture that keeps its label and looks like its base, but has the features of a chosen target, makes a model that is
trained on it take the target for the base's class. One is enough where a new head is trained on features that stay as
they are; where all layers are trained it takes tens, with some of the target blended into them.

```
python experiments/poison_frogs/run.py                        # all parts
python experiments/poison_frogs/run.py --parts digits         # one of digits, dogfish, end_to_end
python experiments/poison_frogs/run.py --quick                # one seed, few targets, no files
```

**Hardware**: 2 CPU cores (AMD EPYC), no GPU, shared with other work ({minutes}).
Figures are in `results.json`.

Mean ± standard deviation over the seeds {seeds}. β is the weight of ‖p - b‖², for pixels in [0, 1] and a feature
distance relative to ‖f(t)‖². *Moved* is ‖p - b‖ / ‖t - b‖: at 1 a poison is as far from its base as the target is.
"""

DIGITS = """
## Transfer: one poison, digits

Features: a hidden layer of width 1,024, trained on the digits 0 to 4. Victim: a logistic head on two of the digits 5 to
9 (about 260 clean examples, and one poison), stopped as soon as it fits all of them, or trained to convergence. 25
targets for each seed; forward-backward splitting, at most 300 steps.

{table}

Clean heads are right about {accuracy} of their test examples (trained to convergence).

The features are an almost invertible function of 64 pixels, so that on the digits colliding with the target means
looking like it: at β = 1e-4 a poison *is* the target, with the base's label, and the attack shows how it works, not
that it cannot be seen. How close it must come depends on how long the head is trained: one that stops when everything
fits turns only on a very close neighbour, one that converges bends round the poison from further off.

![Bases, targets and poisons](digits.png)
"""

DOGFISH = """
## Transfer: one poison, dog against fish

Features: 1,024, of a small convolutional network trained for 4 epochs on 5,000 pictures of CIFAR-10. Victim: as above,
on 600 photographs at 32x32. 10 targets for each seed; Adam, 300 steps. The paper's features are those of InceptionV3,
2,048 of pictures at 299x299, and its success is 100 % of 1,099 targets; the features here are far weaker.

{table}

Clean heads are right about {accuracy} of their test examples (trained to convergence), and so many of the targets are
lost without any poison: the control counts them. With β = 1e-4 the noise is plain to see; with β = 1e-2 less so, and
what is left of the attack is weaker. Invisible poisons ask for features that are less tied to single pixels.

![Bases, targets and poisons](dogfish.png)
"""

END_TO_END = """
## All layers trained on: many poisons, digits

The victim starts from the clean model on which the poisons were crafted (an MLP of 128 and 64 units, all ten digits,
30 epochs) and trains all layers for 10 more epochs on the training set, in which poisons stand in for their bases.
10 targets for each seed, that the clean model is right about; β = 1e-2. Share of targets taken for the base's class:

{table}

Controls:

{controls}

![Success against the number of poisons](end_to_end.png)

![Bases, targets and poisons](end_to_end_poisons.png)
"""


def spread(values: list[float], unit: str = " %", scale: float = 100.0, digits: int = 1) -> str:
    """Mean ± standard deviation."""
    tensor = scale * torch.tensor(values, dtype=torch.float64)
    deviation = float(tensor.std()) if len(values) > 1 else 0.0
    return f"{float(tensor.mean()):.{digits}f} ± {deviation:.{digits}f}{unit}"


def transfer_table(rows: dict[str, Any]) -> str:
    """Success of both heads, and what the poisons are like, for each β."""
    lines = [
        "| collision | β | success, head stopped when it fits | success, head converged | feature distance | moved |",
        "|---|---|---|---|---|---|",
    ]
    names = [name for name in rows if name not in ("control", "logits")]
    for name in ["control", *names, "logits"]:
        row = rows[name]
        cells = [spread(row["interpolation"]), spread(row["convergence"])]
        if name == "control":
            lines.append(f"| none (control) | | {' | '.join(cells)} | | |")
            continue
        cells += [spread(row[key], "", 1.0, 3) for key in ("distance", "moved")]
        kind, beta = ("logits", names[0]) if name == "logits" else ("features", name)
        lines.append(f"| {kind} | {beta} | {' | '.join(cells)} |")
    return "\n".join(lines)


def end_to_end_table(rows: dict[str, Any]) -> str:
    """Success by opacity (rows) and number of poisons (columns)."""
    cells = [name.split("/") for name in rows if "/" in name]
    opacities, counts = dict.fromkeys(one for one, _ in cells), dict.fromkeys(one for _, one in cells)
    lines = [
        "| opacity | " + " | ".join(f"{count} poisons" for count in counts) + " |",
        "|---" * (len(counts) + 1) + "|",
    ]
    for opacity in opacities:
        values = [spread(rows[f"{opacity}/{count}"]["success"]) for count in counts]
        lines.append(f"| {float(opacity):.0%} | {' | '.join(values)} |")
    return "\n".join(lines).replace("1 poisons", "1 poison", 1)


def write_page(results: dict[str, Any], path: Path) -> None:
    """Write the page from `results.json`."""
    minutes = ", ".join(f"{part} {one['minutes']:.0f} minutes" for part, one in results.items())
    seeds = ", ".join(map(str, next(iter(results.values()))["seeds"]))
    text = PAGE.format(minutes=minutes, seeds=seeds)
    for part, template in (("digits", DIGITS), ("dogfish", DOGFISH)):
        if part in results:
            rows = results[part]["rows"]
            accuracy = spread(rows["control"]["accuracy_convergence"])
            text += template.format(table=transfer_table(rows), accuracy=accuracy)
    if "end_to_end" in results:
        rows = results["end_to_end"]["rows"]
        lines = [
            f"trained on with clean examples: {spread(rows['control']['success'])}",
            f"30 bases that the target was blended into at 30 %, no collision: {spread(rows['blended']['success'])}",
            f"clean accuracy: {spread(rows['control']['accuracy'])} with clean examples, "
            f"{spread(rows['0.3/30']['accuracy'])} with 30 poisons of opacity 30 %",
        ]
        controls = "\n".join(f"- {line}" for line in lines)
        text += END_TO_END.format(table=end_to_end_table(rows), controls=controls)
    path.write_text(text)
