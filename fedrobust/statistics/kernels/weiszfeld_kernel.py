"""One step of Weiszfeld's iteration from the points themselves, which it reads once, as machine code.

A block of columns that stays in the cache is read twice: for its part of the new centre, then for its part of every
row's distance to it. All of it in float64: there is no cancellation, wherever the points lie.
"""

import functools
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedrobust.statistics.kernels.native import Code, can_compile, compile_kernel, over_column_spans, vector_lanes

_ROWS = 8
_ROWS_MEASURED = 4
_BLOCK_NUMBERS = 1 << 16
_WORTH_COMPILING = 1 << 21


def can_step(points: Tensor) -> bool:
    """Whether `centre_and_distances` can take `points`, and it pays."""
    return (
        points.device.type == "cpu"
        and points.dtype == torch.float32
        and points.stride(1) == 1
        and points.shape[1] >= vector_lanes()
        and points.numel() >= _WORTH_COMPILING
        and can_compile()
    )


def centre_and_distances(
    points: Tensor, weights: NDArray[np.float64], centre: NDArray[np.float64]
) -> tuple[NDArray[np.float64], float]:
    """Replace `centre` by z = Σ wᵢxᵢ; the squared distances ‖xᵢ - z‖², and how far (squared) the centre moved.

    Args:
        points: X, `(n, d)`, for which `can_step` holds; not changed.
        weights: w, `(n,)`.
        centre: `(d,)`, contiguous; changed.

    Returns:
        `(n,)`, NaN or infinite where any of the points is, and a number.
    """
    n, d = points.shape
    lanes = vector_lanes()
    width = d // lanes * lanes
    padded = -(-n // _ROWS) * _ROWS
    offsets = np.minimum(np.arange(padded), n - 1) * points.stride(0)
    factors = np.pad(weights, (0, padded - n))  # the last row, with no weight, stands in for those that are missing
    block = max(_BLOCK_NUMBERS // n // lanes * lanes, lanes)
    source, target, kernel = points.data_ptr(), centre.ctypes.data, _kernel()

    def work(start: int, stop: int) -> NDArray[np.float64]:
        found = np.zeros(padded + 1)
        memory = np.empty(block + 8)
        sums = memory[-memory.ctypes.data % 64 // 8 :].ctypes.data
        rows = (offsets.ctypes.data, factors.ctypes.data, padded)
        kernel(source, *rows, start, stop, block, sums, target, found.ctypes.data)
        return found

    total = np.sum(over_column_spans((n, d), lanes, work, width), axis=0)
    squared, step = total[:n], float(total[padded])
    if width < d:
        rest = points[:, width:].double().numpy()
        last = weights @ rest
        squared = squared + ((rest - last) ** 2).sum(axis=1)
        step += float(((last - centre[width:]) ** 2).sum())
        centre[width:] = last
    return squared, step


@functools.cache
def _kernel() -> Callable[..., int]:
    """A function (bits, offsets, weights, rows, start, stop, block, sums, centre, found) -> 0.

    `rows` is a multiple of `_ROWS`; the squared distances are added to `found`, and behind them the squared step.
    """
    code = Code(vector_lanes())
    d, lanes = code.doubles, code.lanes
    code.raw(
        f"declare {d} @llvm.fma.v{lanes}f64({d}, {d}, {d})",
        "declare i64 @llvm.smin.i64(i64, i64)",
        "define i32 @step(ptr %bits, ptr %offsets, ptr %weights, i64 %n, i64 %start, i64 %stop, i64 %block, "
        "ptr %sums, ptr %centre, ptr %found) #0 {",
        "entry:",
        "  br label %blocks",
        "blocks:",
        "  %column = phi i64 [ %start, %entry ], [ %end, %measured ]",
        f"  %moved = phi {d} [ zeroinitializer, %entry ], [ %moved_on, %measured ]",
        "  %full = add i64 %column, %block",
        "  %end = call i64 @llvm.smin.i64(i64 %full, i64 %stop)",
        "  %width = sub i64 %end, %column",
        "  br label %rows",
        "rows:",
        "  %row = phi i64 [ 0, %blocks ], [ %next_row, %row_done ]",
        "  %is_first = icmp eq i64 %row, 0",
    )
    sources = [_row_start(code, f"add i64 %row, {index}") for index in range(_ROWS)]
    weights = []
    for index in range(_ROWS):
        place = code.let(f"getelementptr double, ptr %weights, i64 {code.let(f'add i64 %row, {index}')}")
        weight = code.let(f"insertelement {d} poison, double {code.let(f'load double, ptr {place}')}, i64 0")
        weights.append(code.let(f"shufflevector {d} {weight}, {d} poison, <{lanes} x i32> zeroinitializer"))
    code.raw("  br label %columns", "columns:", "  %k = phi i64 [ 0, %rows ], [ %next_k, %columns ]")
    place = code.let("getelementptr double, ptr %sums, i64 %k")
    total = code.let(f"load {d}, ptr {place}, align 64")
    total = code.let(f"select i1 %is_first, {d} {code.splat('double', 0.0)}, {d} {total}")
    for row, weight in zip(sources, weights, strict=True):
        total = code.let(f"call {d} @llvm.fma.v{lanes}f64({d} {_numbers(code, row, '%k')}, {d} {weight}, {d} {total})")
    code.raw(f"  store {d} {total}, ptr {place}, align 64", f"  %next_k = add i64 %k, {lanes}")
    code.raw("  %more_columns = icmp slt i64 %next_k, %width", "  br i1 %more_columns, label %columns, label %row_done")
    code.raw("row_done:", f"  %next_row = add i64 %row, {_ROWS}", "  %more_rows = icmp slt i64 %next_row, %n")
    code.raw("  br i1 %more_rows, label %rows, label %move")
    _move_centre(code)
    _measure_rows(code)
    code.raw("measured:", "  %goes_on = icmp slt i64 %end, %stop", "  br i1 %goes_on, label %blocks, label %done")
    code.raw("done:")
    place = code.let("getelementptr double, ptr %found, i64 %n")
    summed = f"call reassoc double @llvm.vector.reduce.fadd.v{lanes}f64(double 0.0, {d} %moved_on)"
    code.raw(f"  store double {code.let(summed)}, ptr {place}", "  ret i32 0", "}")
    return compile_kernel(code, "step", 10)


def _move_centre(code: Code) -> None:
    """The loop `move`: the block's sums become its part of the centre, and how far that is goes to `%moved_on`."""
    d, lanes = code.doubles, code.lanes
    code.raw("move:", "  %m = phi i64 [ 0, %row_done ], [ %next_m, %move ]")
    code.raw(f"  %moved_so_far = phi {d} [ %moved, %row_done ], [ %moved_next, %move ]")
    total = code.let(f"load {d}, ptr {code.let('getelementptr double, ptr %sums, i64 %m')}, align 64")
    target = code.let(f"getelementptr double, ptr %centre, i64 {code.let('add i64 %column, %m')}")
    moved = code.let(f"fsub {d} {total}, {code.let(f'load {d}, ptr {target}, align 8')}")
    code.raw(f"  %moved_next = call {d} @llvm.fma.v{lanes}f64({d} {moved}, {d} {moved}, {d} %moved_so_far)")
    code.raw(f"  store {d} {total}, ptr {target}, align 8", f"  %next_m = add i64 %m, {lanes}")
    code.raw("  %more_moves = icmp slt i64 %next_m, %width", "  br i1 %more_moves, label %move, label %move_done")
    code.raw("move_done:", f"  %moved_on = phi {d} [ %moved_next, %move ]", "  br label %measure")


def _measure_rows(code: Code) -> None:
    """The loop `measure`: the block's part of their squared distances; meanwhile the next block is fetched."""
    d, lanes = code.doubles, code.lanes
    code.raw("measure:", "  %other = phi i64 [ 0, %move_done ], [ %next_other, %measure_done ]")
    sources = [_row_start(code, f"add i64 %other, {index}") for index in range(_ROWS_MEASURED)]
    centre = code.let("getelementptr double, ptr %centre, i64 %column")
    ahead = code.let("mul i64 %block, 4")
    code.raw("  br label %across", "across:", "  %j = phi i64 [ 0, %measure ], [ %next_j, %across ]")
    for index in range(_ROWS_MEASURED):
        code.raw(f"  %sum_{index} = phi {d} [ zeroinitializer, %measure ], [ %sum_{index}_next, %across ]")
    place = code.let(f"getelementptr double, ptr {centre}, i64 %j")
    middle = code.let(f"load {d}, ptr {place}, align 8")
    for index, row in enumerate(sources):
        fetched = code.let(f"getelementptr i8, ptr {code.let(f'getelementptr float, ptr {row}, i64 %j')}, i64 {ahead}")
        code.raw(f"  call void @llvm.prefetch.p0(ptr {fetched}, i32 0, i32 2, i32 1)")
        apart = code.let(f"fsub {d} {_numbers(code, row, '%j')}, {middle}")
        code.raw(f"  %sum_{index}_next = call {d} @llvm.fma.v{lanes}f64({d} {apart}, {d} {apart}, {d} %sum_{index})")
    code.raw(f"  %next_j = add i64 %j, {lanes}", "  %more_across = icmp slt i64 %next_j, %width")
    code.raw("  br i1 %more_across, label %across, label %measure_done", "measure_done:")
    for index in range(_ROWS_MEASURED):
        place = code.let(f"getelementptr double, ptr %found, i64 {code.let(f'add i64 %other, {index}')}")
        before = code.let(f"load double, ptr {place}")
        summed = f"call reassoc double @llvm.vector.reduce.fadd.v{lanes}f64(double {before}, {d} %sum_{index}_next)"
        code.raw(f"  store double {code.let(summed)}, ptr {place}")
    code.raw(f"  %next_other = add i64 %other, {_ROWS_MEASURED}", "  %more_others = icmp slt i64 %next_other, %n")
    code.raw("  br i1 %more_others, label %measure, label %measured")


def _row_start(code: Code, row: str) -> str:
    """Where the block's part of a row begins."""
    place = code.let(f"getelementptr i64, ptr %offsets, i64 {code.let(row)}")
    offset = code.let(f"add i64 {code.let(f'load i64, ptr {place}')}, %column")
    return code.let(f"getelementptr float, ptr %bits, i64 {offset}")


def _numbers(code: Code, row: str, index: str) -> str:
    """A vector of a row, as doubles."""
    place = code.let(f"getelementptr float, ptr {row}, i64 {index}")
    return code.let(f"fpext {code.floats} {code.let(f'load {code.floats}, ptr {place}, align 4')} to {code.doubles}")
