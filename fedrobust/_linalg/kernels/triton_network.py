"""Order statistics of float32 coordinates on a GPU: Triton kernels, written for one n at a time.

A thread reads its coordinate's n values once, runs them through the whole sorting network in registers, and adds up the
kept ranks in float64, lowest first, as the readable form in `order_statistics` does: the same bits. Values are compared
as floats: which of two equal zeros comes first makes no difference to a sum that starts from zero.
"""

import functools
import linecache
from collections.abc import Iterator
from types import ModuleType
from typing import Any

from fedrobust._linalg.kernels.kernel_parts import INFINITY
from fedrobust._linalg.kernels.network_kernels import Reduction
from fedrobust._linalg.kernels.sorting_network import sorting_network

COLUMNS_A_BLOCK = 128
WARPS_A_BLOCK = 4
"""One coordinate a thread: the hardware's registers then hold n values, neighbouring threads read side by side."""


@functools.lru_cache(maxsize=64)
def network_kernel(triton: ModuleType, n: int, reduction: Reduction, first: int, last: int) -> Any:
    """A Triton kernel (points, offsets, result, refused, num_columns, BLOCK) over blocks of `BLOCK` columns.

    Row i of n begins `offsets[i]` numbers (int64) from `points`. `refused`, one int32, is set to 1 if anything that was
    read is not finite; the result is then incomplete. Nothing is compiled before the first launch.

    Args:
        triton: the module.
        n: rows.
        reduction: "mean_of_ranks" first, ..., last - 1, or "mean_nearest_to_median" of the `first` nearest.
        first: see above.
        last: see above.
    """
    name = f"{reduction}_{n}_{first}_{last}"
    text = "\n".join(_source(name, n, reduction, first, last)) + "\n"
    path = f"<fedrobust {name}>"
    linecache.cache[path] = (len(text), None, text.splitlines(keepends=True), path)  # where Triton looks for the source
    names: dict[str, Any] = {"tl": triton.language, "__name__": __name__}
    exec(compile(text, path, "exec"), names)
    pointers_and_size = ["points", "offsets", "result", "refused", "num_columns"]
    return triton.jit(names[name], do_not_specialize=pointers_and_size)  # compiled once, however they are aligned


def _source(name: str, n: int, reduction: Reduction, first: int, last: int) -> Iterator[str]:
    """The kernel's text, every value under a name of its own.

    For each access to memory Triton's compiler looks at all that is connected with it, and for each of those at all
    that is connected with them: 10 to 20 s at n = 100. So the reads are in a branch of their own, always taken, and
    what else they would share with the rest is computed twice, as integers of different widths: 2 or 3 s.
    """
    yield f"def {name}(points, offsets, result, refused, num_columns, BLOCK: tl.constexpr):"
    yield "    largest = tl.zeros([BLOCK], tl.int32)"
    yield from (f"    x{row} = tl.zeros([BLOCK], tl.float32)" for row in range(n))
    yield "    if num_columns > 0:"
    yield "        place = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)"
    yield "        exists = place < num_columns"
    for row in range(n):
        yield f"        x{row} = tl.load(points + tl.load(offsets + {row}) + place, mask=exists, other=0.0)"
        yield f"        largest = tl.maximum(largest, x{row}.to(tl.int32, bitcast=True) & 0x7FFFFFFF)"
    yield f"    if tl.max(largest, axis=0) < {INFINITY}:"
    yield from (f"        {line}" for line in _sorting_and_reducing(n, reduction, first, last))
    yield "        column = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)"
    yield "        tl.store(result + column, mean, mask=column < num_columns)"
    yield "    else:"
    yield "        tl.store(refused, 1)"


def _sorting_and_reducing(n: int, reduction: Reduction, first: int, last: int) -> Iterator[str]:
    ranks = (first, last) if reduction == "mean_of_ranks" else (0, n)
    names = [f"x{row}" for row in range(n)]
    for index, (left, right, needs_left, needs_right) in enumerate(sorting_network(n, *ranks)):
        a, b = names[left], names[right]
        if needs_left:
            names[left] = f"a{index}"
            yield f"a{index} = tl.minimum({a}, {b})"
        if needs_right:
            names[right] = f"b{index}"
            yield f"b{index} = tl.maximum({a}, {b})"
    yield from (f"d{rank} = {names[rank]}.to(tl.float64)" for rank in range(*ranks))
    yield "total = tl.zeros([BLOCK], tl.float64)"
    if reduction == "mean_of_ranks":
        yield from (f"total = total + d{rank}" for rank in range(first, last))
        yield f"mean = (total / {last - first}).to(tl.float32)"
        return
    kept = first  # see `order_statistics.window_mean` for why the window moves as it does
    yield f"median = (d{(n - 1) // 2} + d{n // 2}) * 0.5"
    moves = [f"(median - d{rank} > d{rank + kept} - median).to(tl.int32)" for rank in range(n - kept)]
    yield f"low = {moves[0]}" if moves else "low = (median > median).to(tl.int32)"
    yield from (f"low = low + {move}" for move in moves[1:])
    for rank in range(n):  # low <= rank < low + kept, where 0 <= low <= n - kept leaves that open
        inside = [f"(low < {rank + 1})"] * (rank < n - kept) + [f"(low >= {rank - kept + 1})"] * (rank >= kept)
        counted = f"tl.where({' & '.join(inside)}, d{rank}, 0.0)" if inside else f"d{rank}"
        yield f"total = total + {counted}"
    yield f"mean = (total / {kept}).to(tl.float32)"
