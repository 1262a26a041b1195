"""Seeds of tests that train for seconds: the first by default, the others among the slow tests."""

from collections.abc import Sequence
from typing import Any

import pytest


def first_of(seeds: Sequence[int], *before: Any) -> list[Any]:
    """Values for `parametrize`: each seed, after the values in `before` if there are any; slow but for the first."""
    cases = []
    for number, seed in enumerate(seeds):
        values = (*before, seed)
        cases.append(pytest.param(*values, marks=pytest.mark.slow if number else ()))
    return cases
