"""The page of this experiment, from its figures."""

from pathlib import Path
from typing import Any

import torch

PAGE = """# Poison Frogs: one target, rightly labelled poisons; not unseen on digits, in part on dogs and fish

**Claim** (Shafahi, Huang, Najibi, Suciu, Studer, Dumitras, Goldstein, NeurIPS 2018, https://arxiv.org/abs/1804.00792):
a picture that keeps its label and looks like its base, but has the features of a chosen target, makes a model that is
trained on it take the target for the base's class. One is enough where a new head is trained on features that stay as
they are; where all layers are trained it takes tens, with some of the target blended into them.
{found}
```
python experiments/poison_frogs/run.py                        # all parts
python experiments/poison_frogs/run.py --parts digits         # or conditions, dogfish, end_to_end
python experiments/poison_frogs/run.py --quick                # one seed, few targets, no files
```

**Hardware**: 2 CPU cores (AMD EPYC), no GPU, shared with other work ({minutes}).
Figures are in `results.json`.

Mean ± standard deviation over the seeds {seeds}. β is the weight of ‖p - b‖², for pixels in [0, 1] and a feature
distance relative to ‖f(t)‖². *Moved* is ‖p - b‖ / ‖t - b‖: at 1 a poison is as far from its base as the target is.
"""

DIGITS = """
## Transfer: one poison, digits

Features: the last hidden layer of 1,024 units (one of 128 before it) of a model that was trained on the digits 0 to 4,
raw pixels in [0, 1], by Adam. Victim: a logistic head on two of the digits 5 to 9 (about 260 clean examples, and one
poison), trained to convergence, or stopped as soon as it fits all of them. 25 targets for each seed, test examples that
clean heads get right, so that a success is the poison's doing; Adam, 300 steps at 0.05.

{table}

Clean heads are right about {accuracy} of their test examples (trained to convergence). In the control the base itself
stands in the poison's place. That a clean head gets a target right does not put it far from the boundary: other draws
of targets hold one between the two classes that changes sides at β = 1e-2, too. Of targets outside of the clean
head's margin none does, over the seeds 0 to 7:
`pytest -m "slow or not slow" tests/end_to_end/test_poison_frogs_end_to_end.py`.

A small β lets the poison go nearly all the way to the target: one glance at the picture tells. The attack shows how it
works, not that it cannot be seen; features that are less tied to single pixels leave more room.

![Bases, targets and poisons](digits.png)
"""

CONDITIONS = """
## What the digits' figures depend on

The same with other features, with inputs that are normalised by the data set's mean and standard deviation first, and
with forward-backward splitting in place of Adam. *One layer by SGD* is 60 epochs at rate 0.05, momentum 0.9.

{table}

- **β = 1e-2 is harmless only where the features are not too close to the pixels.** With a single hidden layer, more so
  where SGD trained it or where inputs are normalised, a poison goes most of the way to the target even at β = 1e-2
  (*moved*), and a converged head turns on it.
- **The head decides how close a poison must come.** One that converges turns on every poison at β = 1e-4. One that
  stops when everything fits passes right beside the poison, and the target, a little further on, is often still on its
  own side.
- **The solver does not matter**: in 300 steps both get about as far, and as many targets.
"""

