"""Thresholds and verdicts against counting and closed forms."""

import math

import pytest
import torch
from scipy.stats import fisher_exact

from fedrobust.audits.data.calibration import calibrated_threshold, rate_verdicts, smallest_calibration


@pytest.mark.parametrize(
    ("rate", "num", "exceeding"),
    [(0.1, 9, 0), (0.1, 19, 1), (0.05, 99, 4), (0.25, 100, 24)],
)
def test_the_threshold_is_an_order_statistic(rate, num, exceeding):
    """k = ⌊rate (n + 1)⌋-th largest: k - 1 of the clean scores themselves exceed it."""
    scores = torch.randperm(num, generator=torch.Generator().manual_seed(0)).double()
    assert int((scores > calibrated_threshold(scores, rate)).sum()) == exceeding


def test_a_fresh_score_exceeds_it_at_most_at_the_rate():
    """Over 4,000 draws of 19 scores and one more: the chance is k / (n + 1) = 1/20 exactly; within 5 sigma."""
    drawn = torch.rand(4000, 20, generator=torch.Generator().manual_seed(0))
    exceeds = [float(row[-1]) > calibrated_threshold(row[:-1], 0.05) for row in drawn]
    assert abs(sum(exceeds) / 4000 - 0.05) < 5 * math.sqrt(0.05 * 0.95 / 4000)


def test_too_few_scores_for_a_rate_are_refused():
    assert smallest_calibration(0.05) == 19
    assert smallest_calibration(0.3) == 3
    calibrated_threshold(torch.rand(19), 0.05)
    with pytest.raises(ValueError, match=r"rate of 0\.05 needs at least 19 clean scores, got 18"):
        calibrated_threshold(torch.rand(18), 0.05)


def test_verdicts_by_the_lower_bound_of_a_rate():
    """Clopper-Pearson in closed form: all of n flagged gives α^(1/n), none gives 0; α = 0.05 over three classes."""
    labels = torch.tensor([0] * 20 + [1] * 20 + [2] * 9)
    flagged = torch.tensor([True] * 20 + [False] * 20 + [True] * 9)
    all_flagged, none_flagged, few = rate_verdicts(labels, flagged, tolerated_rate=0.5, confidence=0.95)
    assert all_flagged.statistic == pytest.approx((0.05 / 3) ** (1 / 20))
    assert all_flagged.is_poisoned is True
    assert (none_flagged.statistic, none_flagged.is_poisoned) == (0.0, False)
    assert (few.is_poisoned, few.num_examples) == (None, 9)


@pytest.mark.parametrize(
    ("hits", "clean_hits", "num_clean", "is_poisoned"),
    [
        (60, 0, 50, True),
        (60, 1, 50, True),
        (60, 15, 50, False),  # a class of which 30 % is flagged when it is clean
        (60, 0, 10, None),  # (200 / 210)^60 = 0.05, above 0.025
        (60, 0, 0, None),
        (10, 0, 50, False),  # 5 %: tolerated
    ],
)
def test_a_class_is_compared_with_its_own_clean_examples(hits, clean_hits, num_clean, is_poisoned):
    """200 of two classes each, `hits` of the first flagged; scipy's exact test of Fisher says which are alike."""
    labels, flagged = torch.arange(2).repeat_interleave(200), torch.zeros(400, dtype=torch.bool)
    flagged[:hits] = True
    reference = (torch.zeros(num_clean, dtype=torch.int64), torch.arange(num_clean) < clean_hits)
    first, second = rate_verdicts(labels, flagged, 0.15, 0.95, reference)
    assert first.is_poisoned is is_poisoned
    assert second.is_poisoned is False
    assert first.reason.startswith(f"cannot tell: {num_clean} clean examples of the class") == (is_poisoned is None)
    table = [[clean_hits, num_clean - clean_hits], [hits, 200 - hits]]
    differs = fisher_exact(table, alternative="less").pvalue < 0.05 / 2
    assert bool(first.is_poisoned) == (differs and hits > 0.2 * 200)


def test_classes_that_differ_when_clean_are_convicted_at_the_stated_rate():
    """Ten classes of which from 2 to 40 % are flagged, poison or not, 300 times: at most 5 %, within five sigma."""
    generator = torch.Generator().manual_seed(0)
    rates, accused = torch.linspace(0.02, 0.4, 10), 0
    labels, clean_labels = torch.arange(10).repeat_interleave(130), torch.arange(10).repeat_interleave(50)
    for _ in range(300):
        flagged, clean = (torch.rand(len(of), generator=generator) < rates[of] for of in (labels, clean_labels))
        verdicts = rate_verdicts(labels, flagged, 0.15, 0.95, (clean_labels, clean))
        accused += any(verdict.is_poisoned for verdict in verdicts)
    assert accused / 300 < 0.05 + 5 * math.sqrt(0.05 * 0.95 / 300)
