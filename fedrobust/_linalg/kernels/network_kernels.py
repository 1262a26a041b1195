"""Order statistics of float32 coordinates at close to the memory's speed, as machine code for one n at a time.

Numbers are compared as integers that order as the floats do (their bits; of negative ones all but the sign flipped).
Up to `LARGEST_IN_REGISTERS` rows a vector of columns is read once, runs through the whole sorting network in
registers, and its kept ranks are added up in float64. More rows are sorted in a tile that stays in the cache, or one or
two ranks are selected there.
"""

import functools
from collections.abc import Callable
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fedrobust._linalg.kernels.kernel_parts import (
    HEAD,
    Ranked,
    Reduce,
    double,
    extreme,
    fill_tile,
    finish_tile,
    flip_negative,
    larger_magnitude,
    quotient,
    store_result,
)
from fedrobust._linalg.kernels.native import Code, compile_kernel, vector_lanes
from fedrobust._linalg.kernels.selection_kernel import select_in_tiles
from fedrobust._linalg.kernels.sorting_network import sorting_network

LARGEST_IN_REGISTERS = 256
_PREFETCH_BYTES = 8 * 64
TILE_VECTORS = 4
"""Of 64 bytes each: the cost of finding a row in memory is shared, and 1,000 rows still fit the cache."""

Reduction = Literal["mean_of_ranks", "mean_nearest_to_median"]


@functools.lru_cache(maxsize=64)
def order_statistics_kernel(n: int, reduction: Reduction, first: int, last: int) -> Callable[..., int]:
    """A function (bits, offsets, start, stop, pairs, num_pairs, tile, result) -> largest magnitude.

    `bits` points to float32 numbers, row i of n begins `offsets[i]` numbers from there, columns start, ..., stop - 1
    (a multiple of the vector's lanes) go to `result`; `pairs` and `tile` are looked at for large n only, see `tile_for`
    and `pairs_for`.

    Args:
        n: rows.
        reduction: "mean_of_ranks" first, ..., last - 1, or "mean_nearest_to_median" of the `first` nearest.
        first: see above.
        last: see above.
    """
    code = Code(vector_lanes())
    reduce = _mean_of_ranks(first, last) if reduction == "mean_of_ranks" else _mean_nearest_to_median(n, first)
    if n > LARGEST_IN_REGISTERS and is_selected(reduction, first, last):
        select_in_tiles(code, n, TILE_VECTORS, first, last, reduce)
    elif n <= LARGEST_IN_REGISTERS:
        ranks = (first, last) if reduction == "mean_of_ranks" else (0, n)
        _in_registers(code, n, ranks, reduce)
    else:
        _in_tiles(code, n, reduce)
    return compile_kernel(code, "kernel", 8)


def is_selected(reduction: Reduction, first: int, last: int) -> bool:
    """Whether so few ranks are wanted of many rows that they are selected, and nothing is sorted."""
    return reduction == "mean_of_ranks" and last - first <= 2


def columns_at_once(n: int) -> int:
    """Of how many columns start, stop must be multiples."""
    return vector_lanes() * (1 if n <= LARGEST_IN_REGISTERS else TILE_VECTORS)


@functools.lru_cache(maxsize=16)
def pairs_for(n: int, reduction: Reduction, first: int, last: int) -> NDArray[np.int64]:
    """The network `(m, 2)` as byte offsets into the tile; empty for a kernel that needs none."""
    if n <= LARGEST_IN_REGISTERS or is_selected(reduction, first, last):
        return np.zeros((0, 2), dtype=np.int64)
    first, last = (first, last) if reduction == "mean_of_ranks" else (0, n)
    pairs = np.array([(pair.left, pair.right) for pair in sorting_network(n, first, last)], dtype=np.int64)
    return np.ascontiguousarray(pairs * columns_at_once(n) * 4)


