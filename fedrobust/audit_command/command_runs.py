"""What `fedrobust-audit` does once its options are read: audit, print, write the results."""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from safetensors.torch import save_file

from fedrobust.audit_command.command_output import (
    label_name,
    print_classes,
    print_labels,
    progress,
    spinner,
    table_of_pictures,
)
from fedrobust.audit_command.model_files import read_weights
from fedrobust.audit_command.picture_folder import read_picture_folder
from fedrobust.audit_command.subject import Reading, RunSetting, Subject, build_part, check_weights, read_subject
from fedrobust.audits.audited_model import AuditedModel
from fedrobust.audits.base import DataAudit
from fedrobust.audits.model import NeuralCleanse, NeuralCleanseReport, Unlearning, WatermarkOwnership, WeightHash
from fedrobust.config.building import build
from fedrobust.data.examples import Examples
from fedrobust.figures.style import save_figure
from fedrobust.records.files import to_json, write_atomically
from fedrobust.seeds import torch_generator
from fedrobust.watermarks.ownership import binomial_p_value

TARGETS = {
    "neural_cleanse": "fedrobust.audits.model.NeuralCleanse",
    "spectral_signatures": "fedrobust.audits.data.SpectralSignatures",
    "activation_clustering": "fedrobust.audits.data.ActivationClustering",
    "frequency": "fedrobust.audits.data.FrequencyDetector",
    "strip": "fedrobust.audits.data.Strip",
}
PARTS: Mapping[str, Mapping[str, Any]] = {
    "inversion": {"_target_": "fedrobust.audits.model.TriggerInversion"},
    "training": {"_target_": "fedrobust.training.local_training.LocalTraining", "num_epochs": 10},
}
"""Of audits, with what they have by default where it is not the component's own."""
QUICK_CHECKS = 20
_LOW_ACCURACY = 0.5
_CHANCE = 1e-3
"""A model that guesses is as often right as one that is read wrongly with at least this probability."""


def audit_model(options: argparse.Namespace, reading: Reading) -> bool:
    """Neural Cleanse; returns whether the model is taken for backdoored.

    Raises:
        ValueError: something cannot be read.
    """
    audit = _component(options)
    assert isinstance(audit, NeuralCleanse)
    subject = read_subject(options.model, options.data, reading)
    accuracy = _describe(subject)
    with progress("inverting triggers") as on_check:
        report = audit(subject.model, subject.examples, torch_generator(options.seed, "audit"), on_check)
    print_labels(report, subject)
    values = _common(options, subject, accuracy) | {
        "is_backdoored": report.is_backdoored,
        "flagged_labels": list(report.flagged_labels),
        "threshold": report.threshold,
        "warning": report.warning,
        "labels": [
            {
                "label": label,
                "name": label_name(subject, label),
                "mask_size": float(report.found.l1_norms[label]),
                "success_rate": float(report.found.success_rates[label]),
                "anomaly_index": float(report.scores[label]),
                "flagged": bool(report.flagged[label]),
            }
            for label in range(len(report.scores))
        ],
    }
    options.out.mkdir(parents=True, exist_ok=True)
    found = {"masks": report.found.masks, "patterns": report.found.patterns}
    save_file({name: tensor.contiguous() for name, tensor in found.items()}, options.out / "triggers.safetensors")
    if options.unlearn and report.flagged_labels:
        values["accuracy_after_unlearning"] = _unlearn(report, subject, options)
    save_figure(report.plot(), options.out / "report.png")
    _write_json(options.out, values)
    return bool(report.is_backdoored)


