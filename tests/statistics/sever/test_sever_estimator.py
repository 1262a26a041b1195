import warnings
from typing import Any

import numpy as np
import pytest
import scipy.sparse
import torch
from sklearn.base import clone, is_classifier, is_regressor
from sklearn.datasets import make_blobs
from sklearn.exceptions import NotFittedError, SkipTestWarning
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.metrics import accuracy_score, r2_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.svm import SVC, LinearSVC
from sklearn.utils.estimator_checks import check_estimator
from torch import nn

from fedrobust.seeds import numpy_generator, seeded_initialisation
from fedrobust.statistics import ModuleClassifier, ModuleRegressor, Sever


@pytest.mark.parametrize(
    "estimator",
    [
        Ridge(),
        LinearRegression(),
        LogisticRegression(),
        LinearSVC(),
        SVC(kernel="linear"),
        SVC(break_ties=True),  # without, its own predictions and decisions differ now and then
        SVC(kernel="precomputed"),
    ],
    ids=str,
)
def test_is_a_scikit_learn_estimator(estimator: Any) -> None:
    """scikit-learn's own checks; some of their samples have a class of one in twenty, which ε = 0.1 could be all of."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SkipTestWarning)
        results = check_estimator(Sever(estimator, contamination=0.05))
    assert sum(result["status"] == "passed" for result in results) > 30
    assert not [result for result in results if result["status"] == "xfail"]


def regression(num_corrupted: int, d: int = 5) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """300 samples of a line with noise 0.1, the last of them replaced by copies far out that say the opposite."""
    generator = numpy_generator(0, "regression", d)
    slope = generator.normal(size=d)
    features = generator.normal(size=(300, d))
    y = features @ slope + 0.1 * generator.normal(size=300)
    if num_corrupted:
        features[-num_corrupted:] = 3 * slope + 0.1 * generator.normal(size=(num_corrupted, d))
        y[-num_corrupted:] = -10.0
    return features, y, slope


def blobs() -> tuple[np.ndarray, np.ndarray]:
    """Two classes of 100, of which six of the first lie far behind the second."""
    features, y = make_blobs([100, 100], centers=[[-2.0, 0.0], [2.0, 0.0]], random_state=0, shuffle=False)
    features[:6] = [30.0, 2.0]
    return features, y


def test_a_case_worked_by_hand() -> None:
    """x = 1 four times, y = 0, 0, 0, 8: θ = 2, gradients θ - y = 2, 2, 2, -6 with mean 0 and variance 12.

    The 3/4-quantile of the scores 2, 2, 2, 6 lies between the second and the third 2/8 of the way, at 4: 6/4 is
    dropped. The others then have residual 0, and a second round drops nothing.
    """
    sever = Sever(LinearRegression(fit_intercept=False), contamination=0.25, drop_fraction=0.25)
    sever.fit([[1.0]] * 4, [0.0, 0.0, 0.0, 8.0])
    assert sever.support_.tolist() == [0, 1, 2]
    assert sever.scores_.tolist() == [0.0, 0.0, 0.0, 1.5]
    assert sever.estimator_.coef_ == pytest.approx([0.0])
    assert sever.predict([[3.0]]) == pytest.approx([0.0])
    first, second = sever.result_.iterations
    assert (first.statistic, first.removed) == (pytest.approx(12.0), 1.0)
    assert (second.statistic, second.removed) == (pytest.approx(0.0), 0.0)
    assert sever.summary().splitlines()[:2] == [
        "Sever(LinearRegression)",
        "  kept mass 3 of 4 points, 1 removed altogether",
    ]


def test_follows_the_authors_algorithm() -> None:
    """Ridge, 3 rounds with MATLAB's quantile, written out with the normal equations and NumPy's dense SVD."""
    features, y, _ = regression(15)
    kept = np.arange(300)
    for _round in range(4):
        extended = np.hstack([np.ones((len(kept), 1)), features[kept]])
        penalty = np.diag([0.0] + [2.0] * 5)
        theta = np.linalg.solve(extended.T @ extended + penalty, extended.T @ y[kept])
        if _round == 3:
            break
        gradients = (extended @ theta - y[kept])[:, None] * extended
        centred = gradients - gradients.mean(axis=0)
        scores = np.abs(centred @ np.linalg.svd(centred, full_matrices=False)[2][0])
        kept = kept[scores < np.quantile(scores, 1 - 0.05 / 2, method="hazen")]
    sever = Sever(Ridge(alpha=2.0), contamination=0.05).fit(features, y)
    assert sever.support_.tolist() == kept.tolist()
    np.testing.assert_allclose(sever.estimator_.coef_, theta[1:], atol=1e-9)


def test_corrupted_samples_go_and_the_rest_give_the_fit() -> None:
    """15 of 300 corrupted: the slope is found as without them; least squares on all is off by more than 1."""
    features, y, slope = regression(15)
    plain = LinearRegression().fit(features, y)
    sever = Sever(LinearRegression(), contamination=0.05).fit(features, y)
    clean = LinearRegression().fit(features[:-15], y[:-15])
    assert np.linalg.norm(plain.coef_ - slope) > 1
    assert not set(range(285, 300)) & set(sever.support_)
    assert np.linalg.norm(sever.estimator_.coef_ - clean.coef_) < 0.02
    assert (sever.scores_ >= 1).nonzero()[0].tolist() == sorted(set(range(300)) - set(sever.support_))
    assert sever.result_.weights.nonzero()[0].tolist() == sever.support_.tolist()


@pytest.mark.parametrize("estimator", [LinearSVC(), LogisticRegression(), SVC(kernel="linear")], ids=str)
def test_classes_are_filtered_apart(estimator: Any) -> None:
    """Six of 200 in one class of 100: p = 200/100·0.03/2, so each round drops three of each class, twice."""
    features, y = blobs()
    sever = Sever(estimator, contamination=0.03).fit(features, y)
    assert is_classifier(sever)
    assert sever.classes_.tolist() == [0, 1]
    assert sever.result_.details["drop_fraction"] == pytest.approx(0.03)
    assert not set(range(6)) & set(sever.support_)
    assert accuracy_score(y[6:], sever.predict(features[6:])) > 0.95
    assert sever.score(features, y) == accuracy_score(y, sever.predict(features))


@pytest.mark.parametrize(
    "estimator", [Ridge(), LogisticRegression(), LinearSVC(), SVC(), Ridge(fit_intercept=False)], ids=str
)
def test_without_contamination_it_is_the_plain_estimator(estimator: Any) -> None:
    """The estimator itself, fitted on all samples."""
    features, y = blobs() if is_classifier(estimator) else regression(15)[:2]
    sever = Sever(estimator, contamination=0.0).fit(features, y)
    plain = clone(estimator).fit(features, y)
    assert sever.support_.tolist() == list(range(len(y)))
    assert sever.scores_.tolist() == [0.0] * len(y)
    np.testing.assert_array_equal(sever.predict(features), plain.predict(features))
    assert sever.result_.iterations == ()


def test_a_sparse_matrix_gives_what_a_dense_one_does() -> None:
    """In 700 dimensions with 600 samples, where the direction is found by products."""
    generator = numpy_generator(0, "sparse")
    features = generator.normal(size=(600, 700)) * (generator.random((600, 700)) < 0.05)
    y = features @ generator.normal(size=700) + 0.1 * generator.normal(size=600)
    features[:20], y[:20] = features[:20] + 0.5, 50.0
    dense = Sever(Ridge(alpha=1.0), contamination=0.05).fit(features, y)
    sparse = Sever(Ridge(alpha=1.0, solver="sparse_cg", tol=1e-12), contamination=0.05)
    sparse.fit(scipy.sparse.csr_matrix(features), y)
    assert sparse.support_.tolist() == dense.support_.tolist()
    new = scipy.sparse.csc_matrix(features[:5])
    np.testing.assert_allclose(sparse.predict(new), dense.predict(features[:5]), rtol=1e-5)


def test_a_precomputed_kernel_gives_what_the_features_do() -> None:
    """The linear kernel, as a matrix and by name; new samples bring their kernel with all that were fitted on."""
    features, y = blobs()
    by_name = Sever(SVC(kernel="linear"), contamination=0.03).fit(features, y)
    by_matrix = Sever(SVC(kernel="precomputed"), contamination=0.03).fit(features @ features.T, y)
    assert by_matrix.support_.tolist() == by_name.support_.tolist()
    new = features[:9] + 0.5
    np.testing.assert_allclose(by_matrix.decision_function(new @ features.T), by_name.decision_function(new), rtol=1e-6)


def test_a_function_may_give_the_gradients() -> None:
    """Samples of gradient 0 but one: that one goes, in a regressor of which no gradients are known."""
    gradients = np.zeros((40, 3))
    gradients[7] = 1.0
    gradients[:, 0] += np.linspace(0, 0.1, 40)
    sever = Sever(
        KNeighborsClassifier(),
        contamination=0.02,
        num_rounds=1,
        by_class=False,
        drop_fraction=0.01,
        gradients=lambda fitted, X, y: gradients[: len(y)],
    )
    sever.fit(np.arange(40.0)[:, None], np.arange(40) % 2)
    assert sorted(set(range(40)) - set(sever.support_)) == [7]


def test_a_torch_module_regresses_as_ridge_does() -> None:
    """A linear module on half the mean squared error with weight decay 0 is LinearRegression."""
    features, y, _ = regression(15)
    with seeded_initialisation(0, "linear"):
        module = nn.Linear(5, 1).double()
    before = module.weight.detach().clone()
    sever = Sever(ModuleRegressor(module, num_steps=20), contamination=0.05).fit(features, y)
    linear = Sever(LinearRegression(), contamination=0.05).fit(features, y)
    assert is_regressor(sever)
    assert sever.support_.tolist() == linear.support_.tolist()
    np.testing.assert_allclose(sever.predict(features), linear.predict(features), atol=1e-5)
    assert sever.score(features, y) == pytest.approx(r2_score(y, linear.predict(features)), abs=1e-5)
    assert torch.equal(module.weight, before)


def test_a_torch_network_classifies_without_the_corrupted() -> None:
    """A network of one hidden layer in float32: the six mislabelled samples far out go."""
    features, y = blobs()
    with seeded_initialisation(0, "network"):
        network = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 2))
    estimator = ModuleClassifier(network, num_steps=5, weight_decay=0.01, chunk_size=64)
    sever = Sever(estimator, contamination=0.03).fit(features, np.array(["no", "yes"])[y])
    assert accuracy_score(np.array(["no", "yes"])[y[6:]], sever.predict(features[6:])) > 0.95
    np.testing.assert_allclose(sever.predict_proba(features).sum(axis=1), 1.0, rtol=1e-5)
    assert not set(range(6)) & set(sever.support_)


def test_methods_come_from_the_wrapped_estimator() -> None:
    """Ridge has no decision function, LinearSVC no probabilities."""
    assert not hasattr(Sever(Ridge()), "decision_function")
    assert not hasattr(Sever(LinearSVC()), "predict_proba")
    features, y = blobs()
    sever = Sever(LogisticRegression(), contamination=0.03).fit(features, y)
    np.testing.assert_array_equal(sever.predict_proba(features), sever.estimator_.predict_proba(features))
    near = features[6:]
    np.testing.assert_array_equal(sever.predict_log_proba(near), np.log(sever.predict_proba(near)))
    np.testing.assert_array_equal(sever.decision_function(features), sever.estimator_.decision_function(features))
    with pytest.raises(NotFittedError):
        Sever(Ridge()).predict(features)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"contamination": -0.1}, r"contamination must lie in \[0, 0.5\), got -0.1"),
        ({"contamination": 0.5}, r"contamination must lie in \[0, 0.5\), got 0.5"),
        ({"contamination": float("nan")}, "contamination must lie in"),
        ({"num_rounds": -1}, "num_rounds must be a whole number of at least 0, or None, got -1"),
        ({"num_rounds": 1.5}, "num_rounds must be a whole number"),
        ({"drop_fraction": 1.0}, r"drop_fraction must lie in \[0, 1\), or be None, got 1.0"),
    ],
)
def test_parameters_out_of_range_are_refused(options: dict[str, Any], message: str) -> None:
    features, y, _ = regression(0)
    with pytest.raises(ValueError, match=message):
        Sever(Ridge(), **options).fit(features, y)


@pytest.mark.parametrize(
    ("features", "y", "message"),
    [
        ([[1.0], [np.nan]], [0.0, 1.0], "NaN"),
        ([[1.0], [np.inf]], [0.0, 1.0], "infinity"),
        ([[1.0], [2.0]], [0.0, np.nan], "NaN"),
        (np.empty((0, 2)), [], "0 sample"),
        (np.empty((2, 0)), [0.0, 1.0], "0 feature"),
        ([1.0, 2.0], [0.0, 1.0], "2D array"),
        ([[1.0], [2.0]], [0.0], "inconsistent numbers of samples"),
    ],
)
def test_unsuitable_data_are_refused(features: Any, y: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Sever(Ridge()).fit(features, y)


def test_a_class_that_may_be_corrupted_as_a_whole_is_refused() -> None:
    """ε = 0.1 of 40 samples is 4, and 40/2·0.1/2 = 1: a round would drop the class of 2."""
    with pytest.raises(ValueError, match=r"contamination 0\.1 of 40 samples is 4, and the smallest class has 2"):
        Sever(LogisticRegression(), contamination=0.1).fit(np.arange(40.0)[:, None], [0] * 38 + [1] * 2)


@pytest.mark.parametrize("kind", [np.float32, np.int64])
def test_other_numbers_and_memory_layouts_are_taken(kind: type) -> None:
    """The same support as in contiguous float64."""
    generator = numpy_generator(0, "integers")
    features = generator.integers(-50, 50, size=(100, 4))
    y = features @ [1, 2, 3, 4] + generator.integers(-3, 4, size=100)
    y[:4] = 5000
    expected = Sever(Ridge(), contamination=0.05).fit(features.astype(np.float64), y.astype(np.float64))
    found = Sever(Ridge(), contamination=0.05).fit(np.asfortranarray(features.astype(kind))[::1], y.astype(kind))
    assert found.support_.tolist() == expected.support_.tolist()
    assert not set(range(4)) & set(found.support_)
