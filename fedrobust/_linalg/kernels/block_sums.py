"""What kernels that add up weighted rows have in common: sums of a block of columns, which stay in the cache."""

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from fedrobust._linalg.kernels.native import Code, takes_rows

ROWS = 8
"""Rows that run past the block's sums at a time."""

_WORTH_COMPILING = 1 << 21
"""Numbers from which on a compilation (a hundredth of a second) pays within a few rounds."""


def can_add_rows(points: Tensor) -> bool:
    """Whether such a kernel can take `points`, and it pays."""
    return takes_rows(points, _WORTH_COMPILING)


def room_for_sums(block: int) -> NDArray[np.float64]:
    """`(block,)` doubles at an address that is a multiple of 64, not set."""
    memory = np.empty(block + 8)
    return memory[-memory.ctypes.data % 64 // 8 :][:block]


def add_rows(
    code: Code, name: str, arguments: str, *, block: str, carried: tuple[str, str, str], last: str, then: str
) -> None:
    """The head of a function (bits, offsets, weights, n, start, stop, ...), and the loops that fill `%sums`.

    Block by block of columns, `%column` to `%end`, of which there are `%width`, they put Σ wᵢxᵢ into `%sums` and go on
    to `then`. n is a multiple of `ROWS`.

    Args:
        code: to add to.
        name: of the function.
        arguments: its others, `%sums` among them.
        block: columns of a block, a number or the name of one.
        carried: type, name and next name of what goes from one block to the next; zero at first.
        last: the basic block that goes back to `blocks`, as far as there are columns.
        then: the basic block that follows.
    """
    d, lanes = code.doubles, code.lanes
    kind, before, after = carried
    code.raw(
        f"declare {d} @llvm.fma.v{lanes}f64({d}, {d}, {d})",
        "declare i64 @llvm.smin.i64(i64, i64)",
        f"define i32 @{name}(ptr %bits, ptr %offsets, ptr %weights, i64 %n, i64 %start, i64 %stop, {arguments}) #0 {{",
        "entry:",
        "  br label %blocks",
        "blocks:",
        f"  %column = phi i64 [ %start, %entry ], [ %end, %{last} ]",
        f"  {before} = phi {kind} [ zeroinitializer, %entry ], [ {after}, %{last} ]",
        f"  %full = add i64 %column, {block}",
        "  %end = call i64 @llvm.smin.i64(i64 %full, i64 %stop)",
        "  %width = sub i64 %end, %column",
        "  br label %rows",
        "rows:",
        "  %row = phi i64 [ 0, %blocks ], [ %next_row, %row_done ]",
        "  %is_first = icmp eq i64 %row, 0",
    )
    sources, weights = [], []
    for index in range(ROWS):
        row = code.let(f"add i64 %row, {index}")
        sources.append(row_start(code, row))
        weight = code.let(f"load double, ptr {code.let(f'getelementptr double, ptr %weights, i64 {row}')}")
        spread = code.let(f"insertelement {d} poison, double {weight}, i64 0")
        weights.append(code.let(f"shufflevector {d} {spread}, {d} poison, <{lanes} x i32> zeroinitializer"))
    code.raw("  br label %columns", "columns:", "  %k = phi i64 [ 0, %rows ], [ %next_k, %columns ]")
    place = code.let("getelementptr double, ptr %sums, i64 %k")
    total = code.let(f"load {d}, ptr {place}, align 64")
    total = code.let(f"select i1 %is_first, {d} {code.splat('double', 0.0)}, {d} {total}")
    for source, weight in zip(sources, weights, strict=True):
        wide = row_numbers(code, source, "%k")
        total = code.let(f"call {d} @llvm.fma.v{lanes}f64({d} {wide}, {d} {weight}, {d} {total})")
    code.raw(f"  store {d} {total}, ptr {place}, align 64", f"  %next_k = add i64 %k, {lanes}")
    code.raw("  %more_columns = icmp slt i64 %next_k, %width", "  br i1 %more_columns, label %columns, label %row_done")
    code.raw("row_done:", f"  %next_row = add i64 %row, {ROWS}", "  %more_rows = icmp slt i64 %next_row, %n")
    code.raw(f"  br i1 %more_rows, label %rows, label %{then}")


def row_start(code: Code, row: str) -> str:
    """Where the block's part of a row begins."""
    place = code.let(f"getelementptr i64, ptr %offsets, i64 {row}")
    offset = code.let(f"add i64 {code.let(f'load i64, ptr {place}')}, %column")
    return code.let(f"getelementptr float, ptr %bits, i64 {offset}")


def row_numbers(code: Code, start: str, index: str) -> str:
    """A vector of a row, as doubles."""
    place = code.let(f"getelementptr float, ptr {start}, i64 {index}")
    return code.let(f"fpext {code.floats} {code.let(f'load {code.floats}, ptr {place}, align 4')} to {code.doubles}")