def audit_data(options: argparse.Namespace, reading: Reading) -> bool:
    """An audit of the pictures in a folder; returns whether a class is convicted.

    Raises:
        ValueError: something cannot be read.
    """
    audit = _component(options)
    assert isinstance(audit, DataAudit)
    if options.data is None:
        raise ValueError("--data: must be given, the pictures to audit, with a subfolder for each class")
    if options.audit in ("frequency", "strip") and options.clean is None and "detector_file" not in str(options.set):
        raise ValueError(f"--clean: must be given for {options.audit}, pictures that are known to be clean")
    subject: Subject | None = None
    if options.model is not None:
        subject = read_subject(options.model, options.data, reading)
        accuracy, model = _describe(subject), subject.model
        examples, names, paths = subject.examples, subject.class_names, subject.paths
    else:
        if options.audit != "frequency" or reading.input_size is None:
            raise ValueError(
                "MODEL: must be given, trained on these pictures; frequency needs none, but then --input-size"
            )
        folder = read_picture_folder(
            options.data, (3, *reading.input_size), reading.max_examples, reading.seed, classes=reading.classes
        )
        examples, names, paths, model, accuracy = folder.examples, folder.class_names, folder.paths, None, None
    clean = None
    if options.clean is not None:
        channels, height, width = examples.inputs.shape[1:]
        clean = read_picture_folder(
            options.clean, (channels, height, width), None, options.seed, option="--clean", classes=reading.classes
        ).examples
    with spinner(f"auditing {len(examples)} pictures"):
        report = audit(examples, model, torch_generator(options.seed, "audit"), clean)
    print_classes(report, names)
    values = _common(options, subject, accuracy) | {
        "num_examples": len(examples),
        "poisoned_labels": list(report.poisoned_labels),
        "score": report.score_name,
        "score_threshold": report.score_threshold,
        "statistic": report.statistic_name,
        "statistic_threshold": report.statistic_threshold,
        "uncalibrated": report.uncalibrated,
        "classes": [
            {
                "label": one.label,
                "name": names[one.label],
                "is_poisoned": one.is_poisoned,
                "statistic": one.statistic,
                "num_examples": one.num_examples,
                "num_flagged": int(report.flagged[report.labels == one.label].sum()),
                "reason": one.reason,
            }
            for one in report.verdicts
        ],
    }
    options.out.mkdir(parents=True, exist_ok=True)
    assert paths is not None  # they were read from a folder
    write_atomically(options.out / "pictures.csv", table_of_pictures(report, names, paths).encode())
    save_figure(report.plot(), options.out / "report.png")
    _write_json(options.out, values)
    return bool(report.poisoned_labels)


