import numpy as np
import pytest

from fedrobust.statistics.sever.filtered_fit import relative_to_quantile


def relative(scores: list[float], drop_fraction: float, groups: list[int] | None = None) -> np.ndarray:
    labels = np.zeros(len(scores), dtype=int) if groups is None else np.array(groups)
    return relative_to_quantile(np.array(scores, dtype=float), labels, drop_fraction)


@pytest.mark.parametrize(("probability", "quantile"), [(0.25, 5.0), (0.5, 8.0), (0.75, 11.0)])
def test_the_quantile_is_matlabs(probability: float, quantile: float) -> None:
    """In MATLAB the sorted six numbers are the 0.5/6, 1.5/6, ..., 5.5/6 quantiles, with lines between."""
    found = relative([2, 5, 6, 10, 11, 13], 1 - probability)
    np.testing.assert_allclose(found, np.array([2, 5, 6, 10, 11, 13]) / quantile)


def test_what_equals_the_quantile_is_dropped() -> None:
    """The 3.5/4-quantile of four numbers is the largest."""
    assert relative([1, 2, 3, 8], 0.125).tolist() == [0.125, 0.25, 0.375, 1.0]


def test_copies_leave_together_up_to_twice_the_fraction() -> None:
    """20 scores, p = 0.1: four copies are 2p of them and go, five are more and stay; those above go in any case."""
    four = relative([1] * 16 + [5, 5, 5, 5 * (1 + 1e-12)], 0.1)
    assert (four >= 1).tolist() == [False] * 16 + [True] * 4
    assert (relative([1] * 15 + [5] * 5, 0.1) < 1).all()
    above = relative([1] * 13 + [5] * 5 + [6, 7], 0.125)
    assert (above >= 1).tolist() == [False] * 13 + [True] * 7
    above = relative([1] * 12 + [5] * 6 + [6, 7], 0.125)
    assert (above >= 1).tolist() == [False] * 18 + [True] * 2


@pytest.mark.parametrize("num_above", [0, 1, 10, 40])
@pytest.mark.parametrize("num_copies", [20, 49, 50])
@pytest.mark.parametrize("jitter", [0.0, 1e-12])
def test_good_samples_above_do_not_save_copies(num_copies: int, num_above: int, jitter: float) -> None:
    """500 samples, p = 0.05: up to 50 copies, 2p, leave in the round whose quantile falls on them."""
    rising = np.linspace(0, 1, 500 - num_copies)
    copies = rising[-num_above - 1] + 1e-6 + jitter * np.arange(num_copies)
    gone = relative([*rising, *copies], 0.05)[-num_copies:] >= 1
    assert gone.all() or (num_above >= 25 and not gone.any())


def test_the_copies_that_may_leave_do_not_shrink_with_the_group() -> None:
    """Of 500 samples 50 may be corrupted also after 60 good ones have left."""
    scores = [*np.linspace(0, 1, 390), *[2.0] * 50]
    groups = np.zeros(440, dtype=np.intp)
    assert not (relative_to_quantile(np.array(scores), groups, 0.05) >= 1).any()
    assert (relative_to_quantile(np.array(scores), groups, 0.05, sizes=np.array([500])) >= 1).sum() == 50


@pytest.mark.parametrize("scores", [[0.0] * 5, [3.0] * 5, [0.0, 0.0, 0.0, 0.0, 9.0], [1.0]])
def test_where_nothing_would_be_left_nothing_is_dropped(scores: list[float]) -> None:
    """The quantile is the smallest score."""
    assert (relative(scores, 0.3) == 0).all()


def test_groups_are_compared_among_themselves() -> None:
    """Each group loses its own largest of four, though one group's scores are a thousand times the other's."""
    found = relative([1, 2, 3, 8, 1000, 2000, 3000, 8000], 0.2, [0, 0, 0, 0, 1, 1, 1, 1])
    assert np.flatnonzero(found >= 1).tolist() == [3, 7]
