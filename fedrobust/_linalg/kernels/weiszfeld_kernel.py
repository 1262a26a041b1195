"""One step of Weiszfeld's iteration from the points themselves, which it reads once, as machine code.

A block of columns that stays in the cache is read twice: for its part of the new centre, then for its part of every
row's distance to it. All of it in float64: there is no cancellation, wherever the points lie.
"""

import functools
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from fedrobust._linalg.kernels.block_sums import ROWS, add_rows, room_for_sums, row_numbers, row_start
from fedrobust._linalg.kernels.native import Code, compile_kernel, over_column_spans, vector_lanes

_ROWS_MEASURED = 4
_BLOCK_NUMBERS = 1 << 16


def centre_and_distances(
    points: Tensor, weights: NDArray[np.float64], centre: NDArray[np.float64]
) -> tuple[NDArray[np.float64], float]:
    """Replace `centre` by z = Σ wᵢxᵢ; the squared distances ‖xᵢ - z‖², and how far (squared) the centre moved.

    Args:
        points: X, `(n, d)`, for which `can_add_rows` holds; not changed.
        weights: w, `(n,)`.
        centre: `(d,)`, contiguous; changed.

    Returns:
        `(n,)`, NaN or infinite where any of the points is, and a number.
    """
    n, d = points.shape
    lanes = vector_lanes()
    width = d // lanes * lanes
    padded = -(-n // ROWS) * ROWS
    offsets = np.minimum(np.arange(padded), n - 1) * points.stride(0)
    factors = np.pad(weights, (0, padded - n))  # the last row, with no weight, stands in for those that are missing
    block = max(_BLOCK_NUMBERS // n // lanes * lanes, lanes)
    source, target, kernel = points.data_ptr(), centre.ctypes.data, _kernel()

    def work(start: int, stop: int) -> NDArray[np.float64]:
        found = np.zeros(padded + 1)
        sums = room_for_sums(block)
        rows = (offsets.ctypes.data, factors.ctypes.data, padded)
        kernel(source, *rows, start, stop, block, sums.ctypes.data, target, found.ctypes.data)
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

    `rows` is a multiple of `ROWS`; the squared distances are added to `found`, and behind them the squared step.
    """
    code = Code(vector_lanes())
    d, lanes = code.doubles, code.lanes
    arguments = "i64 %block, ptr %sums, ptr %centre, ptr %found"
    carried = (d, "%moved", "%moved_on")
    add_rows(code, "step", arguments, block="%block", carried=carried, last="measured", then="move")
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
    sources = [row_start(code, code.let(f"add i64 %other, {index}")) for index in range(_ROWS_MEASURED)]
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
        apart = code.let(f"fsub {d} {row_numbers(code, row, '%j')}, {middle}")
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
