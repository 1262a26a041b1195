"""Activation clustering against clusters made by hand, scikit-learn's FastICA, and poison that is known."""

import re
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from plain_features import examples_of, joined, normal, plain_model
from sklearn.cluster import KMeans
from sklearn.decomposition import FastICA
from sklearn.exceptions import ConvergenceWarning

from fedrobust.attacks.data.dirty_label import stamped
from fedrobust.attacks.triggers import Pixels
from fedrobust.audits import ActivationClustering, AuditedModel
from fedrobust.audits.data.activation_clustering import other_share
from fedrobust.audits.data.retraining import retrain
from fedrobust.data.datasets import Digits
from fedrobust.data.examples import Examples
from fedrobust.models import MLP
from fedrobust.training.local_training import LocalTraining


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
    """Of six answers two are the own label and three the most frequent other: 3 / (2 + 3); 0 if there is none."""
    answers = torch.tensor([4, 4, 7, 7, 7, 1])
    assert other_share(answers, 4) == pytest.approx(3 / 5)
    assert other_share(torch.tensor([4, 4]), 4) == 0
    assert other_share(torch.tensor([1, 1]), 4) == 1
    assert other_share(torch.zeros(0, dtype=torch.int64), 4) == 0


@pytest.mark.parametrize(("min_own_ratio", "threshold"), [(1.0, 0.5), (0.25, 0.8)])
def test_the_threshold_is_the_papers_ratio(min_own_ratio, threshold):
    """own / other < T where other / (own + other) > 1 / (1 + T): own = 1, other = 4 is on the line for T = 1/4."""
    audit = ActivationClustering(verdict="reclassification", min_own_ratio=min_own_ratio)
    assert audit.statistic_threshold == pytest.approx(threshold)
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


@pytest.mark.parametrize(("verdict", "layer"), [("reference", None), ("reclassification", "3")])
def test_poison_is_found_where_the_model_has_learned_a_backdoor(verdict, layer):
    """A third of the threes are twos with three lit pixels: the audit must find the digits that were changed.

    By the clean examples the threes alone are convicted; the paper's verdict has none, and may convict others besides.
    """
    dataset = Digits().load(None, torch.device("cpu"))
    (trigger,) = Pixels(pixels=[[0, 0], [0, 1], [1, 0]]).triggers((1, 8, 8))
    chosen = (dataset.train.labels == 2).nonzero().squeeze(1)[:65]
    examples = stamped(dataset.train, chosen, trigger, target_label=3)
    training = LocalTraining(learning_rate=0.05, momentum=0.9, num_epochs=10)
    fresh = AuditedModel(MLP().build((1, 8, 8), 10), dataset.normalise)
    model = retrain(fresh, examples, training, generator())
    audit = ActivationClustering(verdict=verdict, layer=layer, training=training, num_starts=30)
    report = audit(examples, model, generator(), dataset.test if verdict == "reference" else None)
    assert 3 in report.poisoned_labels
    assert verdict != "reference" or report.poisoned_labels == (3,)
    assert bool(report.uncalibrated) == (verdict != "reference")
    of_class = report.labels == 3
    poisoned = torch.zeros(len(examples), dtype=torch.bool)
    poisoned[chosen] = True
    hits = int((report.flagged & poisoned).sum())
    assert 2 * hits / (65 + int(report.flagged[of_class].sum())) > 0.9
    triggered = trigger.stamp(dataset.test.inputs[dataset.test.labels == 2])
    assert float((model.logits(triggered).argmax(dim=1) == 3).double().mean()) > 0.9
    cleansed = retrain(model, report.kept(examples), training, generator())
    assert float((cleansed.logits(triggered).argmax(dim=1) == 3).double().mean()) < 0.2


@pytest.mark.parametrize("verdict", ["reference", "silhouette"])
def test_clean_models_are_acquitted(verdict):
    """At 95 % a model in twenty is accused: of 6, two or more with a probability of 0.03, three with 0.002.

    Each model has its own split of the digits.
    """
    dataset = Digits().load(None, torch.device("cpu"))
    both = joined(dataset.train, dataset.test)
    training = LocalTraining(learning_rate=0.05, momentum=0.9, num_epochs=8)
    fresh = AuditedModel(MLP(hidden_sizes=[64, 32]).build((1, 8, 8), 10), dataset.normalise)
    accused = 0
    for seed in range(20, 26):
        drawn = torch.Generator().manual_seed(seed)
        examples, clean = (both.subset(rows) for rows in torch.randperm(1797, generator=drawn).tensor_split([1297]))
        model = retrain(fresh, examples, training, drawn)
        report = ActivationClustering(verdict=verdict, num_starts=5)(examples, model, drawn, clean)
        assert report.uncalibrated == ""
        accused += bool(report.poisoned_labels)
    assert accused < 3


