"""Coordinate-wise order statistics of float32 columns on GPUs: launches the Triton kernels, where there is Triton.

A kernel is compiled when it is first launched, which takes seconds; Triton keeps it on disk for other processes. Where
Triton is missing or cannot compile, that is said once in the log, and the caller has a slower way to the same bits.
"""

import functools
import logging
from collections.abc import Sequence
from types import ModuleType

import torch
from torch import Tensor

from fedrobust._linalg.columns import Points, require_finite
from fedrobust._linalg.kernels.network_kernels import Reduction
from fedrobust._linalg.kernels.triton_network import COLUMNS_A_BLOCK, WARPS_A_BLOCK, network_kernel
from fedrobust.types import Vector

log = logging.getLogger("fedrobust")

LARGEST_NETWORK = 256
"""Rows: a GPU's thread has 255 registers, and a few values more are no harm."""

_WORTH_COMPILING = 1 << 21
"""Numbers from which on seconds of compilation pay, once a machine, against milliseconds a call."""

_failures: list[str] = []
"""Why there will be no further attempt."""


def suits_gpu_kernels(parts: Sequence[Tensor], n: int) -> bool:
    """Whether the kernels can take n rows of `parts` (all columns of a matrix, in order), and it pays."""
    return (
        n <= LARGEST_NETWORK
        and all(part.device.type == "cuda" and part.dtype == torch.float32 for part in parts)
        and all(part.stride(1) == 1 and part.shape[1] < 2**31 - COLUMNS_A_BLOCK for part in parts)
        and n * sum(part.shape[1] for part in parts) >= _WORTH_COMPILING
    )


def reduced_on_gpu(
    parts: Sequence[Tensor], rows: Tensor, reduction: Reduction, arguments: tuple[int, int], whole: Points
) -> Vector | None:
    """A reduction of the sorted rows of each coordinate, `(d,)` on the first part's device; `None` without Triton.

    Args:
        parts: `(n, d_k)` float32 with unit column stride, each on its device; not changed.
        rows: indices of the rows that take part, on the CPU.
        reduction: which.
        arguments: its two numbers.
        whole: what the parts are parts of, to name the rows that are not finite.

    Raises:
        UnusableUpdatesError: rows that hold NaN or infinity.
    """
    triton = _triton()
    if triton is None or _failures:
        return None
    found, refusals = [], []
    for part in parts:
        with torch.cuda.device_of(part):
            offsets = (rows * part.stride(0)).to(part.device)
            found.append(torch.empty(part.shape[1], dtype=torch.float32, device=part.device))
            refusals.append(torch.zeros(1, dtype=torch.int32, device=part.device))
            if part.shape[1] == 0:
                continue
            kernel = network_kernel(triton, len(rows), reduction, *arguments)
            grid = (triton.cdiv(part.shape[1], COLUMNS_A_BLOCK),)
            operands = (part.detach(), offsets, found[-1], refusals[-1], part.shape[1], COLUMNS_A_BLOCK)
            try:
                # Products and sums must not be contracted: the readable form rounds each.
                kernel[grid](*operands, num_warps=WARPS_A_BLOCK, enable_fp_fusion=False)
            except (
                Exception
            ) as error:  # no C compiler, an unknown architecture, too few registers: each of another kind
                _give_up(error)
                return None
    if any(bool(refused) for refused in refusals):  # the devices have worked at the same time until here
        require_finite(torch.tensor(float("nan")), whole)
    return found[0] if len(found) == 1 else torch.cat([one.to(found[0].device) for one in found])


@functools.cache
def _triton() -> ModuleType | None:
    try:
        import triton
        import triton.language
    except Exception as error:  # not installed, or broken in ways of its own
        _give_up(error)
        return None
    return triton  # type: ignore[no-any-return]


def _give_up(error: Exception) -> None:
    reason = " ".join(str(error).split())[:500]
    _failures.append(reason)
    log.warning("Triton cannot be used, so medians and trimmed means on a GPU take many times as long: %s", reason)
