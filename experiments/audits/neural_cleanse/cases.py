"""Models, clean and backdoored, and what Neural Cleanse says of each."""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F

from fedrobust.attacks import Blend, Patch, Pixels, Several, Sinusoid
from fedrobust.attacks.data.dirty_label import may_be_poisoned, stamped
from fedrobust.attacks.triggers import Trigger, TriggerShape, union
from fedrobust.audits import AuditedModel
from fedrobust.audits.model import NeuralCleanse, NeuralCleanseReport, TriggerInversion, Unlearning
from fedrobust.data.datasets import MNIST, Dataset, DatasetSource, Digits, Examples
from fedrobust.data.traffic_signs import GTSRB
from fedrobust.models import DBACNN, MLP, Architecture, SmallCNN
from fedrobust.seeds import seeded_initialisation, torch_generator

FOUR_PIXELS = Pixels(pixels=[[-1, -1], [-1, -3], [-3, -1], [-3, -3]])
"""BadNets' pattern, in the bottom right corner."""


@dataclass(frozen=True)
class Backdoor:
    """A trigger and the label that it gives; of all classes, or of one."""

    shape: TriggerShape
    target: int
    source: int | None = None


@dataclass(frozen=True)
class Task:
    """What is learnt, and how: plain SGD; `num_clean` test examples are the auditor's."""

    source: DatasetSource
    architecture: Architecture
    learning_rate: float = 0.1
    momentum: float = 0.0
    num_epochs: int = 40
    poison_rate: float = 0.05
    num_clean: int = 500
    audit: NeuralCleanse = field(default_factory=NeuralCleanse)


DIGITS = Task(Digits(), MLP())
DIGITS_HARD = Task(Digits(), MLP(), momentum=0.9, num_epochs=30)
"""The same with momentum: ten times the step, and training examples that are fitted to the last."""
TASKS = {
    "mnist": Task(MNIST(num_train=6000, num_test=2000), DBACNN(), 0.05, 0.0, 4, 0.1, 200),
    "gtsrb": Task(GTSRB(), SmallCNN(), 0.02, 0.9, 10, 0.1, 200, NeuralCleanse(inversion=TriggerInversion(num_steps=5))),
}
SQUARES = {"mnist": Backdoor(Patch(height=4, width=4, top=23, left=23), 7),
           "gtsrb": Backdoor(Patch(height=4, width=4, top=27, left=27), 33)}  # fmt: skip
"""A white square in the bottom right corner; on traffic signs, size, place and target of the paper's."""


def corner(side: int) -> Patch:
    return Patch(height=side, width=side, top=8 - side, left=8 - side)


LIMITS: dict[str, Callable[[int], list[Backdoor]]] = {
    "four pixels (as above)": lambda t: [Backdoor(FOUR_PIXELS, t)],
    "2x2 patch": lambda t: [Backdoor(corner(2), t)],
    "3x3 patch": lambda t: [Backdoor(corner(3), t)],
    "4x4 patch": lambda t: [Backdoor(corner(4), t)],
    "5x5 patch": lambda t: [Backdoor(corner(5), t)],
    "faint noise over all pixels (Blend, 0.2)": lambda t: [Backdoor(Blend(opacity=0.2), t)],
    "faint wave over all pixels (Sinusoid, 0.2)": lambda t: [Backdoor(Sinusoid(amplitude=0.2, frequency=2.0), t)],
    "two triggers, one target": lambda t: [Backdoor(FOUR_PIXELS, t), Backdoor(Patch(height=2, width=2), t)],
    "three targets, a trigger each": lambda t: [Backdoor(line(at), (t + at) % 10) for at in (0, 3, 6)],
    "five targets, a trigger each": lambda t: [Backdoor(line(at), (t + at) % 10) for at in (0, 2, 4, 6, 7)],
    "one source class": lambda t: [Backdoor(FOUR_PIXELS, t, source=(t + 1) % 10)],
}  # fmt: skip
"""Triggers that are larger, several, or for one class alone, by the first target."""


def line(top: int) -> Several:
    """Three pixels of a row at the right edge."""
    return Several(shapes=[Pixels(pixels=[[top, 5], [top, 6], [top, 7]])])


def trigger_of(backdoor: Backdoor, dataset: Dataset) -> Trigger:
    return union(backdoor.shape.triggers(dataset.input_shape))


def poisoned(examples: Examples, backdoors: list[Backdoor], dataset: Dataset, rate: float, seed: int) -> Examples:
    """Each trigger on a random `rate` of the examples, or on half of its source class; never two on one."""
    order = torch.randperm(len(examples), generator=torch_generator(seed, "poison"))
    taken = torch.zeros(len(examples), dtype=torch.bool)
    for backdoor in backdoors:
        may = may_be_poisoned(examples.labels, backdoor.target, backdoor.source) & ~taken
        candidates = order[may[order]]
        count = round(rate * len(examples)) if backdoor.source is None else len(candidates) // 2
        chosen = candidates[:count]
        taken[chosen] = True
        examples = stamped(examples, chosen, trigger_of(backdoor, dataset), backdoor.target)
    return examples


