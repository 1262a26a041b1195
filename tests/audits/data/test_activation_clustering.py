"""Activation clustering against clusters made by hand, scikit-learn's FastICA, and poison that is known."""

from contextlib import nullcontext

import numpy as np
import pytest
import torch
from plain_features import examples_of, normal, plain_model
from sklearn.cluster import KMeans
from sklearn.decomposition import FastICA
from sklearn.exceptions import ConvergenceWarning

from fedrobust.attacks.data.dirty_label import stamped
from fedrobust.attacks.triggers import Pixels
from fedrobust.audits import ActivationClustering, AuditedModel
from fedrobust.audits.data.activation_clustering import other_share
from fedrobust.audits.data.retraining import retrain
from fedrobust.clients.local_training import LocalTraining
from fedrobust.data.datasets import Digits
from fedrobust.models import MLP


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_clusters_of_a_line_by_hand():
    """Eight at 0 and 1 in turn, four at 10 and 11: principal components do not change distances.

    Centres 0.5 and 10.5. Of a point at 0: a = 4/7 (to 3 others at 0, 4 at 1), b = 10.5; of a point at 10: a = 2/3,
    b = 9.5; so the silhouettes are 1 - a/b with (a, b) of the four positions below.
    """
    features = torch.tensor([[0.0, 3.0], [1.0, 3.0]] * 4 + [[10.0, 3.0], [11.0, 3.0]] * 2)
    clusters = ActivationClustering(reduction="pca").cluster(features, seed=0)
    assert clusters is not None
    assert clusters.is_smaller.tolist() == [False] * 8 + [True] * 4
    assert clusters.larger_share == pytest.approx(8 / 12)
    at_0, at_1 = 1 - (4 / 7) / 10.5, 1 - (4 / 7) / 9.5
    at_10, at_11 = 1 - (2 / 3) / 9.5, 1 - (2 / 3) / 10.5
    assert clusters.silhouette == pytest.approx((4 * at_0 + 4 * at_1 + 2 * at_10 + 2 * at_11) / 12)
    # (d² to 0.5 - d² to 10.5) / 100, for x = 0, 1, 10, 11
    np.testing.assert_allclose(clusters.scores, [-1.1, -0.9] * 4 + [0.9, 1.1] * 2, atol=1e-6)


@pytest.mark.parametrize("max_iter", [2000, 2])
def test_independent_components_cluster_as_scikit_learns_do(max_iter):
    """FastICA rotates what is whitened, and k-means sees distances only: the same clusters as from FastICA itself.

    Whether it has converged or not.
    """
    features = (normal(120, 12, seed=3) ** 3) * torch.linspace(0.5, 4.0, 12)
    features[80:] += 3.0
    centred = features.double().numpy() - features.double().numpy().mean(axis=0)
    fast_ica = FastICA(n_components=4, whiten="unit-variance", random_state=0, max_iter=max_iter, tol=1e-3)
    with nullcontext() if max_iter > 2 else pytest.warns(ConvergenceWarning):
        sources = fast_ica.fit_transform(centred)
    expected = KMeans(n_clusters=2, n_init=100, random_state=5).fit(sources).labels_
    clusters = ActivationClustering(num_components=4).cluster(features, seed=5)
    assert clusters is not None
    smaller = expected == np.bincount(expected).argmin()
    assert clusters.is_smaller.tolist() == smaller.tolist()


def test_reclassification_by_hand():
    """Of six answers two are the own label and three the most frequent other: 3 / (2 + 3)."""
    answers = torch.tensor([4, 4, 7, 7, 7, 1])
    assert other_share(answers, 4) == pytest.approx(3 / 5)
    assert other_share(torch.tensor([4, 4]), 4) == 0
    assert other_share(torch.tensor([1, 1]), 4) == 1


@pytest.mark.parametrize(("min_own_ratio", "threshold"), [(1.0, 0.5), (0.25, 0.8)])
def test_the_threshold_is_the_papers_ratio(min_own_ratio, threshold):
    """own / other < T where other / (own + other) > 1 / (1 + T): own = 1, other = 4 is on the line for T = 1/4."""
    assert ActivationClustering(min_own_ratio=min_own_ratio).statistic_threshold == pytest.approx(threshold)
    assert other_share(torch.tensor([0, 1, 1, 1, 1]), 0) == pytest.approx(0.8)


