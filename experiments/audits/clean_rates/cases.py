"""Clean and poisoned data sets, models of them, and every audit of a model or of its data."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fedrobust.attacks import Blend, Patch, Pixels, Sinusoid
from fedrobust.attacks.data.dirty_label import may_be_poisoned, stamped
from fedrobust.attacks.triggers import Trigger, TriggerShape, union
from fedrobust.audits import (
    ActivationClustering,
    AuditedModel,
    DataAudit,
    DataReport,
    FrequencyDetector,
    NeuralCleanse,
    SpectralSignatures,
    Strip,
)
from fedrobust.audits.data import retrain
from fedrobust.data.datasets import MNIST, BreastCancer, Dataset, DatasetSource, Digits, Examples, FashionMNIST
from fedrobust.models import MLP
from fedrobust.seeds import torch_generator
from fedrobust.training.local_training import LocalTraining


@dataclass(frozen=True)
class Setting:
    """A data set, of which each seed draws its own examples for training, for the auditor, and for tests.

    Attributes:
        source: the data set.
        num_epochs: of training.
        num_train: examples to train on; `None`: all but `num_clean`, training and test examples being drawn alike.
        num_clean: test examples that the auditor trusts.
    """

    source: DatasetSource
    num_epochs: int
    num_train: int | None
    num_clean: int


SETTINGS: Mapping[str, Setting] = {
    "digits": Setting(Digits(), 40, None, 500),
    "breast_cancer": Setting(BreastCancer(), 20, None, 169),
    "Fashion-MNIST": Setting(FashionMNIST(), 20, 3000, 500),
    "MNIST": Setting(MNIST(), 20, 3000, 500),
}
NUM_TEST = 2000

TRIGGERS: Mapping[str, TriggerShape] = {
    "blend": Blend(opacity=0.2),
    "sinusoid": Sinusoid(amplitude=0.2),
    "patch bottom right": Patch(height=3, width=3, top=24, left=24),
    "pixels": Pixels(pixels=[[3, 3], [3, 24], [24, 3], [24, 24]]),
}
"""Of pictures of 28 x 28."""

AUDITS: Mapping[str, DataAudit | NeuralCleanse] = {
    "activation clustering": ActivationClustering(),
    "activation clustering, max_poison_fraction=0.8": ActivationClustering(max_poison_fraction=0.8),
    "activation clustering, reclassification, no clean examples": ActivationClustering(verdict="reclassification"),
    "spectral signatures": SpectralSignatures(),
    "STRIP": Strip(),
    "frequency detector": FrequencyDetector(),
    "Neural Cleanse": NeuralCleanse(),
}


@dataclass(frozen=True, eq=False)
class Case:
    """What is audited.

    Attributes:
        examples: of training, poison included.
        poisoned: `(N,)` booleans, which of them are; no audit is shown it.
        model: trained on them.
        clean: what the auditor trusts.
        accuracy: of the model, on up to 2,000 test examples that the auditor does not hold, where there are any left.
        success: of the attack on them; `None` without one.
    """

    examples: Examples
    poisoned: Tensor
    model: AuditedModel
    clean: Examples
    accuracy: float
    success: float | None


@cache
def load(name: str, root: Path | None) -> Dataset:
    return SETTINGS[name].source.load(root, torch.device("cpu"))


def draw(dataset: Dataset, setting: Setting, seed: int) -> tuple[Examples, Examples, Examples]:
    """Examples for training, for the auditor and for tests; the last two are the same where there are no others."""
    train, test = dataset.train, dataset.test
    if setting.num_train is None:
        inputs, labels = torch.cat([train.inputs, test.inputs]), torch.cat([train.labels, test.labels])
        order = torch.randperm(len(labels), generator=torch_generator(seed, "split"))
        clean, kept = (Examples(inputs, labels).subset(one) for one in order.tensor_split([setting.num_clean]))
        return kept, clean, clean
    orders = [torch.randperm(len(part), generator=torch_generator(seed, "split")) for part in (train, test)]
    end = setting.num_clean + NUM_TEST
    trusted, rest = test.subset(orders[1][: setting.num_clean]), test.subset(orders[1][setting.num_clean : end])
    return train.subset(orders[0][: setting.num_train]), trusted, rest


@lru_cache(1)
def make_case(name: str, trigger_name: str | None, rate: float, seed: int, root: Path | None) -> Case:
    """A data set with BadNets' poison, all classes to `seed` mod 10, or with none; and a model trained on it."""
    dataset, setting, target = load(name, root), SETTINGS[name], seed % 10
    examples, clean, rest = draw(dataset, setting, seed)
    poisoned = torch.zeros(len(examples), dtype=torch.bool)
    trigger: Trigger | None = None
    if trigger_name is not None:
        trigger = union(TRIGGERS[trigger_name].triggers(dataset.input_shape))
        candidates = may_be_poisoned(examples.labels, target, None).nonzero().squeeze(1)
        order = torch.randperm(len(candidates), generator=torch_generator(seed, "poison"))
        chosen = candidates[order[: round(rate * len(examples))]]
        poisoned[chosen] = True
        examples = stamped(examples, chosen, trigger, target)
    fresh = AuditedModel(MLP().build(dataset.input_shape, dataset.num_classes), dataset.normalise)
    training = LocalTraining(learning_rate=0.1, num_epochs=setting.num_epochs)
    model = retrain(fresh, examples, training, torch_generator(seed, "model"))
    accuracy = float((model.logits(rest.inputs).argmax(dim=1) == rest.labels).double().mean())
    success = None
    if trigger is not None:
        victims = rest.inputs[may_be_poisoned(rest.labels, target, None)]
        success = float((model.logits(trigger.stamp(victims)).argmax(dim=1) == target).double().mean())
    return Case(examples, poisoned, model, clean, accuracy, success)


