"""Code poisoning on the digits: a library whose training code learns a backdoor beside the main task.

    python experiments/code_poisoning/run.py [--seeds 0 1 2] [--quick]

Four normalisations of the two gradients; the library is that of the one party that trains, of all clients of a
federation, or of 20 % of them under three rules. The control is the same training with a clean library. Writes
`README.md`, `results.json` and `normalisations.png` here.
"""

import dataclasses
import itertools
import json
import time
from pathlib import Path

import torch
from rich.progress import track
from torch import Tensor

from fedrobust.attacks import BlindBackdoor
from fedrobust.attacks.scenario import Attack
from fedrobust.config.component import component
from fedrobust.config.compose import compose_config
from fedrobust.figures.style import BLUE, GREEN, LIGHT_ORANGE, ORANGE, new_figure
from fedrobust.scenario import Scenario, build_scenario, prepare
from fedrobust.study import markdown_table, percent, play_rounds, study_parser

HERE = Path(__file__).parent
NORMALISATIONS = ("none", "l2", "loss", "loss+")
COLOURS = dict(zip(NORMALISATIONS, (ORANGE, LIGHT_ORANGE, BLUE, GREEN), strict=True))
OUTSOURCED = ["num_clients=1", "num_rounds=1", "client.num_epochs=40", "client.vectorize=false"]
SOME = ["attack.malicious_fraction=0.2"]
SETTINGS = {
    "one party trains": OUTSOURCED,
    "all clients, mean": [],
    "20 % of the clients, mean": SOME,
    "20 % of the clients, coordinate median": [*SOME, "aggregator=coordinate_median"],
    "20 % of the clients, spectral filter": [*SOME, "aggregator=spectral_filter", "aggregator.assumed_fraction=0.2"],
}


@dataclasses.dataclass(frozen=True)
class Result:
    """One trained model; `normalisation` is `None` for the control, weights of the main task are kept for a picture."""

    setting: str
    normalisation: str | None
    seed: int
    clean_accuracy: float
    attack_success_rate: float
    detection_tpr: float | None


_main_weights: list[float] = []


@component
class RecordingBackdoor(BlindBackdoor):
    """Notes the weight of the main task at every step of one party's training."""

    def balance(self, products: Tensor, losses: Tensor) -> Tensor:
        """As it was, and noted."""
        weights = super().balance(products, losses)
        _main_weights.append(float(weights[0]))
        return weights


def scenario_of(setting: str, normalisation: str | None, seed: int, quick: bool) -> Scenario:
    overrides = ["+experiment=code_poisoning", "evaluate_every=1000", f"seed={seed}", *SETTINGS[setting]]
    if normalisation is None:
        overrides.append("attack.malicious_fraction=0")
    else:
        overrides.append(f"attack.loss.normalisation={normalisation}")
    if quick:
        overrides.append("client.num_epochs=4" if setting == "one party trains" else "num_rounds=5")
    return build_scenario(compose_config(overrides)[0])


def main_weights(normalisation: str, seed: int, quick: bool) -> list[float]:
    """α of the main task, step by step, where one party trains."""
    scenario = scenario_of("one party trains", normalisation, seed, quick)
    loss = scenario.attack.loss
    assert isinstance(loss, BlindBackdoor)
    recording = RecordingBackdoor(**{one.name: getattr(loss, one.name) for one in dataclasses.fields(loss)})
    attack: Attack = dataclasses.replace(scenario.attack, loss=recording)
    _main_weights.clear()
    play_rounds(prepare(dataclasses.replace(scenario, attack=attack)))
    return list(_main_weights)


def draw(weights: dict[str, list[float]], results: list[Result], path: Path, window: int = 41) -> None:
    """The weights over the steps, and what came of them."""
    figure = new_figure(12.5, 4.6)
    left, right = figure.subplots(1, 2, width_ratios=(1.25, 1))
    for name, values in weights.items():
        smooth = torch.tensor(values).unfold(0, min(window, len(values)), 1).mean(dim=1)
        left.plot(range(window // 2, window // 2 + len(smooth)), smooth, color=COLOURS[name], label=name, linewidth=1.6)
    left.set(xlabel="step of SGD (82 in an epoch)", ylabel="weight of the main task", ylim=(-0.02, 1.02))
    left.set_title("How the main task is weighed", loc="left", fontsize=11, fontweight="bold")
    left.legend(title="gradients divided by", labels=["nothing", "norm", "loss", "loss and norm"], frameon=False)
    width = 0.38
    for offset, key, colour in ((-width / 2, "clean_accuracy", BLUE), (width / 2, "attack_success_rate", ORANGE)):
        for place, name in enumerate((None, *NORMALISATIONS)):
            values = torch.tensor(
                [
                    100 * getattr(one, key)
                    for one in results
                    if (one.setting, one.normalisation) == ("all clients, mean", name)
                ]
            )
            spread = float(values.std()) if len(values) > 1 else 0.0
            label = key.replace("_", " ").replace(" rate", "") if place == 0 else None
            right.bar(place + offset, float(values.mean()), width, yerr=spread, color=colour, label=label, capsize=3)
    right.set_xticks(range(5), ["clean library\n(control)", "nothing", "norm", "loss", "loss and\nnorm"])
    right.set(ylabel="per cent of the test set", ylim=(0, 104), xlabel="gradients divided by")
    right.set_title("All clients, the mean", loc="left", fontsize=11, fontweight="bold")
    right.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.22), ncols=2)
    for axes in (left, right):
        axes.grid(axis="y", color="#DDDDDD", linewidth=0.7)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120)


