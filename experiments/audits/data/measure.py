"""What each audit finds in a case, against what is known to be poisoned."""

from typing import Any

import torch
from cases import Case, Setting, make_trigger, poison, success_and_accuracy, train
from sklearn.metrics import roc_auc_score
from torch import Tensor

from fedrobust.audits import (
    ActivationClustering,
    AuditedModel,
    DataReport,
    FrequencyDetector,
    SpectralSignatures,
    Strip,
)
from fedrobust.data.datasets import Examples
from fedrobust.seeds import torch_generator

FALSE_POSITIVE_RATE = 0.05
NUM_CLEAN = 400
"""Test pictures that the auditor trusts."""

NUM_FRESH = 250
"""Other test pictures, whose false positives are counted."""

NUM_REFERENCE = 500
"""Test examples that clustering has: with 10 classes some 50 of each."""

VERDICTS = ("reference", "reclassification", "silhouette", "size")
"""The first by clean examples; the paper's three as they are in the paper, without any."""


def measure(case: Case, setting: Setting) -> dict[str, Any]:
    """One model, and the audits that read it: clustering not on CIFAR-10, STRIP and a new training not on digits."""
    examples, poisoned, trigger = poison(case, setting)
    model = train(case, setting, examples, "model")
    success, accuracy = success_and_accuracy(case, setting, model, trigger)
    record: dict[str, Any] = {
        "setting": case.setting, "trigger": case.trigger, "share": case.share, "source": case.source,
        "seed": case.seed, "num_poisoned": int(poisoned.sum()), "success": success, "accuracy": accuracy,
    }  # fmt: skip
    for verdict in VERDICTS if case.setting != "cifar10" else ():
        audit = ActivationClustering(layer=setting.layer, training=setting.training, verdict=verdict)
        clean = setting.dataset.test.subset(torch.arange(NUM_REFERENCE)) if verdict == "reference" else None
        report = audit(examples, model, torch_generator(case.seed, "audit"), clean)
        record[verdict] = class_verdicts(case, report)
        if verdict == "reference":
            record["clustering"] = clustering_quality(case, report, poisoned)
    record["spectral"] = spectral(case, setting, examples, poisoned, model)
    if case.setting != "digits":
        record["strip"] = strip(case, setting, model)
    return record


def class_verdicts(case: Case, report: DataReport) -> dict[str, Any]:
    clean = [verdict for verdict in report.verdicts if case.share == 0 or verdict.label != case.target]
    return {
        "target_convicted": case.target in report.poisoned_labels,
        "clean_convicted": sum(bool(verdict.is_poisoned) for verdict in clean),
        "clean_undecided": sum(verdict.is_poisoned is None for verdict in clean),
        "target_undecided": case.target in report.undecided_labels,
        "num_clean": len(clean),
        "target_statistic": next(one.statistic for one in report.verdicts if one.label == case.target),
        "clean_statistics": [verdict.statistic for verdict in clean],
    }


def clustering_quality(case: Case, report: DataReport, poisoned: Tensor) -> dict[str, float]:
    """F1 of the target class's smaller cluster against the poison; of all that is flagged; and the scores' AUC."""
    of_class = report.labels == case.target
    if not bool(poisoned.any()):
        return {"flagged": float(report.flagged.double().mean())}
    return {
        "f1_in_class": f1(report.scores[of_class] > 0, poisoned[of_class]),
        "recall": float(report.flagged[poisoned].double().mean()),
        "f1_flagged": f1(report.flagged, poisoned),
        "auc": auc(report.scores[of_class], poisoned[of_class]),
    }


def spectral(case: Case, setting: Setting, examples: Examples, poisoned: Tensor, model: AuditedModel) -> dict[str, Any]:
    """With the true share as the bound; random removal of as many examples of the class finds their share of it."""
    if not bool(poisoned.any()) or case.setting == "digits":
        report = SpectralSignatures()(examples, model, torch_generator(case.seed, "audit"))
        return class_verdicts(case, report)
    audit = SpectralSignatures(max_poison_fraction=case.share)
    report = audit(examples, model, torch_generator(case.seed, "audit"))
    of_class = report.labels == case.target
    anew = train(case, setting, report.kept(examples), "anew")
    success, accuracy = success_and_accuracy(
        case, setting, anew, make_trigger(case.trigger, setting.dataset.input_shape)
    )
    return {
        **class_verdicts(case, report),
        "recall": float(report.flagged[poisoned].double().mean()),
        "random_recall": float(report.flagged[of_class].double().mean()),
        "auc": auc(report.scores[of_class], poisoned[of_class]),
        "left": int((poisoned & ~report.flagged).sum()),
        "success_after": success,
        "accuracy_after": accuracy,
    }


def strip(case: Case, setting: Setting, model: AuditedModel) -> dict[str, float]:
    """Fresh clean test pictures against triggered ones of the source class, all that the auditor does not trust."""
    test = setting.dataset.test
    clean, rest = (test.subset(rows) for rows in torch.arange(len(test)).tensor_split([NUM_CLEAN]))
    victims = rest.inputs[rest.labels == case.source]
    triggered = make_trigger(case.trigger, setting.dataset.input_shape).stamp(victims)
    fresh = rest.inputs[:NUM_FRESH]
    labels = torch.zeros(len(fresh) + len(triggered), dtype=torch.int64)
    shown = Examples(torch.cat([fresh, triggered]), labels)
    audit = Strip(false_positive_rate=FALSE_POSITIVE_RATE, num_overlays=20)
    return rates(audit(shown, model, torch_generator(case.seed, "strip"), clean=clean), len(fresh))


def measure_frequency(setting: Setting, triggers: tuple[str, ...], seed: int, num_epochs: int) -> dict[str, Any]:
    """One detector, trained on the training pictures as they are, and each trigger on all of the test pictures."""
    generator = torch_generator(seed, "frequency")
    audit = FrequencyDetector(false_positive_rate=FALSE_POSITIVE_RATE, num_epochs=num_epochs)
    detector = audit.train(setting.dataset.train, generator)
    inputs = setting.dataset.test.inputs
    clean = detector.scores(inputs)
    found: dict[str, Any] = {"seed": seed, "fpr": float((clean > detector.threshold).double().mean()), "triggers": {}}
    for name in triggers:
        scores = detector.scores(make_trigger(name, setting.dataset.input_shape).stamp(inputs))
        truth = torch.arange(2 * len(clean)) >= len(clean)
        found["triggers"][name] = {
            "auc": auc(torch.cat([clean, scores]), truth),
            "tpr": float((scores > detector.threshold).double().mean()),
        }
    return found


def rates(report: DataReport, num_clean: int) -> dict[str, float]:
    """Of a report whose first examples are clean and whose others are triggered."""
    truth = torch.arange(len(report.flagged)) >= num_clean
    return {
        "auc": auc(report.scores, truth),
        "tpr": float(report.flagged[truth].double().mean()),
        "fpr": float(report.flagged[~truth].double().mean()),
    }


def f1(found: Tensor, truth: Tensor) -> float:
    return 2 * int((found & truth).sum()) / max(int(found.sum()) + int(truth.sum()), 1)


def auc(scores: Tensor, truth: Tensor) -> float:
    return float(roc_auc_score(truth.numpy(), scores.numpy()))
