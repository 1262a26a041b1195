"""Records of named arrays, as anyone's Flower app sends them, and the flat rows that a rule reads.

The server's own record says what every reply must look like. Its floating arrays are the columns of a row: first those
that the rule judges, then those that are averaged over the clients that the rule keeps (BatchNorm's running
statistics). All others (integers, booleans, complex tables, masks that hold an
infinity) are the server's and never change.
"""

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
import torch
from flwr.app import Array, ArrayRecord
from numpy.typing import NDArray
from torch import Tensor

_KINDS = {
    "b": "booleans",
    "i": "integers",
    "u": "integers",
    "f": "floating point numbers",
    "c": "complex numbers",
}


class GlobalArrays:
    """The arrays that the server sends in a round, and where each lies in a row.

    Attributes:
        record: the arrays as they were sent.
        num_parameters: d, the columns that the rule judges; they come first.
        num_columns: the length of a row, those d and what is averaged.
        complex_arrays: names of those that hold complex numbers, and so stay as they are.
    """

    def __init__(self, record: ArrayRecord, averaged: Sequence[str] = ()) -> None:
        """Lay out `record`; floating arrays whose name matches a shell pattern in `averaged` come last in a row.

        Raises:
            ValueError: an array that holds no numbers, or NaN; no number for the rule to judge.
        """
        self.record = record
        self._values = {name: values_of(array) for name, array in record.items()}
        for name, values in self._values.items():
            if _kind_of(name, values) == _KINDS["f"] and bool(np.isnan(values).any()):
                raise ValueError(f"array {name!r} contains NaN: nothing can be trained from it")
        floating = [
            name
            for name, values in self._values.items()
            if values.dtype.kind == "f" and values.size and bool(np.isfinite(values).all())
        ]
        last = [name for name in floating if any(fnmatchcase(name, pattern) for pattern in averaged)]
        self._columns: dict[str, slice] = {}
        offset = 0
        for name in [name for name in floating if name not in last] + last:
            self._columns[name] = slice(offset, offset + self._values[name].size)
            offset += self._values[name].size
        self.num_columns = offset
        self.num_parameters = offset - sum(self._values[name].size for name in last)
        self.complex_arrays = [name for name, values in self._values.items() if values.dtype.kind == "c"]
        if self.num_parameters == 0:
            raise ValueError(f"arrays must hold floating point numbers for the rule, got {list(self._values)}")

    def write_difference(self, record: ArrayRecord, row: Tensor) -> None:
        """Write `record` minus the server's arrays into `row` `(num_columns,)`, float32 on the CPU.

        The difference is taken in the wider of the two formats: it is small beside what it is the difference of.

        Raises:
            ValueError: arrays missing, strange, misshapen, unreadable or of another kind, or a difference that is not
                finite in float32. The row then holds anything.
        """
        missing = [name for name in self._values if name not in record]
        strange = [name for name in record if name not in self._values]
        if missing or strange:
            raise ValueError(f"arrays must be the server's, missing {missing}, unknown {strange}")
        flat = row.numpy()
        for name, own in self._values.items():
            theirs = values_of(record[name])
            expected, found = _kind_of(name, own), _kind_of(name, theirs)
            if found != expected:
                raise ValueError(f"array {name!r} must hold {expected}, got {theirs.dtype}")
            if theirs.shape != own.shape:
                raise ValueError(f"array {name!r} must have shape {own.shape}, got {theirs.shape}")
            if name in self._columns:
                out = flat[self._columns[name]].reshape(own.shape)  # a view
                wide = np.result_type(theirs.dtype, own.dtype, np.float32)
                with np.errstate(over="ignore", invalid="ignore"):
                    np.subtract(theirs, own, out=out, dtype=wide, casting="same_kind")
        # A row whose norm is finite is; a norm may overflow where no entry does.
        if not bool(torch.linalg.vector_norm(row).isfinite()):
            for name, columns in self._columns.items():
                if not np.isfinite(flat[columns]).all():
                    raise ValueError(f"array {name!r} contains NaN or infinity")

    def moved(self, row: Tensor) -> ArrayRecord:
        """The server's arrays plus `row` `(num_columns,)`, in their order, formats and shapes.

        Raises:
            ValueError: a sum that is not finite in the array's own format.
        """
        flat = row.cpu().numpy()
        record = ArrayRecord()
        for name, own in self._values.items():
            if name not in self._columns:
                record[name] = self.record[name]
                continue
            step = flat[self._columns[name]].reshape(own.shape)
            with np.errstate(over="ignore"):
                values = np.asarray(np.add(own, step, dtype=np.result_type(own.dtype, step.dtype)).astype(own.dtype))
            if not np.isfinite(values).all():
                raise ValueError(f"the new model's array {name!r} would not be finite in {own.dtype}")
            record[name] = Array(values)
        return record


def values_of(array: Array) -> NDArray[Any]:
    """The numbers in an array.

    Raises:
        ValueError: bytes that are not one.
    """
    try:
        values = array.numpy()
    except Exception as error:  # bytes from a malicious client may make their reader raise anything
        raise ValueError(f"unreadable array: {str(error) or type(error).__name__}") from error
    if not isinstance(values, np.ndarray):  # an archive of arrays is read as something else
        raise ValueError(f"unreadable array: holds a {type(values).__name__}")
    return values


def _kind_of(name: str, values: NDArray[Any]) -> str:
    if values.dtype.kind not in _KINDS:
        raise ValueError(f"array {name!r} must hold numbers, got {values.dtype}")
    return _KINDS[values.dtype.kind]
