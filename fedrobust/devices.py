"""The device that a config names."""

import torch

from fedrobust.config.component import FieldError


def select_device(name: str, *, field: str = "device") -> torch.device:
    """The device that `name` means; `auto` is the first GPU, or the CPU.

    Raises:
        FieldError: no such device here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    available = ["auto", "cpu"] + [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        available.append("mps")
    if device is None or (str(device) not in available and name not in available):
        if device is not None and name == "cuda" and torch.cuda.is_available():
            return device
        raise FieldError(field, f"must be one of {', '.join(available)}, got {name!r}")
    return device