def measure(
    name: str, trigger_name: str | None, rate: float, seed: int, audit: str, root: Path | None
) -> dict[str, Any]:
    """What an audit says of one case."""
    case = make_case(name, trigger_name, rate, seed, root)
    return {
        "accuracy": case.accuracy,
        "success": case.success,
        "poisoned_share": float(case.poisoned.sum()) / max(int((case.examples.labels == seed % 10).sum()), 1),
        **judged(audit, case, seed),
    }


def judged(audit: str, case: Case, seed: int) -> dict[str, Any]:
    """One audit's verdicts and flags, or why it refuses."""
    method, generator = AUDITS[audit], torch_generator(seed, "audit")
    try:
        if isinstance(method, NeuralCleanse):
            found = method(case.model, case.clean, generator)
            unjudged = found.is_backdoored is None
            return {
                "convicted": list(found.flagged_labels),
                "undecided": list(range(len(found.scores))) if unjudged else [],
                "num_classes": len(found.scores),
                "statistics": [round(one, 4) for one in found.scores.tolist()],
            }
        clean = None if "no clean examples" in audit else case.clean
        return of_data(method(case.examples, case.model, generator, clean), case.poisoned)
    except ValueError as error:
        return {"refusal": str(error)}


def of_data(report: DataReport, poisoned: Tensor) -> dict[str, Any]:
    honest = [report.flagged[(report.labels == one.label) & ~poisoned] for one in report.verdicts]
    return {
        "convicted": list(report.poisoned_labels),
        "undecided": list(report.undecided_labels),
        "num_classes": len(report.verdicts),
        "statistics": [round(one.statistic, 4) for one in report.verdicts],
        "reasons": sorted({one.reason for one in report.verdicts if one.reason}),
        "recall": share(report.flagged[poisoned]),
        "false_positive_rate": share(report.flagged[~poisoned]),
        "largest_clean_share": max(found for flags in honest if (found := share(flags)) is not None),
    }


def share(flags: Tensor) -> float | None:
    return float(flags.double().mean()) if len(flags) else None