@pytest.mark.parametrize("shape", ["one blob", "two styles", "outliers", "heavy tails"])
def test_classes_as_clean_as_their_reference_are_convicted_at_the_stated_rate(shape):
    """Two classes of several sizes, 45 times: 5 % of the reports convict one; five standard deviations above are 21 %.

    Whatever the shape: two styles are two clusters by nature, of which one has a quarter of the class.
    """
    audit = ActivationClustering(num_starts=1, min_accuracy=0.0, num_components=3)
    model, drawn, accused = plain_model(4), torch.Generator().manual_seed(1), 0
    for num_own, num_clean in [(15, 40), (60, 20), (60, 60)] * 15:
        size = (2 * (num_own + num_clean), 4)
        features = torch.randn(size, generator=drawn)
        if shape == "two styles":
            features[torch.rand(size[0], generator=drawn) < 0.25] += 6.0
        elif shape == "outliers":
            features[torch.rand(size[0], generator=drawn) < 0.05] *= 10.0
        elif shape == "heavy tails":
            features = features**5
        own, rest = features[: 2 * num_own], features[2 * num_own :]
        examples, clean = examples_of(*own.split(num_own)), examples_of(*rest.split(num_clean))
        accused += bool(audit(examples, model, drawn, clean).poisoned_labels)
    assert accused / 45 < 0.05 + 5 * (0.05 * 0.95 / 45) ** 0.5


def with_poison(num_poisoned: int, num_clean: int = 80) -> tuple[Examples, Examples, torch.Tensor]:
    """Class 0 with a second blob far off, which its clean examples do not have; class 1 without; which are poison."""
    blobs = torch.cat([normal(100 - num_poisoned, 5), 0.5 * normal(num_poisoned, 5, seed=1) + 9])
    poisoned = torch.arange(200) < 100
    poisoned[: 100 - num_poisoned] = False
    clean = examples_of(normal(num_clean, 5, seed=3), normal(num_clean, 5, seed=4))
    return examples_of(blobs, normal(100, 5, seed=2)), clean, poisoned


@pytest.mark.parametrize("reduction", ["ica", "pca"])
@pytest.mark.parametrize("verdict", ["reference", "silhouette", "size"])
@pytest.mark.parametrize("num_poisoned", [12, 20, 33])
def test_a_small_part_that_clean_examples_avoid_is_flagged_and_nothing_else(num_poisoned, verdict, reduction):
    """80 clean examples of a class of 100 convict 12: (100 / 180)^12 = 9e-4, below 0.05 / 2 classes."""
    examples, clean, poisoned = with_poison(num_poisoned)
    audit = ActivationClustering(verdict=verdict, reduction=reduction, min_accuracy=0.0, num_starts=10)
    report = audit(examples, plain_model(5), generator(), clean)
    assert report.poisoned_labels == (0,)
    assert torch.equal(report.flagged, poisoned)
    assert report.uncalibrated == ""


@pytest.mark.parametrize("has_clean", [True, False])
@pytest.mark.parametrize("verdict", ["reference", "silhouette", "size"])
@pytest.mark.parametrize("num_poisoned", [40, 48, 50, 55, 63])
def test_where_poison_is_half_of_the_class_it_says_that_it_cannot_tell(num_poisoned, verdict, has_clean):
    """From 36 to 64 % neither cluster is below the bound of 35 %: the class has no verdict, and nothing is flagged."""
    examples, clean, _ = with_poison(num_poisoned)
    audit = ActivationClustering(verdict=verdict, min_accuracy=0.0, num_starts=10)
    report = audit(examples, plain_model(5), generator(), clean if has_clean else None)
    assert report.verdicts[0].is_poisoned is None
    assert ("cannot tell which part" if has_clean or verdict != "reference" else "no clean") in report.verdicts[
        0
    ].reason
    assert not bool(report.flagged[:100].any())


