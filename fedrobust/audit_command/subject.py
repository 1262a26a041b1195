"""What `fedrobust-audit` audits: a model and pictures from files, or the model of a run's folder."""

import contextlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fedrobust.audit_command.model_files import load_model, read_weights
from fedrobust.audit_command.picture_folder import PictureFolder, is_label, read_picture_folder
from fedrobust.audits.audited_model import AuditedModel
from fedrobust.config.building import build
from fedrobust.config.component import FieldError, check_fields
from fedrobust.config.foreign import check_foreign, read_foreign
from fedrobust.data.datasets import DatasetSource
from fedrobust.data.examples import Dataset, Examples
from fedrobust.devices import select_device
from fedrobust.models import Architecture
from fedrobust.records.checkpoint import Checkpoint, CheckpointError
from fedrobust.seeds import torch_generator
from fedrobust.watermarks import NoWatermark, Watermark

_BUILT_GROUPS = ("dataset", "model", "watermark")
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True, eq=False)
class Subject:
    """A model and examples that it can read.

    Attributes:
        model: takes raw inputs.
        examples: on the CPU; from a folder of pictures or, for a run, of the data set's test examples.
        class_names: of the labels, where they are known.
        paths: of each picture, or `None` for a data set's.
        description: what was read, for people.
    """

    model: AuditedModel
    examples: Examples
    class_names: tuple[str, ...]
    paths: tuple[Path, ...] | None
    description: str


@dataclass(frozen=True)
class Reading:
    """How files are to be read; see the command's help.

    Attributes:
        device: as in a config.
        seed: chooses the examples.
        max_examples: read at most; `None` reads all.
        architecture: of a file of weights.
        input_size: (H, W).
        mean: of the normalisation, one number or one a channel; `None` goes by the architecture.
        std: likewise.
        data_root: where a run's data set lies.
        trust: modules whose components a run's config may name.
        classes: names of subfolders in the order of the labels.
    """

    device: str = "auto"
    seed: int = 0
    max_examples: int | None = None
    architecture: str | None = None
    input_size: tuple[int, int] | None = None
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None
    data_root: Path | None = None
    trust: Sequence[str] = ()
    classes: Sequence[str] | None = None


def read_subject(path: Path, data: Path | None, reading: Reading) -> Subject:
    """The model in `path`, a file of weights or the folder of a run, and pictures below `data`.

    Raises:
        ValueError: something cannot be read; the message names it and what is allowed.
    """
    return read_run(path, data, reading) if path.is_dir() else read_files(path, data, reading)


def read_files(path: Path, data: Path | None, reading: Reading) -> Subject:
    """A file of weights, and a folder of pictures.

    Raises:
        ValueError: see `read_subject`.
    """
    if not path.exists():
        raise ValueError(f"MODEL: must be a file of weights or the folder of a run, and there is no {str(path)!r}")
    if reading.architecture is None:
        raise ValueError(f"--architecture: must be given for {path}: a file of weights does not say which it is")
    if data is None:
        raise ValueError("--data: must be given, a folder with a subfolder of pictures for each class")
    loaded = load_model(path, reading.architecture, reading.input_size)
    device = _device(reading.device)
    folder = read_picture_folder(data, loaded.input_shape, reading.max_examples, reading.seed, classes=reading.classes)
    _check_classes(folder, loaded.num_classes)
    default = (IMAGENET_MEAN, IMAGENET_STD) if loaded.is_torchvision else ((0.0,), (1.0,))
    mean = _per_channel("--mean", reading.mean or default[0], loaded.input_shape[0], device)
    std = _per_channel("--std", reading.std or default[1], loaded.input_shape[0], device)
    if not bool((std > 0).all()):
        raise ValueError(f"--std: must be positive, got {list(reading.std or ())}")
    size = "x".join(map(str, loaded.input_shape))
    source = "torchvision's" if loaded.is_torchvision else "fedrobust's"
    return Subject(
        AuditedModel(loaded.module.eval().to(device), lambda inputs: (inputs - mean) / std),
        folder.examples,
        folder.class_names,
        folder.paths,
        f"{path}: {source} {reading.architecture}, {loaded.num_classes} classes, inputs {size}, normalised by mean "
        f"{mean.flatten().tolist()} and std {std.flatten().tolist()}",
    )


def read_run(path: Path, data: Path | None, reading: Reading) -> Subject:
    """The last model of a run; test examples of its data set, or pictures below `data`.

    Raises:
        ValueError: see `read_subject`.
    """
    run = RunSetting.of(path, reading)
    dataset, model = run.dataset, run.model(path)
    description = f"{path}: {type(run.architecture).__name__} on {dataset.name}, {dataset.num_classes} classes"
    if data is not None:
        if dataset.kind != "image":
            raise ValueError(f"--data: is for models of pictures, and {dataset.name} has none")
        channels, height, width = dataset.input_shape
        folder = read_picture_folder(
            data, (channels, height, width), reading.max_examples, reading.seed, classes=reading.classes
        )
        _check_classes(folder, dataset.num_classes)
        return Subject(model, folder.examples, folder.class_names, folder.paths, description)
    order = torch.randperm(len(dataset.test), generator=torch_generator(reading.seed, "pictures"))
    examples = dataset.test.subset(order[: reading.max_examples]).to(torch.device("cpu"))
    return Subject(model, examples, tuple(map(str, range(dataset.num_classes))), None, description)


