"""Squared norms of rows, and their inner products with a vector: read once, added up in float64, as machine code."""

import functools
from collections.abc import Callable
from itertools import pairwise, product

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedrobust._linalg.kernels.native import Code, can_compile, can_widen_halves, compile_kernel, vector_lanes
from fedrobust._linalg.threads import in_turns

_AT_ONCE = 4
"""Vectors of a row that are added to sums of their own: a single sum would wait for itself."""

_AHEAD = 1024
"""Numbers by which memory is asked for them before they are needed."""

_WORTH_COMPILING = 1 << 16
_NUMBERS_A_PART = 1 << 20
_MOST_PARTS = 64
_FEWEST_COLUMNS = 1 << 17
"""Memory is fastest along a row: what is shorter than this is not divided."""

_VECTOR_COLUMNS = 1 << 18
"""Of the vector so much stays in the cache while the rows run past it."""

_KINDS = {torch.float32: "float", torch.float64: "double", torch.float16: "half", torch.bfloat16: "bfloat"}


def can_sum_rows(points: Tensor) -> bool:
    """Whether `row_sums` can take `points` `(n, d)`, and it pays."""
    return (
        points.device.type == "cpu"
        and points.dtype in _KINDS
        and points.stride(1) == 1
        and points.numel() >= _WORTH_COMPILING
        and can_compile()
        and (points.dtype != torch.float16 or can_widen_halves())
    )


