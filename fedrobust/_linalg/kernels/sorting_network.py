"""Which elements to compare and exchange, in which order, to sort n of them whatever they are.

Batcher's odd-even merge sort, for any n: D. Knuth, The Art of Computer Programming, volume 3, section 5.3.4.
"""

import functools
from typing import NamedTuple


class Comparator(NamedTuple):
    """Put the smaller of two elements to the left, the larger to the right.

    Attributes:
        left: index of one element.
        right: index of the other, larger than `left`.
        needs_left: whether anything that follows looks at the smaller one.
        needs_right: whether anything that follows looks at the larger one.
    """

    left: int
    right: int
    needs_left: bool
    needs_right: bool


@functools.lru_cache(maxsize=256)
def sorting_network(n: int, first: int, last: int) -> tuple[Comparator, ...]:
    """The comparators after which ranks first, ..., last - 1 are in their places.

    Those that none of these ranks depends on are left out; at n = 100 the median needs 898 of 1,077. The left half is
    sorted before the right half is looked at, so that what is compared next was mostly in use just before.
    """
    pairs: list[tuple[int, int]] = []

    def merge(low: int, size: int, distance: int) -> None:
        if 2 * distance >= size:
            pairs.append((low, low + distance))
            return
        merge(low, size, 2 * distance)
        merge(low + distance, size, 2 * distance)
        pairs.extend((i, i + distance) for i in range(low + distance, low + size - distance, 2 * distance))

    def sort(low: int, size: int) -> None:
        if size > 1:
            sort(low, size // 2)
            sort(low + size // 2, size // 2)
            merge(low, size, 1)

    # A network for the next power of two: what would lie beyond n counts as infinite, and never moves.
    sort(0, 1 << (n - 1).bit_length())
    is_needed = [first <= rank < last for rank in range(n)]
    kept: list[Comparator] = []
    for left, right in reversed(pairs):
        if right < n and (is_needed[left] or is_needed[right]):
            kept.append(Comparator(left, right, is_needed[left], is_needed[right]))
            is_needed[left] = is_needed[right] = True
    return tuple(reversed(kept))