DOGFISH = """
## Transfer: one poison, dog against fish

Features: 1,024, of a small convolutional network trained for 4 epochs on 5,000 pictures of CIFAR-10. Victim: as above,
on 600 photographs at 32x32. 10 targets for each seed; Adam, 300 steps at 0.01. The paper's features are those of
InceptionV3, 2,048 of pictures at 299x299, and its success is 100 % of 1,099 targets; the features here are far weaker.

{table}

Clean heads are right about {accuracy} of their test examples (trained to convergence); targets are drawn among those
that they get right, and some lie so close to the other class that one more ordinary base is enough (control). With
β = 1e-4 the noise is plain to see; with β = 1e-2 less so, and what is left of the attack is weaker. Invisible poisons
ask for features that are less tied to single pixels.

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


BETAS = ("0.0001", "0.01")
EXTRACTORS = {"two_layers": "two layers by Adam", "one_layer": "one layer by Adam", "one_layer_sgd": "one layer by SGD"}


def spread(values: list[float], unit: str = " %", scale: float = 100.0, digits: int = 1) -> str:
    """Mean ± standard deviation."""
    tensor = scale * torch.tensor(values, dtype=torch.float64)
    deviation = float(tensor.std()) if len(values) > 1 else 0.0
    return f"{float(tensor.mean()):.{digits}f} ± {deviation:.{digits}f}{unit}"


def transfer_table(rows: dict[str, Any]) -> str:
    """Success of both heads, and what the poisons are like, for each β."""
    lines = [
        "| collision | β | success, head converged | success, head stopped when it fits | feature distance | moved |",
        "|---|---|---|---|---|---|",
    ]
    names = [name for name in rows if name not in ("control", "logits")]
    for name in ["control", *names, "logits"]:
        row = rows[name]
        cells = [spread(row["convergence"]), spread(row["interpolation"])]
        if name == "control":
            lines.append(f"| none: the base itself (control) | | {' | '.join(cells)} | | |")
            continue
        cells += [spread(row[key], "", 1.0, 3) for key in ("distance", "moved")]
        kind, beta = ("logits", names[0]) if name == "logits" else ("features", name)
        lines.append(f"| {kind} | {beta} | {' | '.join(cells)} |")
    return "\n".join(lines)


def conditions_table(rows: dict[str, Any]) -> str:
    """Success of both heads and how far poisons went, for features (rows), inputs and solvers."""
    lines = [
        "| features | inputs | solver | converged, β = 1e-4 | converged, β = 1e-2 "
        "| stopped, β = 1e-4 | stopped, β = 1e-2 | moved, β = 1e-2 |",
        "|---" * 8 + "|",
    ]
    for name, row in rows.items():
        extractor, inputs, solver = name.split("/")
        cells = [spread(row[f"{head}/{beta}"]) for head in ("convergence", "interpolation") for beta in BETAS]
        cells = [EXTRACTORS[extractor], inputs, solver.replace("_", "-"), *cells]
        lines.append(f"| {' | '.join(cells)} | {spread(row[f'moved/{BETAS[1]}'], '', 1.0, 2)} |")
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


FOUND = """
**Found here**: that one poison is enough *and* looks like its base is not reproduced on digits. A converged head turns
on {digits_small} of the targets at β = 1e-4, where the poison has gone {moved:.0f} % of the way to the target and
looks like it, and on {digits_large} at β = 1e-2. On dogs and fish it is reproduced in part: {fish_large} at
β = 1e-2 and {fish_small} at β = 1e-4, against {fish_control} for a base that nothing was done to. That it
takes tens where all layers are trained is reproduced: at an opacity of 30 %, 1 poison turns {one} of the
targets, 60 turn {sixty}.
"""


def found(results: dict[str, Any]) -> str:
    """What came of the claim, once all of its parts are there."""
    if not {"digits", "dogfish", "end_to_end"} <= results.keys():
        return ""
    digits, fish, many = (results[part]["rows"] for part in ("digits", "dogfish", "end_to_end"))
    return FOUND.format(
        digits_small=spread(digits["0.0001"]["convergence"]),
        digits_large=spread(digits["0.01"]["convergence"]),
        moved=100 * float(torch.tensor(digits["0.0001"]["moved"]).mean()),
        fish_small=spread(fish["0.0001"]["convergence"]),
        fish_large=spread(fish["0.01"]["convergence"]),
        fish_control=spread(fish["control"]["convergence"]),
        one=spread(many["0.3/1"]["success"]),
        sixty=spread(many["0.3/60"]["success"]),
    )


def write_page(results: dict[str, Any], path: Path) -> None:
    """Write the page from `results.json`."""
    minutes = ", ".join(f"{part} {one['minutes']:.0f} minutes" for part, one in results.items())
    seeds = ", ".join(map(str, next(iter(results.values()))["seeds"]))
    text = PAGE.format(minutes=minutes, seeds=seeds, found=found(results))
    for part, template in (("digits", DIGITS), ("conditions", CONDITIONS), ("dogfish", DOGFISH)):
        if part not in results:
            continue
        rows = results[part]["rows"]
        if part == "conditions":
            text += template.format(table=conditions_table(rows))
        else:
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