@pytest.mark.parametrize("num_poisoned", [70, 80, 90])
def test_where_poison_is_most_of_the_class_the_clean_part_is_not_convicted(num_poisoned):
    """Not with clean examples, and not without any, when poison is what is normal in the class."""
    examples, clean, _ = with_poison(num_poisoned)
    audit = ActivationClustering(min_accuracy=0.0, num_starts=10)
    for known in (clean, None):
        report = audit(examples, plain_model(5), generator(), known)
        assert report.verdicts[0].is_poisoned is None
        assert not bool(report.flagged.any())


@pytest.mark.parametrize("num_poisoned", [20, 48, 55, 75])
def test_with_a_larger_bound_the_part_that_clean_examples_avoid_is_convicted_whichever_it_is(num_poisoned):
    examples, clean, poisoned = with_poison(num_poisoned)
    audit = ActivationClustering(max_poison_fraction=0.8, min_accuracy=0.0, num_starts=10)
    report = audit(examples, plain_model(5), generator(), clean)
    assert report.poisoned_labels == (0,)
    assert torch.equal(report.flagged, poisoned)
    assert bool((report.scores[poisoned] > 0).all())
    assert bool((report.scores[:100][~poisoned[:100]] < 0).all())


@pytest.mark.parametrize(
    ("num_clean", "min_accuracy", "says"),
    [
        (0, 0.0, "no clean examples"),
        (3, 0.0, r"6 clean examples are too few: of class 0, \d+ more are needed to convict 35% of it"),
        (80, 0.99, r"the model is right about \d+% of the clean examples, min_accuracy=0\.99"),
    ],
)
@pytest.mark.parametrize("verdict", ["reference", "size"])
def test_without_enough_to_go_by_it_is_not_calibrated(num_clean, min_accuracy, says, verdict):
    """By the clean examples alone no class is judged; the paper's verdicts are given, and said not to be calibrated."""
    examples, clean, poisoned = with_poison(20, num_clean)
    audit = ActivationClustering(verdict=verdict, min_accuracy=min_accuracy, num_starts=10)
    report = audit(examples, plain_model(5), generator(), clean)
    assert re.fullmatch(says, report.uncalibrated)
    if verdict == "reference":
        assert report.undecided_labels == (0, 1)
        assert all(one.reason == f"not calibrated: {report.uncalibrated}" for one in report.verdicts)
        assert not bool(report.flagged.any())
    else:
        assert 0 in report.poisoned_labels
        assert torch.equal(report.flagged[:100], poisoned[:100])


def test_a_cluster_too_small_for_its_clean_examples_is_told_apart_from_a_clean_one():
    """20 clean ones of a class of 100 cannot convict 5: (100 / 120)^5 = 0.4."""
    examples, clean, _ = with_poison(5, num_clean=20)
    report = ActivationClustering(min_accuracy=0.0, num_starts=10)(examples, plain_model(5), generator(), clean)
    assert report.verdicts[0].is_poisoned is None
    assert report.verdicts[0].reason.startswith("cannot tell: 20 clean examples of the class are too few to convict a")


def test_a_single_class_needs_another_verdict():
    examples = examples_of(normal(30, 4))
    with pytest.raises(ValueError, match=r"at least 2 classes, got labels \[0\]; the other verdicts do with one"):
        ActivationClustering(verdict="reclassification")(examples, plain_model(4), generator())
    report = ActivationClustering(verdict="silhouette")(examples, plain_model(4), generator())
    assert [verdict.label for verdict in report.verdicts] == [0]


def test_training_that_diverges_convicts_nobody():
    """A step of 1e30 overflows: all answers of such a model are NaN, and the first class would be the top other one."""
    examples = Digits().load(None, torch.device("cpu")).train.subset(torch.arange(300))
    model = AuditedModel(MLP(hidden_sizes=[16]).build((1, 8, 8), 10), lambda one: one)
    diverging = ActivationClustering(
        verdict="reclassification", training=LocalTraining(learning_rate=1e30, num_epochs=3), num_starts=2
    )
    with pytest.raises(ValueError, match=r"must be finite, and training diverged \(learning_rate=1e\+30\)"):
        diverging(examples, model, generator())


def test_small_and_constant_classes_are_not_judged():
    examples = examples_of(normal(30, 4), torch.full((30, 4), 0.1), normal(9, 4, seed=1))
    clean = examples_of(*[normal(30, 4, seed=seed) for seed in (2, 3, 4)])
    report = ActivationClustering(min_accuracy=0.0)(examples, plain_model(4), generator(), clean)
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
