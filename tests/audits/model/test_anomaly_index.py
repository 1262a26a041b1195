"""The anomaly index against a computation by hand and the formula of the authors' code."""

import math

import numpy as np
import pytest
import torch

from fedrobust.audits.model import anomaly_index


def test_index_by_hand():
    """Values 2, 9, 10, 10, 11, 11, 12, 13, 14: median 11, deviations 9 2 1 1 0 0 1 2 3 with median 1.

    So the index of 2 is 9 / 1.4826 = 6.0704, that of 14 is -3 / 1.4826 = -2.0235.
    """
    values = torch.tensor([10.0, 2, 9, 14, 11, 12, 11, 13, 10])
    indices, warning = anomaly_index(values)
    assert warning == ""
    assert float(indices[1]) == pytest.approx(6.0704, abs=2e-4)
    assert float(indices[3]) == pytest.approx(-2.0235, abs=2e-4)
    assert (indices > 2).tolist() == [False, True] + [False] * 7


def test_index_is_that_of_the_authors_code_below_the_median():
    """`outlier_detection` of github.com/bolunwang/backdoor: |value - median| / (1.4826 · median |value - median|)."""
    values = np.random.default_rng(0).gamma(5.0, 4.0, 43)
    median = np.median(values)
    expected = np.abs(values - median) / (1.4826 * np.median(np.abs(values - median)))
    indices, _ = anomaly_index(torch.from_numpy(values))
    below = values < median
    assert np.allclose(indices.numpy()[below], expected[below], rtol=1e-4)
    assert bool((indices[torch.from_numpy(~below)] <= 0).all())


def test_labels_without_a_value_do_not_count():
    """NaN beside the values by hand: the same indices for the others, and none for it."""
    values = torch.tensor([10.0, 2, math.nan, 9, 14, 11, 12, 11, 13, math.nan, 10])
    indices, warning = anomaly_index(values)
    assert warning == ""
    assert indices.isnan().nonzero().flatten().tolist() == [2, 9]
    assert float(indices[1]) == pytest.approx(6.0704, abs=2e-4)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ([1.0, 9, 9.5, 10, 10.5, 11, 12], "7 of 7 labels have a mask"),
        ([1.0, 9, 9.5, 10, 10.5, 11, 12, math.nan, math.nan], "7 of 9 labels have a mask"),
        ([1.0] + [5.0] * 9, "more than half of the masks have the same size"),
    ],
)
def test_no_verdict_where_the_deviation_means_nothing(values, reason):
    indices, warning = anomaly_index(torch.tensor(values))
    assert bool(indices.isnan().all())
    assert warning.startswith("no verdict")
    assert reason in warning