def row_sums(points: Tensor, vector: Tensor | None = None) -> Tensor:
    """Σⱼ xᵢⱼvⱼ, `(n,)` float64, and Σⱼ xᵢⱼ² without v: products and sums in float64, on as many threads as torch uses.

    Args:
        points: X, `(n, d)`, for which `can_sum_rows` holds; not changed.
        vector: v, `(d,)` on the CPU, of the points' dtype.
    """
    n, d = points.shape
    step = _AT_ONCE * vector_lanes()
    width = d // step * step
    kernel = _kernel(_KINDS[points.dtype], vector is not None)
    other = points if vector is None else vector.contiguous()
    # They depend on the shape alone, so the sums do not depend on the number of threads.
    num_parts = max(1, min(_MOST_PARTS, n * d // _NUMBERS_A_PART))
    num_columns = max(min(-(-num_parts // n), d // _FEWEST_COLUMNS), 0 if vector is None else d // _VECTOR_COLUMNS, 1)
    column_spans = _spans(width, num_columns, step)
    row_spans = _spans(n, min(n, -(-num_parts // len(column_spans))), 1)
    sums = np.zeros((len(column_spans) + 1, n))

    def work(part: tuple[tuple[int, int], tuple[int, tuple[int, int]]]) -> None:
        (first, last), (index, (start, stop)) = part
        _call(kernel, points[first:last], other, start, stop, sums[index, first:last])

    if width:
        in_turns(list(product(row_spans, enumerate(column_spans))), work)
    if width < d:
        _call(kernel, _padded(points, width, step), _padded(other, width, step), 0, step, sums[-1])
    return torch.from_numpy(sums.sum(axis=0))


def _spans(stop: int, number: int, multiple: int) -> list[tuple[int, int]]:
    """So many spans that make up 0, ..., `stop` - 1, of about one length."""
    bounds = [stop * index // number // multiple * multiple for index in range(number)]
    return list(pairwise([*bounds, stop]))


def _call(
    kernel: Callable[..., int], points: Tensor, other: Tensor, start: int, stop: int, sums: NDArray[np.float64]
) -> None:
    source, stride = points.data_ptr(), points.stride(0)
    kernel(source, stride, len(points), start, stop, other.data_ptr(), sums.ctypes.data)


def _padded(numbers: Tensor, width: int, step: int) -> Tensor:
    """The columns from `width` on, and zeros."""
    padded = numbers.new_zeros(*numbers.shape[:-1], step)
    padded[..., : numbers.shape[-1] - width] = numbers[..., width:]
    return padded


@functools.cache
def _kernel(kind: str, has_vector: bool) -> Callable[..., int]:
    """A function (bits, row length, n, start, stop, vector, sums).

    It takes one step of columns at least, and whole ones.
    """
    code = Code(vector_lanes())
    d, lanes = code.doubles, code.lanes
    code.raw(
        f"declare {d} @llvm.fma.v{lanes}f64({d}, {d}, {d})",
        "define i32 @row_sums(ptr %bits, i64 %stride, i64 %n, i64 %start, i64 %stop, ptr %vector, ptr %sums) #0 {",
        "entry:",
        "  br label %rows",
        "rows:",
        "  %row = phi i64 [ 0, %entry ], [ %next_row, %row_done ]",
    )
    stored = "i16" if kind == "bfloat" else kind
    source = code.let(f"getelementptr {stored}, ptr %bits, i64 {code.let('mul i64 %row, %stride')}")
    code.raw("  br label %columns", "columns:", "  %column = phi i64 [ %start, %rows ], [ %next_column, %columns ]")
    sums = [f"%sum_{index}" for index in range(_AT_ONCE)]
    for one in sums:
        code.raw(f"  {one} = phi {d} [ zeroinitializer, %rows ], [ {one}_next, %columns ]")
    for index, one in enumerate(sums):
        column = code.let(f"add i64 %column, {index * lanes}")
        place = code.let(f"getelementptr {stored}, ptr {source}, i64 {column}")
        ahead = code.let(f"getelementptr {stored}, ptr {place}, i64 {_AHEAD}")
        code.raw(f"  call void @llvm.prefetch.p0(ptr {ahead}, i32 0, i32 3, i32 1)")
        numbers = others = _doubles(code, kind, place)
        if has_vector:
            others = _doubles(code, kind, code.let(f"getelementptr {stored}, ptr %vector, i64 {column}"))
        code.raw(f"  {one}_next = call {d} @llvm.fma.v{lanes}f64({d} {numbers}, {d} {others}, {d} {one})")
    code.raw(f"  %next_column = add i64 %column, {_AT_ONCE * lanes}", "  %more = icmp slt i64 %next_column, %stop")
    code.raw("  br i1 %more, label %columns, label %row_done", "row_done:")
    total = f"{sums[0]}_next"
    for one in sums[1:]:
        total = code.let(f"fadd {d} {total}, {one}_next")
    reduced = code.let(f"call reassoc double @llvm.vector.reduce.fadd.v{lanes}f64(double 0.0, {d} {total})")
    code.raw(f"  store double {reduced}, ptr {code.let('getelementptr double, ptr %sums, i64 %row')}")
    code.raw("  %next_row = add i64 %row, 1", "  %more_rows = icmp slt i64 %next_row, %n")
    code.raw("  br i1 %more_rows, label %rows, label %done", "done:", "  ret i32 0", "}")
    return compile_kernel(code, "row_sums", 7)


def _doubles(code: Code, kind: str, place: str) -> str:
    """A vector of numbers as doubles; a bfloat16 is the upper half of a float32."""
    lanes, ints, floats = code.lanes, code.ints, code.floats
    if kind == "bfloat":
        bits = code.let(f"zext <{lanes} x i16> {code.let(f'load <{lanes} x i16>, ptr {place}, align 2')} to {ints}")
        bits = code.let(f"shl {ints} {bits}, {code.splat('i32', 16)}")
        wide = code.let(f"bitcast {ints} {bits} to {floats}")
    else:
        size = {"half": 2, "float": 4, "double": 8}[kind]
        wide = code.let(f"load <{lanes} x {kind}>, ptr {place}, align {size}")
        if kind == "double":
            return wide
        if kind == "half":
            wide = code.let(f"fpext <{lanes} x half> {wide} to {floats}")
    return code.let(f"fpext {floats} {wide} to {code.doubles}")