def audit_hash(options: argparse.Namespace) -> bool:
    """Hash a model's weights; returns whether they differ from those expected.

    Raises:
        ValueError: something cannot be read.
    """
    weights = read_weights(options.model / "model.safetensors" if options.model.is_dir() else options.model)
    if options.model.is_dir() and options.expect is None:
        try:
            check_weights(weights, options.model)  # what is hashed now is what later models are compared with
        except ValueError as error:
            raise ValueError(f"{options.model}: {error}") from None
    known = WeightHash.of(weights)
    values: dict[str, Any] = {"audit": "weight_hash", "model_file": str(options.model), "weight_hash": known.to_json()}
    print(f"{len(weights)} tensors, SHA-256 {known.model}")
    changed = False
    if options.expect is not None:
        try:
            record = json.loads(options.expect.read_text("utf-8"))
            expected = WeightHash.from_json(record["weight_hash"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            reason = " ".join(str(error).split())
            raise ValueError(
                f"--expect: must be a report.json of weight_hash, got {options.expect} ({reason})"
            ) from None
        check = expected.verify(weights)
        changed = not check.is_intact
        values |= {"is_intact": check.is_intact, **{name: list(names) for name, names in vars(check).items()}}
        print(f"compared with {options.expect}: {check.summary()}")
    options.out.mkdir(parents=True, exist_ok=True)
    _write_json(options.out, values)
    return changed


def audit_watermark(options: argparse.Namespace, reading: Reading) -> bool:
    """Ask a model for the trigger set of the owner's run; returns whether it carries the watermark.

    Raises:
        ValueError: something cannot be read, or the owner's run has no watermark.
    """
    owner = options.owner or options.model
    run = RunSetting.of(owner, reading)
    try:
        watermark = build_part({"watermark": None, **run.values}, "watermark")
        mark = watermark.draw(run.dataset, run.values["seed"], run.data_root) if watermark is not None else None
    except (KeyError, ValueError) as error:
        raise ValueError(f"{owner}: {' '.join(str(error).split())}") from None
    if mark is None:
        raise ValueError(f"{owner}: must be a run with a watermark, got watermark=none")
    if not options.unmarked and not mark.triggers.has_random_labels:
        raise ValueError(f"--unmarked: must be given, as the triggers of {owner} do not have random labels")
    references = tuple(run.model(path) for path in options.unmarked)
    report = WatermarkOwnership(mark.triggers, references)(
        run.model(options.model), run.dataset.test, torch_generator(options.seed, "audit")
    )
    print(report.summary())
    options.out.mkdir(parents=True, exist_ok=True)
    save_figure(report.plot(), options.out / "report.png")
    files = {"model_file": str(options.model), "owner": str(owner), "unmarked": list(map(str, options.unmarked))}
    _write_json(options.out, {"audit": "watermark", **files, **vars(report.ownership)})
    return report.is_backdoored


def _component(options: argparse.Namespace) -> Any:
    """The audit with the settings of `--set KEY=VALUE`; a key may go into a part, as inversion.num_checks."""
    quick = [f"inversion.num_checks={QUICK_CHECKS}"] if options.quick and options.audit == "neural_cleanse" else []
    wrong = [text for text in options.set if "=" not in text]
    if wrong:
        raise ValueError(f"--set: must be KEY=VALUE, got {wrong[0]!r}")
    try:
        settings = OmegaConf.to_container(OmegaConf.from_dotlist([*quick, *options.set]))
    except Exception as error:  # what the YAML parser raises has no type in OmegaConf's terms
        raise ValueError(f"--set: cannot be read ({' '.join(str(error).split())})") from None
    assert isinstance(settings, dict)
    for key, part in {"": settings, **settings}.items():
        if isinstance(part, Mapping) and "_target_" in part:
            raise ValueError(f"--set: {f'{key}._target_'.lstrip('.')} cannot be set")
    parts = {
        key: {**PARTS[str(key)], **value}
        for key, value in settings.items()
        if key in PARTS and isinstance(value, Mapping)
    }
    return build({"_target_": TARGETS[options.audit], **settings, **parts}, "--set")


def _describe(subject: Subject) -> float:
    """Say what is audited; returns the model's accuracy on it, which tells whether it was read rightly.

    Raises:
        ValueError: the model cannot read the examples.
    """
    examples = subject.examples
    try:
        logits = subject.model.logits(examples.inputs)
    except RuntimeError as error:  # pooling that leaves nothing of them, say
        size, reason = "x".join(map(str, examples.inputs.shape[1:])), " ".join(str(error).split())
        raise ValueError(f"--input-size: must be one that the model can read, got {size} ({reason})") from None
    is_right = logits.argmax(dim=1).cpu() == examples.labels
    accuracy, num_classes = float(is_right.double().mean()), logits.shape[1]
    print(subject.description)
    print(f"{len(examples)} examples of {len(examples.labels.unique())} classes, accuracy {100 * accuracy:.1f} %")
    if binomial_p_value(int(is_right.sum()), len(examples), 1 / num_classes) > _CHANCE:
        raise ValueError(
            f"no verdict: the model is right about {int(is_right.sum())} of {len(examples)} pictures of {num_classes} "
            "classes, no better than chance; are --mean and --std those that it was trained with, and the subfolders "
            "those of its labels (--classes)?"
        )
    if accuracy < _LOW_ACCURACY:
        print(
            "warning: the model is wrong about most examples; are --mean and --std those that it was trained with, and "
            "the subfolders' names in the order of its labels?"
        )
    return accuracy


def _unlearn(report: NeuralCleanseReport, subject: Subject, options: argparse.Namespace) -> float:
    triggers = [report.trigger(label) for label in report.flagged_labels]
    cleansed = Unlearning()(subject.model, triggers, subject.examples, torch_generator(options.seed, "unlearning"))
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in cleansed.module.state_dict().items()}
    save_file(state, options.out / "unlearned.safetensors")
    examples = subject.examples
    right = cleansed.logits(examples.inputs).argmax(dim=1).cpu() == examples.labels
    accuracy = float(right.double().mean())
    print(f"unlearned on these examples: accuracy {100 * accuracy:.1f} %")
    for label, trigger in zip(report.flagged_labels, triggers, strict=True):
        before, after = (_success(model, trigger, label, examples) for model in (subject.model, cleansed))
        print(f"success of the trigger for label {label}: {before:.1f} % before, {after:.1f} % after")
    return accuracy


def _success(model: AuditedModel, trigger: Any, label: int, examples: Examples) -> float:
    """Of the examples of other classes with the trigger, the per cent taken for `label`."""
    inputs = trigger.stamp(examples.inputs[examples.labels != label])
    return 100 * float((model.logits(inputs).argmax(dim=1) == label).double().mean())


def _common(options: argparse.Namespace, subject: Subject | None, accuracy: float | None) -> dict[str, Any]:
    return {
        "audit": options.audit,
        "model_file": None if options.model is None else str(options.model),
        "data": None if options.data is None else str(options.data),
        "seed": options.seed,
        "quick": options.quick,
        "settings": list(options.set),
        "subject": None if subject is None else subject.description,
        "num_examples": None if subject is None else len(subject.examples),
        "accuracy": accuracy,
    }


def _write_json(folder: Path, values: Mapping[str, Any]) -> None:
    write_atomically(folder / "report.json", (to_json(values, indent=2) + "\n").encode())