def tile_for(n: int) -> NDArray[np.int32]:
    """Memory for one thread's tile, on a cache line's bound: a vector across two lines costs twice."""
    if n <= LARGEST_IN_REGISTERS:
        return np.empty(0, dtype=np.int32)
    memory = np.empty(n * columns_at_once(n) + 16, dtype=np.int32)
    return memory[-memory.ctypes.data % 64 // 4 :]


def _mean_of_ranks(first: int, last: int) -> Reduce:
    def reduce(code: Code, ranked: Ranked) -> str:
        total = code.splat("double", 0.0)
        for rank in range(first, last):
            total = code.let(f"fadd {code.doubles} {total}, {ranked(rank)}")
        return quotient(code, total, last - first)

    return reduce


def _mean_nearest_to_median(n: int, kept: int) -> Reduce:
    """See `order_statistics.window_mean` for why the window moves as it does."""

    def reduce(code: Code, ranked: Ranked) -> str:
        d, v = code.doubles, code.ints
        median = code.let(f"fadd {d} {ranked((n - 1) // 2)}, {ranked(n // 2)}")
        median = code.let(f"fmul {d} {median}, {code.splat('double', 0.5)}")
        low = "zeroinitializer"
        for rank in range(n - kept):
            lost = code.let(f"fsub {d} {median}, {ranked(rank)}")
            gained = code.let(f"fsub {d} {ranked(rank + kept)}, {median}")
            moves = code.let(f"fcmp ogt {d} {lost}, {gained}")
            low = code.let(f"add {v} {low}, {code.let(f'zext <{code.lanes} x i1> {moves} to {v}')}")
        total = code.splat("double", 0.0)
        for rank in range(n):
            # low <= rank < low + kept, as one comparison of unsigned numbers
            above = code.let(f"sub {v} {code.splat('i32', rank)}, {low}")
            inside = code.let(f"icmp ult {v} {above}, {code.splat('i32', kept)}")
            zero = code.splat("double", 0.0)
            counted = code.let(f"select <{code.lanes} x i1> {inside}, {d} {ranked(rank)}, {d} {zero}")
            total = code.let(f"fadd {d} {total}, {counted}")
        return quotient(code, total, kept)

    return reduce


def _in_registers(code: Code, n: int, ranks: tuple[int, int], reduce: Reduce) -> None:
    v, lanes = code.ints, code.lanes
    code.raw(HEAD, "entry:")
    rows = []
    for row in range(n):
        offset = code.let(f"load i64, ptr {code.let(f'getelementptr i64, ptr %offsets, i64 {row}')}")
        rows.append(code.let(f"getelementptr i32, ptr %bits, i64 {offset}"))
    code.raw("  br label %loop", "loop:")
    code.raw("  %column = phi i64 [ %start, %entry ], [ %next, %loop ]")
    code.raw(f"  %largest = phi {v} [ zeroinitializer, %entry ], [ %larger, %loop ]")
    largest, keys = "%largest", []
    for base in rows:
        place = code.let(f"getelementptr i32, ptr {base}, i64 %column")
        bits = code.let(f"load {v}, ptr {place}, align 4")
        ahead = code.let(f"getelementptr i8, ptr {place}, i64 {_PREFETCH_BYTES}")
        code.raw(f"  call void @llvm.prefetch.p0(ptr {ahead}, i32 0, i32 3, i32 1)")
        largest = larger_magnitude(code, largest, bits)
        keys.append(flip_negative(code, bits))
    for left, right, needs_left, needs_right in sorting_network(n, *ranks):
        a, b = keys[left], keys[right]
        if needs_left:
            keys[left] = extreme(code, "smin", a, b)
        if needs_right:
            keys[right] = extreme(code, "smax", a, b)
    doubles: dict[int, str] = {}

    def ranked(rank: int) -> str:
        if rank not in doubles:
            doubles[rank] = double(code, keys[rank])
        return doubles[rank]

    mean = reduce(code, ranked)
    store_result(code, mean, "0")
    code.raw(f"  %larger = or {v} {largest}, zeroinitializer", f"  %next = add i64 %column, {lanes}")
    code.raw("  %goes_on = icmp slt i64 %next, %stop", "  br i1 %goes_on, label %loop, label %done", "done:")
    code.raw(f"  %worst = call i32 @llvm.vector.reduce.smax.v{lanes}i32({v} %larger)", "  ret i32 %worst", "}")


def _in_tiles(code: Code, n: int, reduce: Reduce) -> None:
    v = code.ints
    fill_tile(code, n, TILE_VECTORS)
    code.raw("  br label %exchange", "exchange:", "  %pair = phi i64 [ 0, %sort ], [ %next_pair, %exchange ]")
    pair = code.let("getelementptr [2 x i64], ptr %pairs, i64 %pair")
    ends = [code.let(f"load i64, ptr {code.let(f'getelementptr i64, ptr {pair}, i64 {side}')}") for side in (0, 1)]
    left, right = (code.let(f"getelementptr i8, ptr %tile, i64 {end}") for end in ends)
    for part in range(TILE_VECTORS):
        places = [code.let(f"getelementptr {v}, ptr {side}, i64 {part}") for side in (left, right)]
        a, b = (code.let(f"load {v}, ptr {place}, align 64") for place in places)
        code.raw(f"  store {v} {extreme(code, 'smin', a, b)}, ptr {places[0]}, align 64")
        code.raw(f"  store {v} {extreme(code, 'smax', a, b)}, ptr {places[1]}, align 64")
    code.raw("  %next_pair = add i64 %pair, 1", "  %more_pairs = icmp slt i64 %next_pair, %num_pairs")
    code.raw("  br i1 %more_pairs, label %exchange, label %reduce", "reduce:")
    code.raw("  %part = phi i64 [ 0, %exchange ], [ %next_part, %reduce ]")
    vector = code.let(f"getelementptr {v}, ptr %tile, i64 %part")

    def ranked(rank: int) -> str:
        place = code.let(f"getelementptr {v}, ptr {vector}, i64 {rank * TILE_VECTORS}")
        return double(code, code.let(f"load {v}, ptr {place}, align 64"))

    store_result(code, reduce(code, ranked), "%part")
    code.raw("  %next_part = add i64 %part, 1", f"  %more_parts = icmp slt i64 %next_part, {TILE_VECTORS}")
    code.raw("  br i1 %more_parts, label %reduce, label %finish", "finish:")
    finish_tile(code, TILE_VECTORS)
