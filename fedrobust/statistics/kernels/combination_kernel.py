"""Weighted sums of rows of a wide float32 matrix, read once, added up in float64, as machine code."""

import functools
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from fedrobust.statistics.kernels.kernel_parts import INFINITY, larger_magnitude
from fedrobust.statistics.kernels.native import Code, can_compile, compile_kernel, over_column_spans, vector_lanes

_ROWS = 8
_BLOCK = 16384
"""Columns whose sums stay in the cache while eight rows at a time run past them."""

_WORTH_COMPILING = 1 << 21
"""Numbers from which on a compilation (a hundredth of a second) pays within a few rounds."""


def can_combine(points: Tensor) -> bool:
    """Whether `combined_rows` can take `points`, and it pays."""
    return (
        points.device.type == "cpu"
        and points.dtype == torch.float32
        and points.stride(1) == 1
        and points.shape[1] >= vector_lanes()
        and points.numel() >= _WORTH_COMPILING
        and can_compile()
    )


def combined_rows(points: Tensor, rows: Tensor, weights: Tensor) -> tuple[Tensor, bool]:
    """Σ wᵢ x_rᵢ, `(d,)` float32, and whether all of it is finite: products and sums in float64.

    Args:
        points: `(n, d)`, for which `can_combine` holds; not changed.
        rows: r, `(m,)` on the CPU: the others are not read.
        weights: w, `(m,)`.
    """
    if len(rows) == 0:
        return torch.zeros(points.shape[1]), True
    d, multiple = points.shape[1], vector_lanes()
    result = torch.empty(d, dtype=torch.float32)
    missing = -len(rows) % _ROWS  # made up for by rows of no weight
    offsets = np.pad(rows.numpy().astype(np.int64), (0, missing), mode="edge")
    offsets *= points.stride(0)
    factors = np.pad(weights.detach().cpu().numpy().astype(np.float64), (0, missing))
    source, target = points.data_ptr(), result.data_ptr()
    kernel = _kernel()

    def work(start: int, stop: int) -> bool:
        is_finite = True
        memory = np.empty(_BLOCK + 8)
        sums = memory[-memory.ctypes.data % 64 // 8 :].ctypes.data
        # What is left over at the end is done once more together with columns before it.
        for low, high in ((start, stop // multiple * multiple), (stop - multiple, stop)):
            if low < high and (high == stop // multiple * multiple or stop % multiple):
                arguments = (offsets.ctypes.data, factors.ctypes.data, len(offsets), low, high, sums, target)
                is_finite &= kernel(source, *arguments) < INFINITY
        return is_finite

    return result, all(over_column_spans((len(rows), d), multiple, work))


@functools.cache
def _kernel() -> Callable[..., int]:
    """A function (bits, offsets, weights, rows, start, stop, sums, result) -> largest magnitude, as bits.

    `rows` is a multiple of `_ROWS`.
    """
    code = Code(vector_lanes())
    f, d, lanes = code.floats, code.doubles, code.lanes
    code.raw(
        f"declare {d} @llvm.fma.v{lanes}f64({d}, {d}, {d})",
        "declare i64 @llvm.smin.i64(i64, i64)",
        "define i32 @combine(ptr %bits, ptr %offsets, ptr %weights, i64 %n, i64 %start, i64 %stop, ptr %sums, "
        "ptr %result) #0 {",
        "entry:",
        "  br label %blocks",
        "blocks:",
        "  %column = phi i64 [ %start, %entry ], [ %end, %stored ]",
        f"  %largest = phi {code.ints} [ zeroinitializer, %entry ], [ %larger, %stored ]",
        f"  %full = add i64 %column, {_BLOCK}",
        "  %end = call i64 @llvm.smin.i64(i64 %full, i64 %stop)",
        "  %width = sub i64 %end, %column",
        "  br label %rows",
        "rows:",
        "  %row = phi i64 [ 0, %blocks ], [ %next_row, %row_done ]",
        "  %is_first = icmp eq i64 %row, 0",
    )
    sources, weights = [], []
    for index in range(_ROWS):
        row = code.let(f"add i64 %row, {index}")
        offset = code.let(f"load i64, ptr {code.let(f'getelementptr i64, ptr %offsets, i64 {row}')}")
        weight = code.let(f"load double, ptr {code.let(f'getelementptr double, ptr %weights, i64 {row}')}")
        spread = code.let(f"insertelement {d} poison, double {weight}, i64 0")
        weights.append(code.let(f"shufflevector {d} {spread}, {d} poison, <{lanes} x i32> zeroinitializer"))
        place = code.let(f"add i64 {offset}, %column")
        sources.append(code.let(f"getelementptr float, ptr %bits, i64 {place}"))
    code.raw("  br label %columns", "columns:", "  %k = phi i64 [ 0, %rows ], [ %next_k, %columns ]")
    place = code.let("getelementptr double, ptr %sums, i64 %k")
    total = code.let(f"load {d}, ptr {place}, align 64")
    total = code.let(f"select i1 %is_first, {d} {code.splat('double', 0.0)}, {d} {total}")
    for source, spread in zip(sources, weights, strict=True):
        numbers = code.let(f"load {f}, ptr {code.let(f'getelementptr float, ptr {source}, i64 %k')}, align 4")
        wide = code.let(f"fpext {f} {numbers} to {d}")
        total = code.let(f"call {d} @llvm.fma.v{lanes}f64({d} {wide}, {d} {spread}, {d} {total})")
    code.raw(f"  store {d} {total}, ptr {place}, align 64", f"  %next_k = add i64 %k, {lanes}")
    code.raw("  %more_columns = icmp slt i64 %next_k, %width", "  br i1 %more_columns, label %columns, label %row_done")
    code.raw("row_done:", f"  %next_row = add i64 %row, {_ROWS}", "  %more_rows = icmp slt i64 %next_row, %n")
    code.raw("  br i1 %more_rows, label %rows, label %store", "store:")
    code.raw("  %s = phi i64 [ 0, %row_done ], [ %next_s, %store ]")
    code.raw(f"  %seen = phi {code.ints} [ %largest, %row_done ], [ %larger, %store ]")
    total = code.let(f"load {d}, ptr {code.let('getelementptr double, ptr %sums, i64 %s')}, align 64")
    target = code.let(f"getelementptr float, ptr %result, i64 {code.let('add i64 %column, %s')}")
    rounded = code.let(f"fptrunc {d} {total} to {f}")
    largest = larger_magnitude(code, "%seen", code.let(f"bitcast {f} {rounded} to {code.ints}"))
    code.raw(f"  store {f} {rounded}, ptr {target}, align 4", f"  %larger = or {code.ints} {largest}, zeroinitializer")
    code.raw(f"  %next_s = add i64 %s, {lanes}", "  %more_sums = icmp slt i64 %next_s, %width")
    code.raw("  br i1 %more_sums, label %store, label %stored", "stored:", "  %goes_on = icmp slt i64 %end, %stop")
    code.raw("  br i1 %goes_on, label %blocks, label %done", "done:")
    code.raw(f"  %worst = call i32 @llvm.vector.reduce.smax.v{lanes}i32({code.ints} %larger)", "  ret i32 %worst", "}")
    return compile_kernel(code, "combine", 8)
