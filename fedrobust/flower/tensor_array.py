"""A Flower `Array` that holds a tensor by reference and turns it into bytes only if someone asks for bytes.

Inside one process a message then carries gigabytes for nothing: the receiver gets the very tensor, on its device.
Where a message leaves the process (Ray, gRPC), Flower asks for `.data` and sees an ordinary NumPy-serialised array.
`Array` is public, but that its `data` may be a property is not promised: `tests/flower` holds Flower to it.
"""

from __future__ import annotations

from io import BytesIO
from typing import Any

import numpy as np
import torch
from flwr.app import Array
from torch import Tensor

_NUMPY = "numpy.ndarray"


class TensorArray(Array):
    """An array backed by a live tensor."""

    def __init__(self, tensor: Tensor) -> None:
        self.__dict__["_tensor"] = tensor.detach()

    @property
    def tensor(self) -> Tensor:
        """The tensor itself, on whatever device it lives."""
        held: Tensor = self.__dict__["_tensor"]
        return held

    # The four fields of `Array`, computed from the tensor.
    @property
    def dtype(self) -> str:  # type: ignore[override]
        """NumPy's name of the element type."""
        return str(self.tensor.dtype).removeprefix("torch.")

    @property
    def shape(self) -> tuple[int, ...]:  # type: ignore[override]
        """The shape."""
        return tuple(self.tensor.shape)

    @property
    def stype(self) -> str:  # type: ignore[override]
        """How `data` is serialised."""
        return _NUMPY

    @property
    def data(self) -> bytes:  # type: ignore[override]
        """The tensor as bytes; made on the first call."""
        if "_bytes" not in self.__dict__:
            buffer = BytesIO()
            np.save(buffer, self.numpy(), allow_pickle=False)
            self.__dict__["_bytes"] = buffer.getvalue()
        held: bytes = self.__dict__["_bytes"]
        return held

    def numpy(self) -> np.ndarray[Any, Any]:
        """The tensor as a NumPy array, sharing memory where it lives on the CPU."""
        array: np.ndarray[Any, Any] = self.tensor.cpu().numpy()
        return array

    def deflate(self) -> bytes:
        """The head of what Flower sends: that of a plain `Array`, for it names the class that the receiver makes."""
        return Array(self.dtype, self.shape, self.stype, self.data).deflate()

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled (as Ray does), it arrives as a plain `Array`."""
        return Array, (self.dtype, self.shape, self.stype, self.data)


def tensor_of(array: Array, device: torch.device, *, takes_complex: bool = False) -> Tensor:
    """The tensor that an array holds, on `device`: by reference if it was made here, else read from its bytes.

    Raises:
        ValueError: the bytes are not a NumPy array of numbers.
    """
    if isinstance(array, TensorArray):
        return array.tensor.to(device)
    values = array.numpy()
    if values.dtype.kind not in ("biufc" if takes_complex else "biuf"):
        raise ValueError(f"array must hold numbers, got {values.dtype}")
    return torch.from_numpy(values.copy() if not values.flags.writeable else values).to(device)