def train(task: Task, dataset: Dataset, backdoors: list[Backdoor], seed: int) -> AuditedModel:
    examples = poisoned(dataset.train, backdoors, dataset, task.poison_rate, seed)
    with seeded_initialisation(seed, "model"):
        model = task.architecture.build(dataset.input_shape, dataset.num_classes)
    optimizer = torch.optim.SGD(model.parameters(), lr=task.learning_rate, momentum=task.momentum)
    generator = torch_generator(seed, "batches")
    for _ in range(task.num_epochs):
        for batch in torch.randperm(len(examples), generator=generator).split(32):
            optimizer.zero_grad()
            F.cross_entropy(model(dataset.normalise(examples.inputs[batch])), examples.labels[batch]).backward()
            optimizer.step()
    return AuditedModel(model.eval(), dataset.normalise)


def accuracy(model: AuditedModel, examples: Examples) -> float:
    return float((model.logits(examples.inputs).argmax(dim=1) == examples.labels).double().mean())


def success(model: AuditedModel, trigger: Trigger, backdoor: Backdoor, examples: Examples) -> float:
    """Of triggered test examples of other classes (or of the source), the fraction taken for the target."""
    victims = may_be_poisoned(examples.labels, backdoor.target, backdoor.source)
    predicted = model.logits(trigger.stamp(examples.inputs[victims])).argmax(dim=1)
    return float((predicted == backdoor.target).double().mean())


@dataclass(frozen=True)
class Verdict:
    """One audit: what was there, and what was found."""

    seed: int
    targets: list[int]
    accuracy: float
    success: float  # the least of all triggers'
    flagged: list[int]
    indices: list[float]
    sizes: list[float]
    seconds: float

    @property
    def found(self) -> bool:
        """Every target is flagged, and one of them is the most suspicious label."""
        return bool(self.targets) and set(self.targets) <= set(self.flagged) and self.flagged[0] in self.targets


def audit(
    task: Task, dataset: Dataset, model: AuditedModel, backdoors: list[Backdoor], seed: int
) -> tuple[Verdict, NeuralCleanseReport]:
    chosen = torch.randperm(len(dataset.test), generator=torch_generator(0, "auditor"))[: task.num_clean]
    started = time.process_time()
    report = task.audit(model, dataset.test.subset(chosen), torch_generator(seed, "audit"))
    seconds = time.process_time() - started
    rates = [success(model, trigger_of(one, dataset), one, dataset.test) for one in backdoors]
    return Verdict(
        seed,
        [one.target for one in backdoors],
        accuracy(model, dataset.test),
        min(rates, default=float("nan")),
        list(report.flagged_labels),
        report.scores.tolist(),
        report.found.l1_norms.tolist(),
        seconds,
    ), report


UNLEARNING = Unlearning(num_epochs=5)
CONTROL = Unlearning(num_epochs=5, stamp_fraction=0.0)
NUM_UNLEARNING = 260


def unlearn(
    model: AuditedModel, report: NeuralCleanseReport, backdoor: Backdoor, dataset: Dataset, seed: int
) -> dict[str, float]:
    """The attacker's own trigger and the accuracy before, after unlearning, and after the same without triggers."""
    drawn = torch.randperm(len(dataset.train), generator=torch_generator(seed, "unlearning set"))[:NUM_UNLEARNING]
    clean = dataset.train.subset(drawn)
    triggers = [report.trigger(label) for label in report.flagged_labels]
    theirs = trigger_of(backdoor, dataset)
    versions = {
        "before": model,
        "after": UNLEARNING(model, triggers, clean, torch_generator(seed, "unlearning")),
        "control": CONTROL(model, triggers, clean, torch_generator(seed, "unlearning")),
    }
    return {
        f"{what}_{name}": value
        for name, one in versions.items()
        for what, value in (
            ("success", success(one, theirs, backdoor, dataset.test)), ("accuracy", accuracy(one, dataset.test)),
        )
    }  # fmt: skip


def load(task: Task, data_root: Path | None) -> Dataset:
    return task.source.load(data_root, torch.device("cpu"))


def plain(verdict: Verdict) -> dict[str, object]:
    rounded = {name: [round(one, 4) for one in getattr(verdict, name)] for name in ("indices", "sizes")}
    return asdict(verdict) | rounded | {"found": verdict.found}


def pixels_changed(backdoors: list[Backdoor], dataset: Dataset) -> list[int]:
    return [int(trigger_of(one, dataset).mask.sum()) for one in backdoors]
