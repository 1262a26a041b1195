"""Chosen columns of a wide matrix, as machine code that asks for a number long before it copies it.

Columns that lie far apart are a cache line each: asked for ahead, dozens of them wait for memory at the same time.
"""

import functools
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from fedrobust._linalg.kernels.native import Code, can_compile, compile_kernel
from fedrobust._linalg.threads import in_turns

_AHEAD = 256
_NUMBERS_A_PART = 1 << 18
"""A thread takes so many numbers at a time, if a row is no more: for half a millisecond it does not pay to wake one."""

_WORTH_COMPILING = 1 << 16


def can_gather(points: Tensor, indices: Tensor) -> bool:
    """Whether `gathered_columns` can take `points`, and it pays."""
    return (
        points.device.type == "cpu"
        and points.dtype == torch.float32
        and points.stride(1) == 1
        and len(points) * len(indices) >= _WORTH_COMPILING
        and can_compile()
    )


def gathered_columns(points: Tensor, indices: Tensor) -> Tensor:
    """The columns with the given `indices` `(k,)`, in their order, as a new tensor `(n, k)`.

    Args:
        points: `(n, d)`, for which `can_gather` holds; not changed.
        indices: in 0, ..., d - 1, on the CPU.

    Raises:
        IndexError: an index out of range.
    """
    (n, d), k = points.shape, len(indices)
    numbers = np.ascontiguousarray(indices.numpy(), dtype=np.int64)
    if numbers.min() < 0 or numbers.max() >= d:
        raise IndexError(f"indices must be in 0, ..., {d - 1}, got {numbers.min()} to {numbers.max()}")
    result = torch.empty(n, k)
    source, stride, chosen, target = points.data_ptr(), points.stride(0), numbers.ctypes.data, result.data_ptr()
    kernel, rows_at_once = _kernel(), max(1, _NUMBERS_A_PART // k)

    def work(first: int) -> None:
        kernel(source, stride, first, min(first + rows_at_once, n), chosen, k, target)

    in_turns(range(0, n, rows_at_once), work)
    return result


@functools.cache
def _kernel() -> Callable[..., int]:
    """A function (bits, row length, first row, stop, indices, k, result), for at least one row and one index."""
    code = Code(8)
    code.raw(
        "declare i64 @llvm.smin.i64(i64, i64)",
        "define i32 @gather(ptr %bits, i64 %stride, i64 %first, i64 %stop, ptr %indices, i64 %k, ptr %result) #0 {",
        "entry:",
        "  %last = sub i64 %k, 1",
        "  br label %rows",
        "rows:",
        "  %row = phi i64 [ %first, %entry ], [ %next_row, %row_done ]",
        "  %next_row = add i64 %row, 1",
    )
    source = code.let(f"getelementptr float, ptr %bits, i64 {code.let('mul i64 %row, %stride')}")
    next_source = code.let(f"getelementptr float, ptr %bits, i64 {code.let('mul i64 %next_row, %stride')}")
    target = code.let(f"getelementptr float, ptr %result, i64 {code.let('mul i64 %row, %k')}")
    code.raw("  br label %columns", "columns:", "  %column = phi i64 [ 0, %rows ], [ %next_column, %columns ]")
    # Beyond the row's end it is the next row's turn; there may be none, and to ask for what is not there does no harm.
    ahead = code.let(f"add i64 %column, {_AHEAD}")
    is_beyond = code.let(f"icmp sge i64 {ahead}, %k")
    wrapped = code.let(f"select i1 {is_beyond}, i64 {code.let(f'sub i64 {ahead}, %k')}, i64 {ahead}")
    wrapped = code.let(f"call i64 @llvm.smin.i64(i64 {wrapped}, i64 %last)")
    row_ahead = code.let(f"select i1 {is_beyond}, ptr {next_source}, ptr {source}")
    wanted = code.let(f"load i64, ptr {code.let(f'getelementptr i64, ptr %indices, i64 {wrapped}')}")
    place = code.let(f"getelementptr float, ptr {row_ahead}, i64 {wanted}")
    code.raw(f"  call void @llvm.prefetch.p0(ptr {place}, i32 0, i32 3, i32 1)")
    index = code.let(f"load i64, ptr {code.let('getelementptr i64, ptr %indices, i64 %column')}")
    bits = code.let(f"load i32, ptr {code.let(f'getelementptr float, ptr {source}, i64 {index}')}")
    code.raw(f"  store i32 {bits}, ptr {code.let(f'getelementptr float, ptr {target}, i64 %column')}")
    code.raw("  %next_column = add i64 %column, 1", "  %more_columns = icmp slt i64 %next_column, %k")
    code.raw("  br i1 %more_columns, label %columns, label %row_done", "row_done:")
    code.raw("  %more_rows = icmp slt i64 %next_row, %stop", "  br i1 %more_rows, label %rows, label %done")
    code.raw("done:", "  ret i32 0", "}")
    return compile_kernel(code, "gather", 7)
