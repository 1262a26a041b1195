"""A rule gives the same answer wherever its input lies, and refuses what is not finite, over the table of all rules."""

import math
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from rule_cases import CASES, sample
from torch import Tensor

from fedrobust._linalg.columns import Points, Shards, open_memory_map
from fedrobust.aggregators import Aggregate

ALL = pytest.mark.parametrize("name", CASES)
D = 70_001
"""More than one chunk of columns, and no multiple of anything."""


@pytest.fixture(scope="module")
def points() -> Tensor:
    return sample(20, D).float()


@pytest.fixture(scope="module")
def answers(points: Tensor) -> Callable[[str], Aggregate]:
    known: dict[str, Aggregate] = {}

    def answer(name: str) -> Aggregate:
        if name not in known:
            known[name] = CASES[name](points)
        return known[name]

    return answer


def assert_same(answer: Aggregate, expected: Aggregate) -> None:
    """Equal but for float32 sums in another order, which nearly equal eigenvalues of honest updates amplify."""
    gap = (answer.update.cpu() - expected.update).norm()
    assert gap <= 1e-5 * expected.update.norm()
    for mine, other in ((answer.shares, expected.shares), (answer.scores, expected.scores)):
        assert (mine is None) == (other is None)
        if mine is not None and other is not None:
            torch.testing.assert_close(mine.cpu(), other, rtol=0, atol=1e-3 * float(other.abs().max()))


@ALL
@pytest.mark.parametrize("bounds", [(0, 30_000, D), (0, 1, 65_537, D)])
def test_shards_of_columns(name: str, bounds: tuple[int, ...], points: Tensor, answers) -> None:
    parts = tuple(points[:, start:stop] for start, stop in pairwise(bounds))
    assert_same(CASES[name](Shards(parts)), answers(name))


@ALL
def test_a_memory_mapped_file(name: str, points: Tensor, answers, tmp_path: Path) -> None:
    points.numpy().tofile(tmp_path / "updates.bin")
    mapped = open_memory_map(tmp_path / "updates.bin", 20, D)
    assert_same(CASES[name](mapped), answers(name))
    assert np.array_equal(np.fromfile(tmp_path / "updates.bin", dtype=np.float32), points.numpy().ravel())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@ALL
def test_a_gpu(name: str, points: Tensor, answers) -> None:
    answer = CASES[name](points.cuda())
    assert answer.update.is_cuda
    assert_same(answer, answers(name))


@ALL
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("form", ["tensor", "shards"])
def test_a_row_that_is_not_finite_is_named(name: str, bad: float, form: str) -> None:
    points = sample(20, 50).float()
    points[7, slice(None) if name == "dnc_subsampled" else 3] = bad  # of a dropped client it sees the subsample only
    points[11] = bad
    given: Points = points if form == "tensor" else Shards.split(points, ["cpu", "cpu"])
    with pytest.raises(ValueError, match=r"updates must be finite, rows \[7, 11\] hold NaN or infinity"):
        CASES[name](given)
