"""Spectral signatures against numpy's singular value decomposition and against classes made by hand."""

import math

import numpy as np
import pytest
import torch
from plain_features import examples_of, normal, plain_model

from fedrobust.audits import SpectralSignatures
from fedrobust.audits.data.spectral_signatures import spectral_scores
from fedrobust.config.component import FieldError


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize("shape", [(12, 5), (12, 30), (200, 20)])
def test_scores_are_those_of_the_singular_value_decomposition(shape):
    """numpy: centre, decompose, project on the first right singular vector, square."""
    features = normal(*shape, seed=1) + 7
    centred = features.double().numpy() - features.double().numpy().mean(axis=0)
    _, values, right = np.linalg.svd(centred)
    variance, scores = spectral_scores(features)
    np.testing.assert_allclose(scores.numpy(), np.square(centred @ right[0]), rtol=1e-4, atol=1e-4)
    assert variance == pytest.approx(values[0] ** 2 / shape[0], rel=1e-5)


def test_features_are_centred():
    """On the line (10, y) the mean dominates an uncentred decomposition; centred, the outlier in y stands out.

    y is 0 nine times and 10 once: its mean is 1, so nine scores are 1 and one is 81.
    """
    features = torch.tensor([[10.0, 0.0]] * 9 + [[10.0, 10.0]])
    _, scores = spectral_scores(features)
    torch.testing.assert_close(scores, torch.tensor([1.0] * 9 + [81.0], dtype=torch.float64))


@pytest.mark.parametrize(
    ("audit", "removed"),
    [
        (SpectralSignatures(max_poison_fraction=0.1), 3),  # 1.5 * 2
        (SpectralSignatures(max_poison_fraction=0.25), 7),  # 1.5 * 5 = 7.5
        (SpectralSignatures(max_poison_count=4), 6),
        (SpectralSignatures(max_poison_count=40), 20),
    ],
)
def test_it_leaves_out_one_and_a_half_epsilon_of_every_class(audit, removed):
    """Of each class those with the largest scores, in one shot; of a class of 30, 1.5 ε grows with a fraction."""
    examples = examples_of(normal(20, 6), normal(20, 6, seed=1))
    report = audit(examples, plain_model(6), generator())
    for label in (0, 1):
        of_class = report.labels == label
        assert int(report.flagged[of_class].sum()) == removed
        if removed < 20:
            kept, flagged = (report.scores[of_class & mask] for mask in (~report.flagged, report.flagged))
            assert float(kept.max()) <= float(flagged.min())


def test_poison_that_shifts_the_mean_is_left_out():
    """30 of 100 at distance 8 in a direction of unit variance: separated by 4 sigma on either side of the middle."""
    clean, poison = normal(70, 10), normal(30, 10, seed=2) + torch.tensor([8.0] + [0.0] * 9)
    examples = examples_of(torch.cat([clean, poison]), normal(100, 10, seed=3))
    report = SpectralSignatures(max_poison_fraction=0.3)(examples, plain_model(10), generator())
    assert bool(report.flagged[70:100].all())
    assert int(report.flagged[:100].sum()) == 45


def test_a_class_is_convicted_by_its_top_eigenvalue_among_eight():
    """Nine classes of unit variance and one with a variance of 16 in one direction: index by hand from the scores."""
    classes = [normal(200, 5, seed=seed) for seed in range(10)]
    classes[4] = classes[4] * torch.tensor([4.0, 1.0, 1.0, 1.0, 1.0])
    report = SpectralSignatures()(examples_of(*classes), plain_model(5), generator())
    assert report.poisoned_labels == (4,)
    tops = [np.linalg.eigvalsh(np.cov(rows.double().numpy().T, bias=True))[-1] for rows in classes]
    spread = np.median(np.abs(tops - np.median(tops))) * 1.4826
    for verdict, top in zip(report.verdicts, tops, strict=True):
        assert verdict.statistic == pytest.approx((top - np.median(tops)) / spread, rel=1e-3)
        assert verdict.num_examples == 200


def test_few_classes_are_not_compared():
    report = SpectralSignatures()(examples_of(normal(20, 4), normal(9, 4)), plain_model(4), generator())
    assert [verdict.is_poisoned for verdict in report.verdicts] == [None, None]
    assert report.verdicts[0].reason == "1 classes of 10 examples, 8 are needed to compare them"
    assert report.verdicts[1].reason == "9 examples, 10 are needed"
    assert bool(report.scores[20:].isnan().all())
    assert not bool(report.flagged[20:].any())
    assert all(math.isnan(verdict.statistic) for verdict in report.verdicts)


def test_equal_features_score_zero():
    """A class without variance: no direction, every score 0, and equal eigenvalues cannot be compared."""
    report = SpectralSignatures()(examples_of(*[torch.ones(12, 4)] * 8), plain_model(4, 8), generator())
    assert bool((report.scores == 0).all())
    assert {verdict.reason for verdict in report.verdicts} == {"most top eigenvalues are equal"}


def test_bounds_are_checked():
    with pytest.raises(FieldError, match=r"max_poison_fraction: must be less than 0\.5, got 0\.5"):
        SpectralSignatures(max_poison_fraction=0.5)
