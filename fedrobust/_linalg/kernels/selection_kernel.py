"""One or two order statistics of many rows, by bisection: count how many keys are no larger than a guess, and halve.

A dozen or two passes over a tile in the cache cost less than sorting it from a few hundred rows on.
"""

from collections.abc import Callable
from functools import partial

from fedrobust._linalg.kernels.kernel_parts import Reduce, double, extreme, fill_tile, finish_tile, store_result
from fedrobust._linalg.kernels.native import Code

_UNROLLED = 8

Step = Callable[[str, list[str]], list[str]]
"""From the name of a row's keys and of what is carried to what is carried on."""


def select_in_tiles(code: Code, n: int, vectors: int, first: int, last: int, reduce: Reduce) -> None:
    """A kernel that selects rank `first`, and the next one if `last` is `first + 2`, in tiles of `vectors` vectors."""
    fill_tile(code, n, vectors)
    before = "sort"
    for part in range(vectors):
        before = _bisect(code, n, vectors, part, first, before)
        rank, following, before = _ends(code, n, vectors, part, first, before)
        ordered = {first: rank, first + 1: following}
        store_result(code, reduce(code, partial(_as_double, code, ordered)), str(part))
    finish_tile(code, vectors)


def _as_double(code: Code, ordered: dict[int, str], rank: int) -> str:
    return double(code, ordered[rank])


def _ends(code: Code, n: int, vectors: int, part: int, rank: int, before: str) -> tuple[str, str, str]:
    """The keys of `rank` and of the next rank, which lie at or below and above `%found_<part>`; and the block."""
    v, mask = code.ints, f"<{code.lanes} x i1>"
    smallest, greatest = (code.splat("i32", value) for value in (-0x80000000, 0x7FFFFFFF))

    def look(keys: str, carried: list[str]) -> list[str]:
        count, below, above = carried
        inside = code.let(f"icmp sle {v} {keys}, %found_{part}")
        count = code.let(f"add {v} {count}, {code.let(f'zext {mask} {inside} to {v}')}")
        low = code.let(f"select {mask} {inside}, {v} {keys}, {v} {smallest}")
        high = code.let(f"select {mask} {inside}, {v} {greatest}, {v} {keys}")
        return [count, extreme(code, "smax", below, low), extreme(code, "smin", above, high)]

    start = ["zeroinitializer", smallest, greatest]
    (count, found, above), before = _over_rows(code, n, vectors, part, f"ends_{part}", before, start, look)
    is_tied = code.let(f"icmp sge {v} {count}, {code.splat('i32', rank + 2)}")
    return found, code.let(f"select {mask} {is_tied}, {v} {found}, {v} {above}"), before


def _bisect(code: Code, n: int, vectors: int, part: int, rank: int, before: str) -> str:
    """Adds `%found_<part>`, at or above rank `rank` and below the next larger key; the block that it ends in."""
    v, mask, lanes = code.ints, f"<{code.lanes} x i1>", code.lanes
    label = f"halve_{part}"
    code.raw(f"  br label %{label}", f"{label}:")
    code.raw(f"  %from_{part} = phi {v} [ %least_{part}, %{before} ], [ %from_next_{part}, %{label}_end ]")
    code.raw(f"  %to_{part} = phi {v} [ %most_{part}, %{before} ], [ %found_{part}, %{label}_end ]")
    both = code.let(f"and {v} %from_{part}, %to_{part}")  # the mean of two integers, without overflow
    half = code.let(f"ashr {v} {code.let(f'xor {v} %from_{part}, %to_{part}')}, {code.splat('i32', 1)}")
    guess = code.let(f"add {v} {both}, {half}")

    def add(keys: str, carried: list[str]) -> list[str]:
        inside = code.let(f"icmp sle {v} {keys}, {guess}")
        return [code.let(f"add {v} {carried[0]}, {code.let(f'zext {mask} {inside} to {v}')}")]

    (count,), _ = _over_rows(code, n, vectors, part, f"{label}_count", label, ["zeroinitializer"], add)
    code.raw(f"  br label %{label}_end", f"{label}_end:")
    enough = code.let(f"icmp sgt {v} {count}, {code.splat('i32', rank)}")
    code.raw(f"  %found_{part} = select {mask} {enough}, {v} {guess}, {v} %to_{part}")
    exact = code.let(f"icmp eq {v} {count}, {code.splat('i32', rank + 1)}")
    higher = code.let(f"add {v} {guess}, {code.splat('i32', 1)}")
    raised = code.let(f"select {mask} {enough}, {v} %from_{part}, {v} {higher}")
    code.raw(f"  %from_next_{part} = select {mask} {exact}, {v} {guess}, {v} {raised}")
    open_lanes = code.let(f"icmp ne {v} %from_next_{part}, %found_{part}")
    any_open = code.let(f"icmp ne i{lanes} {code.let(f'bitcast {mask} {open_lanes} to i{lanes}')}, 0")
    code.raw(f"  br i1 {any_open}, label %{label}, label %{label}_done", f"{label}_done:")
    return f"{label}_done"


def _over_rows(
    code: Code, n: int, vectors: int, part: int, label: str, before: str, start: list[str], step: Step
) -> tuple[list[str], str]:
    """A loop over one vector of each row of the tile that carries integer vectors; them, and the block it ends in."""
    v = code.ints
    rounds = n // _UNROLLED
    carried = [f"%{label}_{index}" for index in range(len(start))]
    code.raw(f"  br label %{label}", f"{label}:")
    code.raw(f"  %{label}_round = phi i64 [ 0, %{before} ], [ %{label}_next, %{label} ]")
    for name, value in zip(carried, start, strict=True):
        code.raw(f"  {name} = phi {v} [ {value}, %{before} ], [ {name}_next, %{label} ]")
    base = code.let(f"mul i64 %{label}_round, {_UNROLLED * vectors}")
    place = code.let(f"getelementptr {v}, ptr %tile, i64 {base}")

    def load(place: str, index: int) -> str:
        where = code.let(f"getelementptr {v}, ptr {place}, i64 {index * vectors + part}")
        return code.let(f"load {v}, ptr {where}, align 64")

    values = carried
    for index in range(_UNROLLED):
        values = step(load(place, index), values)
    for name, value in zip(carried, values, strict=True):
        code.raw(f"  {name}_next = or {v} {value}, zeroinitializer")
    code.raw(f"  %{label}_next = add i64 %{label}_round, 1")
    code.raw(f"  %{label}_more = icmp slt i64 %{label}_next, {rounds}")
    code.raw(f"  br i1 %{label}_more, label %{label}, label %{label}_done", f"{label}_done:")
    values = [f"{name}_next" for name in carried]
    for row in range(rounds * _UNROLLED, n):
        values = step(load("%tile", row), values)
    return values, f"{label}_done"