@pytest.mark.parametrize(("verdict", "is_poisoned"), [("size", True), ("silhouette", True)])
def test_verdicts_without_retraining(verdict, is_poisoned):
    """One class in two blobs of 75 and 25, far apart; another in one blob."""
    blobs = torch.cat([0.3 * normal(75, 5), 0.3 * normal(25, 5, seed=1) + 9])
    examples = examples_of(blobs, normal(100, 5, seed=2))
    audit = ActivationClustering(verdict=verdict, reduction="pca", min_silhouette=0.5, max_poison_fraction=0.3)
    report = audit(examples, plain_model(5), generator())
    assert report.poisoned_labels == (0,)
    assert report.flagged.nonzero().squeeze(1).tolist() == list(range(75, 100))
    assert bool((report.scores[75:100] > 0.5).all())
    assert bool((report.scores[:75] < -0.5).all())


def test_poison_is_found_where_the_model_has_learned_a_backdoor():
    """A third of the threes are twos with three lit pixels: the audit must find the digits that were changed."""
    dataset = Digits().load(None, torch.device("cpu"))
    (trigger,) = Pixels(pixels=[[0, 0], [0, 1], [1, 0]]).triggers((1, 8, 8))
    chosen = (dataset.train.labels == 2).nonzero().squeeze(1)[:65]
    examples = stamped(dataset.train, chosen, trigger, target_label=3)
    training = LocalTraining(learning_rate=0.05, momentum=0.9, num_epochs=10)
    fresh = AuditedModel(MLP().build((1, 8, 8), 10), dataset.normalise)
    model = retrain(fresh, examples, training, generator())
    report = ActivationClustering(layer="3", training=training, num_starts=30)(examples, model, generator())
    assert 3 in report.poisoned_labels
    of_class = report.labels == 3
    poisoned = torch.zeros(len(examples), dtype=torch.bool)
    poisoned[chosen] = True
    hits = int((report.flagged & poisoned).sum())
    assert 2 * hits / (65 + int(report.flagged[of_class].sum())) > 0.9
    triggered = trigger.stamp(dataset.test.inputs[dataset.test.labels == 2])
    assert float((model.logits(triggered).argmax(dim=1) == 3).double().mean()) > 0.9
    cleansed = retrain(model, report.kept(examples), training, generator())
    assert float((cleansed.logits(triggered).argmax(dim=1) == 3).double().mean()) < 0.2


def test_a_single_class_needs_another_verdict():
    examples = examples_of(normal(30, 4))
    with pytest.raises(ValueError, match=r"at least 2 classes, got labels \[0\]; verdict=silhouette"):
        ActivationClustering()(examples, plain_model(4), generator())
    report = ActivationClustering(verdict="silhouette")(examples, plain_model(4), generator())
    assert [verdict.label for verdict in report.verdicts] == [0]


def test_training_that_diverges_convicts_nobody():
    """A step of 1e30 overflows: all answers of such a model are NaN, and the first class would be the top other one."""
    examples = Digits().load(None, torch.device("cpu")).train.subset(torch.arange(300))
    model = AuditedModel(MLP(hidden_sizes=[16]).build((1, 8, 8), 10), lambda one: one)
    diverging = ActivationClustering(training=LocalTraining(learning_rate=1e30, num_epochs=3), num_starts=2)
    with pytest.raises(ValueError, match=r"must be finite, and training diverged \(learning_rate=1e\+30\)"):
        diverging(examples, model, generator())


def test_small_and_constant_classes_are_not_judged():
    examples = examples_of(normal(30, 4), torch.full((30, 4), 0.1), normal(9, 4, seed=1))
    report = ActivationClustering(verdict="silhouette")(examples, plain_model(4), generator())
    assert [verdict.reason for verdict in report.verdicts] == [
        "",
        "all features are equal",
        "9 examples, 10 are needed",
    ]
    assert [verdict.is_poisoned is None for verdict in report.verdicts] == [False, True, True]
    assert report.scores.isnan().tolist() == [False] * 30 + [True] * 39
    assert not bool(report.flagged[30:].any())


def test_features_of_rank_one_are_clustered_by_that_rank():
    """On a line there is one component, however many are asked for: 14 at 0 and 6 at 1."""
    line = torch.cat([torch.zeros(14, 6), torch.ones(6, 6)])
    clusters = ActivationClustering().cluster(line, seed=0)
    assert clusters is not None
    assert clusters.points.shape == (20, 1)
    assert clusters.is_smaller.tolist() == [False] * 14 + [True] * 6
