"""The subset of a given size whose points lie closest together: exact, by search over what must leave."""

import numpy as np
from torch import Tensor


def minimum_diameter_subset(distances: Tensor, num_removed: int) -> list[int]:
    """The n - `num_removed` points with the smallest diameter, ascending.

    Of several such subsets the one with the smallest second-longest distance, then third-longest, and so on; of equal
    distances the one between later points (compared as pairs of indices) counts as longer. So there is one answer.

    Pairs are looked at from the longest on. A pair can be avoided if at most `num_removed` points, one of each avoided
    pair, may leave: a vertex cover. If it can, all answers avoid it; if not, they all keep both its points.

    Args:
        distances: `(n, n)`, squared or not, on the CPU.
        num_removed: 0 <= num_removed < n - 1, or 0.
    """
    n = len(distances)
    first, second = np.triu_indices(n, 1)
    longest_first = np.argsort(distances.numpy()[first, second], kind="stable")[::-1]
    avoided = [0] * n  # bit b of avoided[a]: the pair (a, b) must not be kept
    leaving = 0  # bits: at most num_removed points that hit all avoided pairs
    staying = 0  # bits: in every answer
    for a, b in zip(first[longest_first].tolist(), second[longest_first].tolist(), strict=True):
        if staying.bit_count() == n - num_removed:
            break
        pair = 1 << a | 1 << b
        if staying & pair == pair:
            continue
        avoided[a] |= 1 << b
        avoided[b] |= 1 << a
        if not leaving & pair:
            cover = _cover(avoided, staying, num_removed)
            if cover is None:
                avoided[a] ^= 1 << b
                avoided[b] ^= 1 << a
                staying |= pair
            else:
                leaving = cover
    return [point for point in range(n) if not leaving >> point & 1]


def max_covers(num_removed: int) -> int:
    """How many partial subsets one search looks at, at most: T(f) = 1 + T(f - 1) + T(f - 2), about 1.9·1.62^f."""
    before, now = 0, 1
    for _ in range(num_removed):
        before, now = now, 1 + now + before
    return now


def _cover(neighbours: list[int], staying: int, budget: int) -> int | None:
    """At most `budget` points, as bits, that hit all edges and are not among `staying`; `None` if there are none."""
    forced = 0
    for point in _bits(staying):
        forced |= neighbours[point]
    return _search(neighbours, ((1 << len(neighbours)) - 1) & ~staying & ~forced, forced, budget)


def _search(neighbours: list[int], open_points: int, cover: int, budget: int) -> int | None:
    left = budget - cover.bit_count()
    if left < 0:
        return None
    degrees = {point: (neighbours[point] & open_points).bit_count() for point in _bits(open_points)}
    largest = sorted(degrees.values(), reverse=True)
    num_edges = sum(largest) // 2
    if num_edges == 0:
        return cover
    if sum(largest[:left]) < num_edges:  # not even the points with most edges hit all
        return None
    hub = max(degrees, key=degrees.__getitem__)
    bit = 1 << hub
    if degrees[hub] == 1:  # the edges are apart: one end of each
        for point in _bits(open_points):
            other = neighbours[point] & open_points
            if other > 1 << point:
                cover |= other
        return cover
    # Either the hub leaves, or it stays and all its neighbours leave.
    found = _search(neighbours, open_points & ~bit, cover | bit, budget)
    if found is not None or degrees[hub] > left:
        return found
    around = neighbours[hub] & open_points
    return _search(neighbours, open_points & ~bit & ~around, cover | around, budget)


def _bits(mask: int) -> list[int]:
    found = []
    while mask:
        low = mask & -mask
        found.append(low.bit_length() - 1)
        mask ^= low
    return found
