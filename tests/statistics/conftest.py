"""What several of these tests compare with."""

from collections.abc import Callable

import pytest


@pytest.fixture(scope="session")
def smallest_half_plane_count() -> Callable[..., int]:
    """N times the half-space depth of a point in the plane, by counting: exact for integers and fractions.

    The boundary is turned onto each datum and then a little to either side: data on the boundary count where the turn
    puts them.
    """

    def count(point, data) -> int:
        vectors = [(x - point[0], y - point[1]) for x, y in data]
        away = [(x, y) for x, y in vectors if (x, y) != (0, 0)]
        smallest = len(away)
        for ax, ay in away:
            for sign in (1, -1):
                for turn in (1, -1):
                    beyond = 0
                    for x, y in away:
                        side = sign * (ax * y - ay * x)
                        beyond += side > 0 or (side == 0 and turn * (ax * x + ay * y) > 0)
                    smallest = min(smallest, beyond)
        return smallest + len(vectors) - len(away)

    return count
