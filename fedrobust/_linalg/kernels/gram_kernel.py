"""Products of all pairs of rows of a wide float32 matrix, at close to the processor's peak, as machine code.

Rows are contiguous along d, so four rows against four need no packing: their sixteen products stay in registers over a
chunk of columns, and are then added up in float64. Only pairs i <= j are computed, which is half of what BLAS does.
"""

import functools
from collections.abc import Callable
from itertools import pairwise
from threading import Lock

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedrobust._linalg.kernels.native import (
    Code,
    can_compile,
    compile_kernel,
    over_column_spans,
    vector_lanes,
)
from fedrobust._linalg.threads import in_turns

_SIDE = 4
_CHUNK = 1024
"""Columns over which products are added in float32: 4 KB of a row, of which a hundred rows stay in the cache."""

_BLOCK = 64
"""Rows of which two blocks stay in the cache for one chunk of columns."""

_PACKED_COLUMNS = 1 << 13
_PACKED_PART = 64
"""A thread's copy is at most such a part of the points, where they are large."""

_MOST_ROWS_BY_COLUMNS = 512
_SHARED_COLUMNS = 1 << 12
_TILE_PARTS = 8
_ALIASED_BYTES = 1 << 12
_WORTH_COMPILING = 1 << 16


def can_multiply(points: Tensor) -> bool:
    """Whether `row_products` can take `points`, and it pays."""
    return (
        points.device.type == "cpu"
        and points.dtype != torch.float64
        and points.shape[1] >= vector_lanes()
        and points.numel() >= _WORTH_COMPILING
        and can_compile()
    )


def row_products(points: Tensor, centre: Tensor | None = None) -> Tensor:
    """(X - c)(X - c)ᵀ, `(n, n)` float64: float32 products, their sums over 1,024 columns in float64.

    Args:
        points: X, `(n, d)` on the CPU, for which `can_multiply` holds; not changed. Half precision is widened.
        centre: c, `(d,)`; nothing is subtracted if `None`.
    """
    n, d = points.shape
    width = d // vector_lanes() * vector_lanes()
    must_copy = centre is not None or points.dtype != torch.float32 or points.stride(1) != 1
    # Rows a multiple of a page apart all fall into the same lines of the cache, and drive one another out.
    must_copy |= points.stride(0) * 4 % _ALIASED_BYTES == 0
    if n > _MOST_ROWS_BY_COLUMNS:
        gram = _by_tiles(points, centre, width, must_copy)
    elif must_copy:
        gram = _summed((n, d), width, lambda start, stop: _of_copies(points, centre, start, stop))
    else:
        source, stride = points.data_ptr(), points.stride(0)
        gram = _summed((n, d), width, lambda start, stop: _of_span(source, n, stride, start, stop))
    if width < d:
        rest = points[:, width:].double()
        if centre is not None:
            rest -= centre[width:].double()
        gram.addmm_(rest, rest.T)
    return _mirrored(gram)


def _mirrored(gram: Tensor) -> Tensor:
    """What lies above the diagonal, copied below it in place, a few rows at a time."""
    numbers = gram.numpy()  # torch's `triu` wakes all threads for the smallest matrix
    for start in range(0, len(gram), _BLOCK):
        stop = start + _BLOCK
        corner = numbers[start:stop, start:stop]
        np.copyto(corner, corner.T, where=_below_diagonal(len(corner)))
        numbers[stop:, start:stop] = numbers[start:stop, stop:].T
    return gram


@functools.lru_cache(maxsize=_BLOCK)
def _below_diagonal(size: int) -> NDArray[np.bool_]:
    return np.tri(size, k=-1, dtype=np.bool_)


