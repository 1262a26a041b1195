"""How many rows of a wide float32 matrix go up, less those that go down, column by column, as machine code."""

import functools
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from fedrobust._linalg.columns import Points, require_finite
from fedrobust._linalg.kernels.kernel_parts import INFINITY, larger_magnitude
from fedrobust._linalg.kernels.native import Code, compile_kernel, takes_rows, vector_lanes
from fedrobust._linalg.threads import in_turns

_ROWS = 8
_BLOCK = 4096
"""Columns whose counts stay in the cache while eight rows at a time run past them; a thread's turn."""

_WORTH_COMPILING = 1 << 20


def can_count(points: Tensor) -> bool:
    """Whether `counted_signs` can take `points`, and it pays."""
    return takes_rows(points, _WORTH_COMPILING)


def counted_signs(points: Tensor, whole: Points) -> Tensor:
    """Σᵢ sign(xᵢ) in each column, `(d,)` int32.

    Args:
        points: `(n, d)`, float32 on the CPU, with unit column stride; not changed.
        whole: what `points` are a part of, to name the rows that are not finite.

    Raises:
        UnusableUpdatesError: rows that hold NaN or infinity.
    """
    n, d = points.shape
    lanes = vector_lanes()
    width = d // lanes * lanes
    counts = torch.empty(d, dtype=torch.int32)
    counts[width:] = points[:, width:].sign().sum(dim=0)
    offsets = np.arange(n) * points.stride(0)
    source, target, kernel = points.data_ptr(), counts.data_ptr(), _kernel(n % _ROWS)

    def work(start: int) -> bool:
        stop = min(start + _BLOCK, width)
        return kernel(source, offsets.ctypes.data, n - n % _ROWS, start, stop, target) < INFINITY

    if not all(in_turns(range(0, width, _BLOCK), work)) or not bool(points[:, width:].isfinite().all()):
        require_finite(torch.tensor(float("nan")), whole)
    return counts


@functools.cache
def _kernel(num_left: int) -> Callable[..., int]:
    """A function (bits, offsets, rows, start, stop, counts) -> largest magnitude, as bits.

    `rows` is a multiple of `_ROWS`; `num_left` rows follow them, fewer than `_ROWS`.
    """
    code = Code(vector_lanes())
    v, lanes = code.ints, code.lanes
    code.raw(
        "define i32 @signs(ptr %bits, ptr %offsets, i64 %n, i64 %start, i64 %stop, ptr %counts) #0 {",
        "entry:",
        "  br label %left",
    )
    _add_rows(code, "left", "entry", "%n", num_left, "zeroinitializer", after="any")
    code.raw("any:", "  %has_rows = icmp sgt i64 %n, 0", "  br i1 %has_rows, label %rows, label %done", "rows:")
    code.raw("  %row = phi i64 [ 0, %any ], [ %next_row, %row_done ]")
    code.raw(f"  %seen = phi {v} [ %left_seen_next, %any ], [ %full_seen_next, %row_done ]", "  br label %full")
    _add_rows(code, "full", "rows", "%row", _ROWS, "%seen", after="row_done")
    code.raw("row_done:", f"  %next_row = add i64 %row, {_ROWS}", "  %more_rows = icmp slt i64 %next_row, %n")
    code.raw("  br i1 %more_rows, label %rows, label %done", "done:")
    code.raw(f"  %largest = phi {v} [ %left_seen_next, %any ], [ %full_seen_next, %row_done ]")
    code.raw(f"  %worst = call i32 @llvm.vector.reduce.smax.v{lanes}i32({v} %largest)", "  ret i32 %worst", "}")
    return compile_kernel(code, "signs", 6)


def _add_rows(code: Code, label: str, before: str, first: str, num_rows: int, seen: str, *, after: str) -> None:
    """Loop `label` over the columns: add the signs of `num_rows` rows to the counts; "left" starts these."""
    v, f, mask = code.ints, code.floats, f"<{code.lanes} x i1>"
    code.raw(f"{label}:", f"  %{label}_column = phi i64 [ %start, %{before} ], [ %{label}_next, %{label} ]")
    code.raw(f"  %{label}_seen = phi {v} [ {seen}, %{before} ], [ %{label}_seen_next, %{label} ]")
    target = code.let(f"getelementptr i32, ptr %counts, i64 %{label}_column")
    total = "zeroinitializer" if label == "left" else code.let(f"load {v}, ptr {target}, align 4")
    largest = f"%{label}_seen"
    for index in range(num_rows):
        place = code.let(f"getelementptr i64, ptr %offsets, i64 {code.let(f'add i64 {first}, {index}')}")
        column = code.let(f"add i64 {code.let(f'load i64, ptr {place}')}, %{label}_column")
        bits = code.let(f"load {v}, ptr {code.let(f'getelementptr i32, ptr %bits, i64 {column}')}, align 4")
        largest = larger_magnitude(code, largest, bits)
        numbers = code.let(f"bitcast {v} {bits} to {f}")
        for comparison, change in (("ogt", "add"), ("olt", "sub")):
            counted = code.let(f"fcmp {comparison} {f} {numbers}, zeroinitializer")
            total = code.let(f"{change} {v} {total}, {code.let(f'zext {mask} {counted} to {v}')}")
    code.raw(f"  store {v} {total}, ptr {target}, align 4", f"  %{label}_seen_next = or {v} {largest}, zeroinitializer")
    code.raw(f"  %{label}_next = add i64 %{label}_column, {code.lanes}")
    code.raw(
        f"  %{label}_more = icmp slt i64 %{label}_next, %stop", f"  br i1 %{label}_more, label %{label}, label %{after}"
    )
