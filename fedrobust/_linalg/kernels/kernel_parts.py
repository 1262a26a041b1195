"""What the kernels of order statistics have in common: keys that order as floats do, and how a tile is filled."""

from collections.abc import Callable

from fedrobust._linalg.kernels.native import Code

INFINITY = 0x7F800000
"""A kernel's result is the largest magnitude, as bits, of all numbers that it read; below this all were finite."""

HEAD = (
    "define i32 @kernel(ptr %bits, ptr %offsets, i64 %start, i64 %stop, ptr %pairs, i64 %num_pairs, ptr %tile, "
    "ptr %result) #0 {"
)

Ranked = Callable[[int], str]
"""The name of the double vector that holds a rank's values."""

Reduce = Callable[[Code, Ranked], str]
"""Adds the code that makes a result of sorted values; its name, a float vector."""


def quotient(code: Code, total: str, divisor: int) -> str:
    """Doubles divided by a constant, as floats."""
    mean = code.let(f"fdiv {code.doubles} {total}, {code.splat('double', float(divisor))}")
    return code.let(f"fptrunc {code.doubles} {mean} to {code.floats}")


def flip_negative(code: Code, bits: str) -> str:
    """The integer that orders as the float does, and back."""
    sign = code.let(f"ashr {code.ints} {bits}, {code.splat('i32', 31)}")
    flip = code.let(f"and {code.ints} {sign}, {code.splat('i32', 0x7FFFFFFF)}")
    return code.let(f"xor {code.ints} {bits}, {flip}")


def double(code: Code, key: str) -> str:
    """The doubles that keys stand for."""
    number = code.let(f"bitcast {code.ints} {flip_negative(code, key)} to {code.floats}")
    return code.let(f"fpext {code.floats} {number} to {code.doubles}")


def larger_magnitude(code: Code, largest: str, bits: str) -> str:
    """The larger of `largest` and the magnitudes of floats, all as bits."""
    magnitude = code.let(f"and {code.ints} {bits}, {code.splat('i32', 0x7FFFFFFF)}")
    return extreme(code, "smax", largest, magnitude)


def extreme(code: Code, which: str, a: str, b: str) -> str:
    """The smaller ("smin") or larger ("smax") of two integer vectors, lane by lane."""
    return code.let(f"call {code.ints} @llvm.{which}.v{code.lanes}i32({code.ints} {a}, {code.ints} {b})")


def fill_tile(code: Code, n: int, vectors: int) -> None:
    """The loop `rows` that fills the tile with `vectors` vectors of each row's keys, from `%column` on.

    It follows the block `tiles` and goes on to `sort`. Afterwards `%larger` is the largest magnitude so far, and
    `%least_0`, `%most_0`, ... are each vector's smallest and largest keys.
    """
    v, lanes = code.ints, code.lanes
    code.raw(HEAD, "entry:", "  br label %tiles", "tiles:")
    code.raw("  %column = phi i64 [ %start, %entry ], [ %next, %reduced ]")
    code.raw(f"  %largest = phi {v} [ zeroinitializer, %entry ], [ %larger, %reduced ]", "  br label %rows", "rows:")
    code.raw("  %row = phi i64 [ 0, %tiles ], [ %next_row, %rows ]")
    code.raw(f"  %seen = phi {v} [ %largest, %tiles ], [ %larger, %rows ]")
    smallest, greatest = (code.splat("i32", value) for value in (-0x80000000, 0x7FFFFFFF))
    for part in range(vectors):
        code.raw(f"  %low_{part} = phi {v} [ {greatest}, %tiles ], [ %least_{part}, %rows ]")
        code.raw(f"  %high_{part} = phi {v} [ {smallest}, %tiles ], [ %most_{part}, %rows ]")
    offset = code.let(f"load i64, ptr {code.let('getelementptr i64, ptr %offsets, i64 %row')}")
    source = code.let(f"getelementptr i32, ptr %bits, i64 {code.let(f'add i64 {offset}, %column')}")
    target = code.let(f"getelementptr i8, ptr %tile, i64 {code.let(f'mul i64 %row, {vectors * lanes * 4}')}")
    largest = "%seen"
    for part in range(vectors):
        bits = code.let(f"load {v}, ptr {code.let(f'getelementptr {v}, ptr {source}, i64 {part}')}, align 4")
        largest = larger_magnitude(code, largest, bits)
        ordered = flip_negative(code, bits)
        for which, before, after in (("smin", "low", "least"), ("smax", "high", "most")):
            found = extreme(code, which, f"%{before}_{part}", ordered)
            code.raw(f"  %{after}_{part} = or {v} {found}, zeroinitializer")
        code.raw(f"  store {v} {ordered}, ptr {code.let(f'getelementptr {v}, ptr {target}, i64 {part}')}, align 64")
    code.raw(f"  %larger = or {v} {largest}, zeroinitializer", "  %next_row = add i64 %row, 1")
    code.raw(f"  %more_rows = icmp slt i64 %next_row, {n}", "  br i1 %more_rows, label %rows, label %sort", "sort:")


def finish_tile(code: Code, vectors: int) -> None:
    """Go on to the next tile, or return."""
    code.raw("  br label %reduced", "reduced:", f"  %next = add i64 %column, {vectors * code.lanes}")
    code.raw("  %goes_on = icmp slt i64 %next, %stop", "  br i1 %goes_on, label %tiles, label %done", "done:")
    code.raw(f"  %worst = call i32 @llvm.vector.reduce.smax.v{code.lanes}i32({code.ints} %larger)")
    code.raw("  ret i32 %worst", "}")


def store_result(code: Code, mean: str, part: str) -> None:
    """Write one vector of results, `part` vectors after `%column`."""
    first = code.let("getelementptr float, ptr %result, i64 %column")
    where = code.let(f"getelementptr {code.floats}, ptr {first}, i64 {part}")
    code.raw(f"  store {code.floats} {mean}, ptr {where}, align 4")