def table(results: list[Result]) -> str:
    heads = ["who has the library", "gradients divided by", "clean accuracy", "attack success", "attackers left out"]
    rows = []
    for setting, name in itertools.product(SETTINGS, (None, *NORMALISATIONS)):
        own = [one for one in results if (one.setting, one.normalisation) == (setting, name)]
        rates = [one.detection_tpr for one in own if one.detection_tpr is not None]
        cells = [percent(one.clean_accuracy for one in own), percent(one.attack_success_rate for one in own)]
        label = "nobody (control)" if name is None else f"`{name}`"
        rows.append([setting, label, *cells, percent(rates) or "-"])
    return markdown_table(heads, rows)


README = """# Code poisoning: a backdoor in the training library

**Claim** (Bagdasaryan, Shmatikov, "Blind Backdoors in Deep Learning Models", USENIX Security 2021,
https://arxiv.org/abs/2005.03823): training code that computes its loss on each batch and on a stamped copy of it gets a
backdoor in without knowledge of data or model, and the main task does not suffer, if the two losses are balanced by
MGDA with normalised gradients.

**Setting** (`conf/experiment/code_poisoning.yaml`): scikit-learn's digits, the default MLP, four white pixels, target
0. *One party trains*: 40 epochs, batches of 16, learning rate 0.1. *All clients*, or 4 of 20: 30 rounds of the default
federation. Attack success counts test digits other than 0 that are taken for 0 once they are stamped. *Attackers left
out*: of those of the last round, for rules that leave clients out.

```
python experiments/code_poisoning/run.py                # seeds {seeds}
python experiments/code_poisoning/run.py --quick        # one seed, few epochs and rounds, no files
```

**Hardware**: 2 CPU cores (AMD EPYC), no GPU; {minutes:.0f} minutes for the full command, the cores shared with other
work.

## Result

Seeds {seeds}; mean ± standard deviation.

{table}

![Weight of the main task over the steps; accuracy and attack success](normalisations.png)

The left picture shows seed {first}, one party training, averaged over 41 steps. The least norm favours the task with
the smaller gradient. Without normalisation that is the one that is learned already: the backdoor, which is easy, takes
the weight, and the main task is hardly trained. Divided by its loss, the gradient of a task that is learned is not
small, and most of the weight stays with the main task until that is learned, too.
"""


def main() -> None:
    parser = study_parser(__doc__, quick="one seed, few epochs and rounds, no files")
    options = parser.parse_args()
    seeds = options.seeds[:1] if options.quick else options.seeds
    torch.set_num_threads(1)  # threads would wait for one another longer than so small a network takes
    started = time.perf_counter()
    results: list[Result] = []
    cells = list(itertools.product(seeds, SETTINGS, (None, *NORMALISATIONS)))
    for seed, setting, name in track(cells, description="training"):
        row = play_rounds(prepare(scenario_of(setting, name, seed, options.quick)))[-1]
        figures = (row["clean_accuracy"], row["attack_success_rate"], row["detection_tpr"])
        results.append(Result(setting, name, seed, *figures))
    text = table(results)
    print(text)
    if options.quick:
        return
    draw({name: main_weights(name, seeds[0], False) for name in NORMALISATIONS}, results, HERE / "normalisations.png")
    (HERE / "results.json").write_text(json.dumps([dataclasses.asdict(one) for one in results], indent=1) + "\n")
    names, minutes = ", ".join(map(str, seeds)), (time.perf_counter() - started) / 60
    (HERE / "README.md").write_text(README.format(seeds=names, minutes=minutes, table=text, first=seeds[0]))


if __name__ == "__main__":
    main()
