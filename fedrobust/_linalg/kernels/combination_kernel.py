"""Weighted sums of rows of a wide float32 matrix, read once, added up in float64, as machine code."""

import functools
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from fedrobust._linalg.kernels.block_sums import ROWS, add_rows, room_for_sums
from fedrobust._linalg.kernels.kernel_parts import INFINITY, larger_magnitude
from fedrobust._linalg.kernels.native import Code, compile_kernel, over_column_spans, vector_lanes
from fedrobust._linalg.memory import new_vector

_BLOCK = 16384
"""Columns whose sums stay in the cache while eight rows at a time run past them."""


def combined_rows(points: Tensor, rows: Tensor, weights: Tensor) -> tuple[Tensor, bool]:
    """Σ wᵢ x_rᵢ, `(d,)` float32, and whether all of it is finite: products and sums in float64.

    Args:
        points: `(n, d)`, for which `can_add_rows` holds; not changed.
        rows: r, `(m,)` on the CPU: the others are not read.
        weights: w, `(m,)`.
    """
    if len(rows) == 0:
        return torch.zeros(points.shape[1]), True
    d, multiple = points.shape[1], vector_lanes()
    result = new_vector(d)
    missing = -len(rows) % ROWS  # made up for by rows of no weight
    offsets = np.pad(rows.numpy().astype(np.int64), (0, missing), mode="edge")
    offsets *= points.stride(0)
    factors = np.pad(weights.detach().cpu().numpy().astype(np.float64), (0, missing))
    source, target = points.data_ptr(), result.data_ptr()
    kernel = _kernel()

    def work(start: int, stop: int) -> bool:
        is_finite = True
        sums = room_for_sums(_BLOCK)
        # What is left over at the end is done once more together with columns before it.
        for low, high in ((start, stop // multiple * multiple), (stop - multiple, stop)):
            if low < high and (high == stop // multiple * multiple or stop % multiple):
                arguments = (len(offsets), low, high, sums.ctypes.data, target)
                is_finite &= kernel(source, offsets.ctypes.data, factors.ctypes.data, *arguments) < INFINITY
        return is_finite

    return result, all(over_column_spans((len(rows), d), multiple, work))


@functools.cache
def _kernel() -> Callable[..., int]:
    """A function (bits, offsets, weights, rows, start, stop, sums, result) -> largest magnitude, as bits.

    `rows` is a multiple of `ROWS`.
    """
    code = Code(vector_lanes())
    f, d, lanes = code.floats, code.doubles, code.lanes
    carried = (code.ints, "%largest", "%larger")
    add_rows(code, "combine", "ptr %sums, ptr %result", block=str(_BLOCK), carried=carried, last="stored", then="store")
    code.raw("store:")
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
