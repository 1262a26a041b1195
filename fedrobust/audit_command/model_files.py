"""Models from files, without running anything that a file may contain.

A pickle can run any code while it is loaded: https://docs.python.org/3/library/pickle.html. So only safetensors are
read, and what `torch.load(weights_only=True)` takes: tensors in plain containers.
"""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from fedrobust.models import DBACNN, MLP, Architecture, Logistic, ResNet18, SmallCNN

_WRAPPERS = ("state_dict", "model_state_dict", "model", "net")
"""Where training scripts put the weights in a checkpoint."""
_PREFIXES = ("module.", "_orig_mod.")
"""What `DataParallel` and `torch.compile` put before every name."""

OWN_ARCHITECTURES: Mapping[str, type[Architecture]] = {
    "dba_cnn": DBACNN,
    "logistic": Logistic,
    "mlp": MLP,
    "resnet18": ResNet18,
    "small_cnn": SmallCNN,
}


class ModelFileError(ValueError):
    """A file that no model can be made of; the message says what is allowed."""


@dataclass(frozen=True)
class LoadedModel:
    """A model from a file.

    Attributes:
        module: on the CPU.
        num_classes: as many as the last layer has.
        input_shape: `(C, H, W)`.
        is_torchvision: whether the architecture is torchvision's.
    """

    module: nn.Module
    num_classes: int
    input_shape: tuple[int, int, int]
    is_torchvision: bool


def read_weights(path: Path) -> dict[str, Tensor]:
    """The named tensors in a file: safetensors, or a state dict saved by `torch.save`.

    Raises:
        ModelFileError: no such file, one that holds more than tensors, or one that cannot be read.
    """
    if not path.is_file():
        raise ModelFileError(f"{path}: no such file")
    if path.suffix == ".safetensors":
        try:
            return dict(load_file(path))
        except (SafetensorError, OSError) as error:
            raise ModelFileError(f"{path}: cannot be read as safetensors ({_one_line(error)})") from None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of old formats
            content = torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        raise ModelFileError(
            f"{path}: refused, it holds more than tensors, and loading a pickle can run any code in it. If you trust "
            "it, load it yourself and save its weights alone, with torch.save(model.state_dict(), FILE) or "
            f"safetensors.torch.save_file ({_one_line(error).split('.')[0]})"
        ) from None
    except Exception as error:  # a damaged file may make the unpickler raise anything
        raise ModelFileError(f"{path}: cannot be read as weights ({_one_line(error)})") from None
    return _named_tensors(content, path)


def load_model(path: Path, architecture: str, input_size: tuple[int, int] | None = None) -> LoadedModel:
    """The model of a file of weights, which has none of the architecture in it.

    Args:
        path: safetensors, or a state dict.
        architecture: one of fedrobust's or torchvision's, such as `small_cnn` or `resnet50`. For a name that both have,
            the weights decide.
        input_size: (H, W) of a picture; needed for fedrobust's; 224x224 if `None` for torchvision's.

    Raises:
        ModelFileError: see `read_weights`; an unknown architecture; weights that are another's.
    """
    from torchvision import models  # takes seconds to import

    theirs = models.list_models(module=models)
    if architecture not in (*OWN_ARCHITECTURES, *theirs):
        raise ModelFileError(
            f"architecture: must be one of {', '.join(sorted(OWN_ARCHITECTURES))}, or of torchvision.models "
            f"(resnet50, vgg16, mobilenet_v3_small, ...), got {architecture!r}"
        )
    weights = read_weights(path)
    reasons = []
    if architecture in OWN_ARCHITECTURES:
        try:
            shape = _own_shape(weights, architecture, input_size)
            build = partial(OWN_ARCHITECTURES[architecture]().build, shape)
            return LoadedModel(*_filled(build, weights), input_shape=shape, is_torchvision=False)
        except (ValueError, RuntimeError) as error:
            reasons.append(f"fedrobust's: {_one_line(error)}")
    if architecture in theirs:
        try:
            module, num_classes = _filled(partial(_torchvision_model, architecture), weights)
            return LoadedModel(module, num_classes, (3, *(input_size or (224, 224))), is_torchvision=True)
        except (ValueError, RuntimeError) as error:
            reasons.append(f"torchvision's: {_one_line(error)}")
    raise ModelFileError(f"{path}: not the weights of {architecture}; {'; '.join(reasons)}")


def _filled(build: Callable[[int], nn.Module], weights: Mapping[str, Tensor]) -> tuple[nn.Module, int]:
    """The model with these weights, and its number of classes: where one of two classes has other shapes, they show."""
    probe = build(2).state_dict()
    other = [one for name, one in weights.items() if name in probe and one.shape != probe[name].shape and one.ndim]
    sizes = {one.shape[0] for one in other} or {2}
    if len(sizes) > 1:
        raise ValueError(f"{len(other)} tensors have other shapes")
    num_classes = sizes.pop()
    module = build(num_classes)
    module.load_state_dict(weights)
    return module, num_classes


def _named_tensors(content: Any, path: Path) -> dict[str, Tensor]:
    if isinstance(content, Mapping):
        inner = next((content[key] for key in _WRAPPERS if isinstance(content.get(key), Mapping)), content)
        if inner and all(isinstance(value, Tensor) for value in inner.values()):
            weights = {str(name): value for name, value in inner.items()}
            for prefix in _PREFIXES:
                if all(name.startswith(prefix) for name in weights):
                    weights = {name.removeprefix(prefix): value for name, value in weights.items()}
            return weights
    raise ModelFileError(
        f"{path}: must hold a state dict, named tensors (or a checkpoint with one under {', '.join(_WRAPPERS)}), "
        f"got {type(content).__name__}"
    )


def _own_shape(
    weights: Mapping[str, Tensor], architecture: str, input_size: tuple[int, int] | None
) -> tuple[int, int, int]:
    """(C, H, W): the channels are those of the first layer."""
    if input_size is None:
        raise ValueError(f"the input size must be given for {architecture}, as in --input-size 32x32")
    height, width = input_size
    first = next((tensor for _, tensor in sorted(weights.items()) if tensor.ndim in (2, 4)), None)
    if first is None:
        raise ValueError("no layer with weights in it")
    channels, rest = (first.shape[1], 0) if first.ndim == 4 else divmod(first.shape[1], height * width)
    if rest or channels not in (1, 3):
        raise ValueError(f"pictures of {height}x{width} have not the {first.shape[1]} inputs of the first layer")
    return channels, height, width


def _torchvision_model(architecture: str, num_classes: int) -> nn.Module:
    from torchvision import models

    # Auxiliary heads serve training alone, but whoever saved the weights may have saved them, too.
    own = {"init_weights": False} if architecture in ("googlenet", "inception_v3") else {}
    module: nn.Module = models.get_model(architecture, weights=None, num_classes=num_classes, **own)
    return module


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= 300 else f"{text[:300]}..."