@dataclass(frozen=True, eq=False)
class RunSetting:
    """What a run's folder says of its data set and its architecture.

    Attributes:
        values: the run's config.
        dataset: loaded, on the device.
        architecture: of its models.
        data_root: where the data set lies.
    """

    values: Mapping[str, Any]
    dataset: Dataset
    architecture: Architecture
    data_root: Path | None

    @classmethod
    def of(cls, path: Path, reading: Reading) -> "RunSetting":
        """Read the folder `path`.

        Raises:
            ValueError: it is no run's folder, or names components that are not fedrobust's own.
        """
        config = path / "config.yaml"
        if not config.is_file():
            raise ValueError(f"{path}: must be a run's folder, with config.yaml and model.safetensors")
        values = _read_config(config, reading.trust)
        device = _device(reading.device)
        try:
            check_fields(_Kinds, {key: values[key] for key in ("seed", "data_root") if key in values})
            root = reading.data_root or (Path(values["data_root"]) if values.get("data_root") else None)
            source, architecture = (build_part(values, group) for group in ("dataset", "model"))
            return cls(values, source.load(root, device), architecture, root)
        except KeyError as error:
            raise ValueError(f"{config}: has no key {error}") from None
        except (ValueError, RuntimeError) as error:
            raise ValueError(f"{path}: {' '.join(str(error).split())}") from None

    def model(self, path: Path) -> AuditedModel:
        """The model of a run's folder, or of a file of weights, with this architecture and normalisation.

        Raises:
            ValueError: it cannot be read, or is another architecture's.
        """
        weights = path / "model.safetensors" if path.is_dir() else path
        try:
            module = self.architecture.build(self.dataset.model_shape, self.dataset.num_classes)
            values = read_weights(weights)
            module.load_state_dict(values)
            if path.is_dir():
                check_weights(values, path)
        except (ValueError, RuntimeError) as error:
            raise ValueError(f"{path}: {' '.join(str(error).split())}") from None
        return AuditedModel(module.eval().to(self.dataset.train.inputs.device), self.dataset.normalise)


def check_weights(values: Mapping[str, Tensor], folder: Path) -> None:
    """Look whether a run's model is that of its last checkpoint, where there is one of its last round.

    Raises:
        ValueError: it is not.
    """
    rounds, path = folder / "rounds.jsonl", folder / "checkpoint.safetensors"
    if not (rounds.is_file() and path.is_file()):
        return
    with contextlib.suppress(CheckpointError):
        checkpoint = Checkpoint.read(path)
        last = len(rounds.read_bytes().splitlines()) - 1
        for name, kept in checkpoint.tensors.items() if checkpoint.round == last else ():
            if name in values and not torch.equal(values[name].nan_to_num(), kept.nan_to_num()):
                raise ValueError(f"model.safetensors does not fit checkpoint.safetensors: {name} is another")


def _check_classes(folder: PictureFolder, num_classes: int) -> None:
    names = folder.class_names
    if len(names) < num_classes and not all(is_label(name) for name in names):
        raise ValueError(
            f"--data: must have a subfolder for each of the model's {num_classes} classes, got {len(names)}, and their "
            "names do not say which are missing; --classes names all of them in the order of the model's labels"
        )
    if len(names) > num_classes:
        raise ValueError(
            f"--data: must have at most {num_classes} subfolders, the classes of the model, "
            f"got {len(folder.class_names)}"
        )


def _read_config(path: Path, trust: Sequence[str]) -> Mapping[str, Any]:
    """A run's config, if what is built of it is fedrobust's own, or of modules to `trust`."""
    values = read_foreign(path)
    check_foreign({group: values.get(group) for group in _BUILT_GROUPS}, trust, str(path), "--trust ")
    return values


@dataclass(frozen=True)
class _Kinds:
    """What the keys of a run's config must hold, of those that are read."""

    seed: int
    data_root: str | None
    dataset: DatasetSource
    model: Architecture
    watermark: Watermark | NoWatermark | None


def build_part(values: Mapping[str, Any], group: str) -> Any:
    """The component of a group in a run's config, of the kind that belongs there.

    Raises:
        KeyError: there is no such group.
        ValueError: it cannot be built, or is of another kind.
    """
    built = build(values[group], group)
    check_fields(_Kinds, {group: built})
    return built


def _device(name: str) -> torch.device:
    try:
        return select_device(name)
    except FieldError as error:
        raise ValueError(f"--{error.field}: {error.message}") from None


def _per_channel(option: str, values: Sequence[float], num_channels: int, device: torch.device) -> Tensor:
    if len(values) not in (1, num_channels):
        raise ValueError(f"{option}: must be one number, or one for each of {num_channels} channels, got {len(values)}")
    if not all(map(math.isfinite, values)):
        raise ValueError(f"{option}: must be finite, got {list(values)}")
    return torch.tensor(list(values), dtype=torch.float32, device=device).view(-1, 1, 1)
