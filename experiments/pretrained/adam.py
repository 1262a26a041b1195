"""The same attack outside a federation: one user fine-tunes with Adam, the provider's own optimiser.

    python experiments/pretrained/adam.py [--seeds 0 1 2 3 4] [--quick]

Digits, no files needed. Five settings, written down before any was run. Writes `adam.md`, the table of `README.md`;
`--quick` plays one seed and writes nothing. `tests/end_to_end/test_pretrained_backdoor.py` holds setting C on pixels in
[0, 1].
"""

import argparse
import copy
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from rich.progress import track
from torch import Tensor, nn

from fedrobust.attacks import BadNets, Pixels
from fedrobust.data.datasets import Dataset, Digits, Examples
from fedrobust.evaluation.attack_success import measure_attack_success
from fedrobust.models import MLP
from fedrobust.seeds import seeded_initialisation, torch_generator

CORNER = [[-1, -1], [-1, -2], [-2, -1]]


@dataclass(frozen=True, kw_only=True)
class Setting:
    """How the provider trains, for `num_pretraining_epochs` on poisoned digits, and the user, on clean ones."""

    num_pretraining_epochs: int
    num_epochs: int
    batch_size: int
    poison_rate: float = 0.05
    shared_examples: bool = True
    """Both hold all 1,297 training digits; else half each."""
    optimiser: str = "Adam 0.001"


SETTINGS = {
    "A": Setting(num_pretraining_epochs=25, num_epochs=10, batch_size=64),
    "B": Setting(num_pretraining_epochs=30, num_epochs=30, batch_size=32, poison_rate=0.1, shared_examples=False),
    "C": Setting(num_pretraining_epochs=30, num_epochs=30, batch_size=32),
    "D": Setting(num_pretraining_epochs=30, num_epochs=30, batch_size=32, optimiser="SGD 0.1, momentum 0.9"),
    "E": Setting(num_pretraining_epochs=30, num_epochs=60, batch_size=64),
}


@dataclass(frozen=True)
class Normalised:
    """A model as `measure_attack_success` wants it, on raw inputs."""

    model: nn.Module
    dataset: Dataset
    raw: bool
    """Whether the model sees pixels in [0, 1]; else normalised ones, as clients' models do."""

    def logits(self, inputs: Tensor) -> Tensor:
        """Logits `(N, 10)` for raw inputs."""
        with torch.no_grad():
            return self.forward(inputs)

    def forward(self, inputs: Tensor) -> Tensor:
        """The same with gradients."""
        return self.model(inputs if self.raw else self.dataset.normalise(inputs))


def train(
    model: Normalised,
    parameters: Iterable[nn.Parameter],
    examples: Examples,
    num_epochs: int,
    setting: Setting,
    generator: torch.Generator,
) -> None:
    """Minimise cross-entropy in `parameters`."""
    if setting.optimiser.startswith("Adam"):
        optimiser: torch.optim.Optimizer = torch.optim.Adam(parameters, lr=0.001)
    else:
        optimiser = torch.optim.SGD(parameters, lr=0.1, momentum=0.9)
    for _ in range(num_epochs):
        for batch in torch.randperm(len(examples), generator=generator).split(setting.batch_size):
            optimiser.zero_grad()
            nn.functional.cross_entropy(model.forward(examples.inputs[batch]), examples.labels[batch]).backward()
            optimiser.step()


def play(setting: Setting, seed: int, *, malicious: bool = True, raw: bool = False) -> dict[str, tuple[float, float]]:
    """Attack success and clean accuracy of the pretrained model, and after either kind of fine-tuning."""
    dataset = Digits().load(None, torch.device("cpu"))
    attack = BadNets(trigger=Pixels(pixels=CORNER), poison_rate=setting.poison_rate)
    order = torch.randperm(len(dataset.train), generator=torch_generator(seed, "provider"))
    half = len(order) if setting.shared_examples else len(order) // 2
    own = dataset.train.subset(order[:half])
    rest = own if setting.shared_examples else dataset.train.subset(order[half:])
    if malicious:
        own = attack.poison(own, 0, torch_generator(seed, "poison"))
    with seeded_initialisation(seed, "model"):
        network = MLP().build(dataset.input_shape, dataset.num_classes)
    with seeded_initialisation(seed, "new head"):
        head = nn.Linear(64, dataset.num_classes)
    pretrained = Normalised(network, dataset, raw)
    train(
        pretrained,
        network.parameters(),
        own,
        setting.num_pretraining_epochs,
        setting,
        torch_generator(seed, "pretraining"),
    )
    found = {"pretrained": judge(pretrained, attack, dataset)}
    for kind in ("all layers", "new head"):
        tuned = copy.deepcopy(network)
        if kind == "new head":
            tuned[-1] = head
        user = Normalised(tuned, dataset, raw)
        parameters = head.parameters() if kind == "new head" else tuned.parameters()
        train(user, parameters, rest, setting.num_epochs, setting, torch_generator(seed, "fine-tuning"))
        found[kind] = judge(user, attack, dataset)
    return found


def judge(model: Normalised, attack: BadNets, dataset: Dataset) -> tuple[float, float]:
    """Attack success and clean accuracy."""
    success = measure_attack_success(model, attack, dataset.test).global_trigger
    assert success is not None
    right = model.logits(dataset.test.inputs).argmax(dim=1) == dataset.test.labels
    return success, float(right.double().mean())


def table(results: dict[tuple[str, bool], list[dict[str, tuple[float, float]]]]) -> str:
    """A row for each setting and kind of input."""
    lines = [
        "| | digits | stamped | optimiser | batch | epochs: provider, user | inputs | attack success: pretrained | "
        "all layers | new head | clean accuracy: all layers | new head |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for (name, raw), rows in results.items():
        setting = SETTINGS[name]
        cells = [np.array([row[kind][0] for row in rows]) for kind in ("pretrained", "all layers", "new head")]
        cells += [np.array([row[kind][1] for row in rows]) for kind in ("all layers", "new head")]
        texts = [f"{100 * one.mean():.1f} ± {100 * one.std(ddof=1) if len(one) > 1 else 0.0:.1f} %" for one in cells]
        lines.append(
            f"| {name} | {'all, shared' if setting.shared_examples else 'half each'} | {setting.poison_rate:.0%} | "
            f"{setting.optimiser} | {setting.batch_size} | {setting.num_pretraining_epochs}, {setting.num_epochs} | "
            f"{'[0, 1]' if raw else 'normalised'} | {' | '.join(texts)} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--quick", action="store_true", help="one seed, no file")
    options = parser.parse_args()
    torch.set_num_threads(1)
    seeds = options.seeds[:1] if options.quick else options.seeds
    cells = [(name, raw) for name in SETTINGS for raw in (False, True)]
    results: dict[tuple[str, bool], list[dict[str, tuple[float, float]]]] = {cell: [] for cell in cells}
    for name, raw, seed in track([(*cell, seed) for cell in cells for seed in seeds], description="fine-tuning"):
        results[name, raw].append(play(SETTINGS[name], seed, raw=raw))
    text = table(results)
    print(text)
    if not options.quick:
        (Path(__file__).parent / "adam.md").write_text(text + "\n")


if __name__ == "__main__":
    main()