def _by_tiles(points: Tensor, centre: Tensor | None, width: int, must_copy: bool) -> Tensor:
    """Products over columns 0, ..., width - 1 of many rows: threads share the tiles of one matrix.

    To share the columns each would need a matrix of its own, and of a thousand rows that is 8 MB.
    """
    n = len(points)
    padded = -(-n // _SIDE) * _SIDE
    tiles, num_diagonal = _tiles(padded // _SIDE)
    num_parts = min(_TILE_PARTS, num_diagonal)  # each has one tile on the diagonal at least
    bounds = np.linspace([0, num_diagonal], [num_diagonal, len(tiles)], num_parts + 1).astype(np.int64)
    parts = [
        (np.concatenate([tiles[diagonal:diagonal_stop], tiles[other:other_stop]]), int(diagonal_stop - diagonal))
        for (diagonal, other), (diagonal_stop, other_stop) in pairwise(bounds)
    ]
    gram = np.zeros((padded, padded))
    buffer = torch.empty(n, _SHARED_COLUMNS + vector_lanes()) if must_copy else points  # an odd number of cache lines
    offsets = _offsets(n, buffer.stride(0))
    kernel, source = _kernel(), buffer.data_ptr()
    for low in range(0, width, _SHARED_COLUMNS):
        high = min(low + _SHARED_COLUMNS, width)
        if must_copy:
            _copy(points, centre, low, high, buffer)
        start, stop = (0, high - low) if must_copy else (low, high)

        def multiply(part: tuple[NDArray[np.int64], int], start: int = start, stop: int = stop) -> None:
            some, first = part
            place, target = some.ctypes.data, gram.ctypes.data
            kernel(source, offsets.ctypes.data, start, stop, place, first, len(some), target, padded)

        in_turns(parts, multiply)
    return torch.from_numpy(gram if padded == n else gram[:n, :n].copy())


def _summed(shape: tuple[int, int], width: int, work: Callable[[int, int], NDArray[np.float64]]) -> Tensor:
    """The sum of `work(start, stop)` over spans that make up columns 0, ..., width - 1, from the left to the right.

    A result is added as soon as those before it are: to keep them all would take more memory than the points.
    """
    total = np.zeros((shape[0], shape[0]))
    waiting: dict[int, tuple[int, NDArray[np.float64]]] = {}
    reached, lock = 0, Lock()

    def add(start: int, stop: int) -> None:
        nonlocal reached, total
        part = work(start, stop)
        with lock:
            waiting[start] = stop, part
            while reached in waiting:
                reached, part = waiting.pop(reached)
                total += part

    over_column_spans(shape, vector_lanes(), add, width)
    return torch.from_numpy(total)


def _of_copies(points: Tensor, centre: Tensor | None, start: int, stop: int) -> NDArray[np.float64]:
    n = len(points)
    total = np.zeros((n, n))
    columns = min(_PACKED_COLUMNS, max(_CHUNK, points.shape[1] // _PACKED_PART // _CHUNK * _CHUNK), stop - start)
    buffer = torch.empty(n, columns + vector_lanes())  # an odd number of cache lines
    for low in range(start, stop, columns):
        high = min(low + columns, stop)
        _copy(points, centre, low, high, buffer)
        total += _of_span(buffer.data_ptr(), n, buffer.stride(0), 0, high - low)
    return total


def _copy(points: Tensor, centre: Tensor | None, low: int, high: int, buffer: Tensor) -> None:
    copied = buffer[:, : high - low]
    copied.copy_(points[:, low:high])
    if centre is not None:
        copied -= centre[low:high].to(torch.float32)


def _offsets(n: int, stride: int) -> NDArray[np.int64]:
    """Where rows begin; the last one stands in for those that are missing to a full tile."""
    return np.minimum(np.arange(-(-n // _SIDE) * _SIDE), n - 1) * stride


def _of_span(source: int, n: int, stride: int, start: int, stop: int) -> NDArray[np.float64]:
    """Products over columns start, ..., stop - 1; what lies below the diagonal is not meant to be read."""
    offsets = _offsets(n, stride)
    padded = len(offsets)
    tiles, num_diagonal = _tiles(padded // _SIDE)
    gram = np.zeros((padded, padded))
    _kernel()(
        source,
        offsets.ctypes.data,
        start,
        stop,
        tiles.ctypes.data,
        num_diagonal,
        len(tiles),
        gram.ctypes.data,
        padded,
    )
    return gram[:n, :n]


@functools.lru_cache(maxsize=16)
def _tiles(num_groups: int) -> tuple[NDArray[np.int64], int]:
    """Which group of rows meets which: the diagonal first, then block by block; and how many lie on the diagonal."""
    groups, size = np.arange(num_groups), _BLOCK // _SIDE
    diagonal = np.stack([groups, groups], axis=1)
    left, right = np.triu_indices(num_groups, 1)
    order = np.lexsort((right, left, right // size, left // size))
    others = np.stack([left[order], right[order]], axis=1)
    return np.ascontiguousarray(np.concatenate([diagonal, others]) * _SIDE, dtype=np.int64), num_groups


@functools.cache
def _kernel() -> Callable[..., int]:
    """A function (bits, offsets, start, stop, tiles, num_diagonal, num_tiles, gram, row length of gram)."""
    code = Code(vector_lanes())
    code.raw(
        "define i32 @products(ptr %bits, ptr %offsets, i64 %start, i64 %stop, ptr %tiles, i64 %num_diagonal, "
        "i64 %num_tiles, ptr %gram, i64 %n) #0 {",
        "entry:",
        "  br label %chunks",
        "chunks:",
        "  %column = phi i64 [ %start, %entry ], [ %end, %chunk_done ]",
        f"  %full = add i64 %column, {_CHUNK}",
        "  %end = call i64 @llvm.smin.i64(i64 %full, i64 %stop)",
        "  br label %diagonal",
    )
    _tile_loop(code, "diagonal", "chunks", "0", "%num_diagonal", "between", prefetches=True)
    code.raw("between:", "  %has_others = icmp slt i64 %num_diagonal, %num_tiles")
    code.raw("  br i1 %has_others, label %others, label %chunk_done")
    _tile_loop(code, "others", "between", "%num_diagonal", "%num_tiles", "chunk_done", prefetches=False)
    code.raw("chunk_done:", "  %goes_on = icmp slt i64 %end, %stop", "  br i1 %goes_on, label %chunks, label %done")
    code.raw("done:", "  ret i32 0", "}", "declare i64 @llvm.smin.i64(i64, i64)")
    return compile_kernel(code, "products", 9)


def _tile_loop(code: Code, label: str, before: str, first: str, last: str, after: str, *, prefetches: bool) -> None:
    """Loop `label` over tiles first, ..., last - 1, each over the columns of the chunk."""
    f, d, lanes = code.floats, code.doubles, code.lanes
    code.raw(f"{label}:", f"  %{label}_tile = phi i64 [ {first}, %{before} ], [ %{label}_next, %{label}_sums ]")
    tile = code.let(f"getelementptr [2 x i64], ptr %tiles, i64 %{label}_tile")
    groups = [code.let(f"load i64, ptr {code.let(f'getelementptr i64, ptr {tile}, i64 {side}')}") for side in (0, 1)]
    rows: list[list[str]] = []
    for group in groups:
        rows.append([])
        for index in range(_SIDE):
            place = code.let(f"getelementptr i64, ptr %offsets, i64 {code.let(f'add i64 {group}, {index}')}")
            rows[-1].append(code.let(f"getelementptr float, ptr %bits, i64 {code.let(f'load i64, ptr {place}')}"))
    code.raw(f"  br label %{label}_columns", f"{label}_columns:")
    code.raw(f"  %{label}_column = phi i64 [ %column, %{label} ], [ %{label}_column_next, %{label}_columns ]")
    sums = [[f"%{label}_{i}_{j}" for j in range(_SIDE)] for i in range(_SIDE)]
    for i in range(_SIDE):
        for j in range(_SIDE):
            code.raw(f"  {sums[i][j]} = phi {f} [ zeroinitializer, %{label} ], [ {sums[i][j]}_next, %{label}_columns ]")
    loaded: list[list[str]] = []
    for side in (0, 1):
        loaded.append([])
        for row in rows[side]:
            place = code.let(f"getelementptr float, ptr {row}, i64 %{label}_column")
            loaded[-1].append(code.let(f"load {f}, ptr {place}, align 4"))
            if prefetches and side == 0:
                ahead = code.let(f"getelementptr float, ptr {place}, i64 {_CHUNK}")
                code.raw(f"  call void @llvm.prefetch.p0(ptr {ahead}, i32 0, i32 2, i32 1)")
    for i in range(_SIDE):
        for j in range(_SIDE):
            arguments = f"{f} {loaded[0][i]}, {f} {loaded[1][j]}, {f} {sums[i][j]}"
            code.raw(f"  {sums[i][j]}_next = call {f} @llvm.fma.v{lanes}f32({arguments})")
    code.raw(f"  %{label}_column_next = add i64 %{label}_column, {lanes}")
    code.raw(f"  %{label}_more_columns = icmp slt i64 %{label}_column_next, %end")
    code.raw(f"  br i1 %{label}_more_columns, label %{label}_columns, label %{label}_sums", f"{label}_sums:")
    for i in range(_SIDE):
        line = code.let(f"mul i64 {code.let(f'add i64 {groups[0]}, {i}')}, %n")
        target = code.let(f"getelementptr double, ptr %gram, i64 {code.let(f'add i64 {line}, {groups[1]}')}")
        for j in range(_SIDE):
            wide = code.let(f"fpext {f} {sums[i][j]}_next to {d}")
            place = code.let(f"getelementptr double, ptr {target}, i64 {j}")
            before_it = code.let(f"load double, ptr {place}")
            reduced = f"call reassoc double @llvm.vector.reduce.fadd.v{lanes}f64(double {before_it}, {d} {wide})"
            code.raw(f"  store double {code.let(reduced)}, ptr {place}")
    code.raw(f"  %{label}_next = add i64 %{label}_tile, 1", f"  %{label}_more = icmp slt i64 %{label}_next, {last}")
    code.raw(f"  br i1 %{label}_more, label %{label}, label %{after}")
