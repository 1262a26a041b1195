"""Rules against other people's: byzfl 0.0.11 and Flower's strategies. Where a peer is right, ours is equal to it.

Where it is not, or means another rule by the same name, a test shows where the peer goes and that ours goes with a
brute force from the paper's formula, in float64. SciPy's trimmed mean and a minimiser's geometric median are oracles of
the rules' own tests.
"""

import gc
from collections.abc import Callable
from itertools import combinations

import byzfl
import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import Bulyan as FlowerBulyan
from flwr.serverapp.strategy import FedAvg, FedMedian, FedTrimmedAvg
from flwr.serverapp.strategy import Krum as FlowerKrum
from flwr.serverapp.strategy import MultiKrum as FlowerMultiKrum
from flwr.serverapp.strategy.bulyan import aggregate_n_closest_weights
from flwr.serverapp.strategy.multikrum import compute_distances
from numpy.typing import NDArray

from fedrobust._linalg.order_statistics import mean_nearest_to_median
from fedrobust.aggregators import (
    MDA,
    Aggregator,
    Bulyan,
    CentredClipping,
    CoordinateMedian,
    GeometricMedian,
    Krum,
    Meamed,
    Mean,
    MultiKrum,
    SpectralFilter,
    TrimmedMean,
)
from fedrobust.engines.local import LocalGrid

Matrix = NDArray[np.float64]


def sample(n: int, f: int, d: int = 30, seed: int = 0) -> Matrix:
    """N(0, I), with the last f shifted by 3 along the diagonal: near enough that rules differ about them."""
    points = np.random.default_rng([seed, n, d]).normal(size=(n, d))
    points[n - f :] += 3.0
    return points


def answer(rule: Aggregator, points: NDArray, weights: NDArray | None = None) -> Matrix:
    given = None if weights is None else torch.from_numpy(weights)
    return rule(torch.from_numpy(points), given).update.double().numpy()


def squared_distances(points: NDArray) -> Matrix:
    wide = points.astype(np.float64)
    return np.array([[((one - other) ** 2).sum() for other in wide] for one in wide])


def krum_scores(points: NDArray, num_neighbours: int) -> Matrix:
    return np.sort(squared_distances(points), axis=1)[:, 1 : num_neighbours + 1].sum(axis=1)


def flower_answer(strategy: FedAvg, points: NDArray, num_examples: NDArray | None = None) -> NDArray | None:
    """What a strategy makes of replies that hold the rows, as one layer."""
    arrays, _ = strategy.aggregate_train(1, flower_replies(strategy, points, num_examples))
    return None if arrays is None else arrays["layer"].numpy()


def flower_replies(strategy: FedAvg, points: NDArray, num_examples: NDArray | None = None) -> list[Message]:
    start = ArrayRecord({"layer": Array(np.zeros_like(points[0]))})
    orders = strategy.configure_train(1, start, ConfigRecord(), LocalGrid(ClientApp(), len(points)))
    replies = []
    counts = np.ones(len(points)) if num_examples is None else num_examples
    for order, row, count in zip(orders, points, counts, strict=True):
        content = RecordDict(
            {"arrays": ArrayRecord({"layer": Array(row)}), "metrics": MetricRecord({"num-examples": float(count)})}
        )
        replies.append(Message(content, reply_to=order))
    return replies


SIZES = pytest.mark.parametrize(("n", "f"), [(11, 2), (12, 2), (30, 6), (9, 0)])


@SIZES
@pytest.mark.parametrize(
    ("make_ours", "make_theirs"),
    [
        (lambda f, n: Mean(), lambda f: byzfl.Average()),
        (lambda f, n: CoordinateMedian(), lambda f: byzfl.Median()),
        (lambda f, n: TrimmedMean(num_trimmed=f), byzfl.TrMean),
        (lambda f, n: Meamed(assumed_fraction=f / n), byzfl.Meamed),
        (lambda f, n: CentredClipping(max_norm=4.0, num_iterations=3), lambda f: byzfl.CenteredClipping(L=3, tau=4.0)),
    ],
    ids=["mean", "coordinate_median", "trimmed_mean", "meamed", "centred_clipping"],
)
def test_byzfl_agrees(
    n: int,
    f: int,
    make_ours: Callable[[int, int], Aggregator],
    make_theirs: Callable[[int], Callable[[Matrix], Matrix]],
) -> None:
    points = sample(n, f)
    np.testing.assert_allclose(answer(make_ours(f, n), points), make_theirs(f)(points), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("n", "f"), [(8, 2), (9, 3), (7, 0)])
def test_byzfl_agrees_about_the_smallest_diameter(n: int, f: int) -> None:
    points = sample(n, f)
    np.testing.assert_allclose(answer(MDA(assumed_fraction=f / n), points), byzfl.MDA(f)(points), rtol=1e-9)


@SIZES
def test_flower_agrees_about_median_trimmed_mean_and_krum(n: int, f: int) -> None:
    """Near the origin and in float64; Multi-Krum's average carries the numbers of examples, as ours the weights."""
    points, examples = sample(n, f), np.arange(1, n + 1) * 10.0
    np.testing.assert_allclose(answer(CoordinateMedian(), points), flower_answer(FedMedian(), points), rtol=1e-12)
    trimmed = flower_answer(FedTrimmedAvg(beta=(f + 0.5) / n), points)
    np.testing.assert_allclose(answer(TrimmedMean(num_trimmed=f), points), trimmed, rtol=1e-9, atol=1e-12)
    krum = flower_answer(FlowerKrum(num_malicious_nodes=f), points)
    np.testing.assert_allclose(answer(Krum(assumed_fraction=f / n), points), krum, rtol=1e-12)
    multi_krum = flower_answer(FlowerMultiKrum(num_malicious_nodes=f, num_nodes_to_select=n - f), points, examples)
    ours = answer(MultiKrum(assumed_fraction=f / n), points, examples)
    np.testing.assert_allclose(ours, multi_krum, rtol=1e-9, atol=1e-12)


def test_byzfl_counts_one_neighbour_more_than_krum() -> None:
    """n - f - 1 of them, where the paper has n - f - 2 (Blanchard et al., section 4): at times another client wins."""
    n, f, differ = 9, 3, 0
    for seed in range(40):
        points = sample(n, f, d=5, seed=seed)
        paper, other = krum_scores(points, n - f - 2).argmin(), krum_scores(points, n - f - 1).argmin()
        np.testing.assert_array_equal(byzfl.Krum(f)(points), points[other])
        np.testing.assert_allclose(answer(Krum(assumed_fraction=f / n), points), points[paper], rtol=1e-12)
        kept, others = (np.argsort(krum_scores(points, n - f - less))[: n - f] for less in (2, 1))
        np.testing.assert_allclose(byzfl.MultiKrum(f)(points), points[others].mean(axis=0), rtol=1e-9)
        ours = answer(MultiKrum(assumed_fraction=f / n), points)
        np.testing.assert_allclose(ours, points[kept].mean(axis=0), rtol=1e-9, atol=1e-12)
        differ += int(paper != other)
    assert differ >= 5


@pytest.mark.parametrize("n", [10, 40])
def test_krum_on_weights_cancels_in_flower_and_byzfl(n: int) -> None:
    """Float32 rows at 3000 times their spread, as models are: ‖x‖² + ‖y‖² - 2⟨x, y⟩ leaves no digit of a distance.

    Flower's squared distances are off by more than they are, some below zero, and it chooses other clients than float64
    does; so does byzfl on tensors of more than 25 rows, where `torch.cdist` does the same. Ours, on the same rows,
    chooses as float64 does.
    """
    f, d, differ, byzfl_differs = n // 5, 20_000, 0, 0
    for seed in range(4):
        generator = np.random.default_rng([seed, n])
        spreads = generator.uniform(0.9, 1.1, size=(n, 1))
        points = (3000 * generator.normal(size=d) + spreads * generator.normal(size=(n, d))).astype(np.float32)
        exact = squared_distances(points)
        off = np.abs(compute_distances([ArrayRecord([row]) for row in points]) - exact)[~np.eye(n, dtype=bool)]
        assert off.max() > 0.5 * exact[~np.eye(n, dtype=bool)].mean()
        best = krum_scores(points, n - f - 2).argmin()
        np.testing.assert_array_equal(answer(Krum(assumed_fraction=f / n), points), points[best])
        differ += int((flower_answer(FlowerKrum(num_malicious_nodes=f), points) != points[best]).any())
        byzfl_best = krum_scores(points, n - f - 1).argmin()
        byzfl_differs += int((byzfl.Krum(f)(torch.from_numpy(points)).numpy() != points[byzfl_best]).any())
    assert differ >= 2
    assert byzfl_differs >= (2 if n > 25 else 0)


def test_flower_selects_for_bulyan_all_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its θ best of one Multi-Krum, where Algorithm 1 of the paper runs Krum anew after each that it takes.

    The second stage is the same: the mean of the β values nearest to the median of the selected.
    """
    monkeypatch.setattr(gc, "collect", lambda: 0)  # Flower's Bulyan collects garbage once a row
    n, f, differ = 15, 3, 0
    theta, beta = n - 2 * f, n - 4 * f
    for seed in range(20):
        points = sample(n, f, d=5, seed=seed)
        at_once = sorted(np.argsort(krum_scores(points, n - f - 2))[:theta])
        remaining, selected = list(range(n)), []
        while len(selected) < theta:
            scores = krum_scores(points[remaining], max(1, len(remaining) - f - 2))
            selected.append(remaining.pop(int(scores.argmin())))
        theirs = flower_answer(FlowerBulyan(num_malicious_nodes=f), points)
        for rows, found in ((at_once, theirs), (sorted(selected), answer(Bulyan(assumed_fraction=f / n), points))):
            chosen = points[rows]
            expected = aggregate_n_closest_weights([np.median(chosen, axis=0)], [[row] for row in chosen], beta)[0]
            np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)
            second = mean_nearest_to_median(torch.from_numpy(points), beta, rows=torch.tensor(rows)).numpy()
            np.testing.assert_allclose(second, expected, rtol=1e-9, atol=1e-12)
        differ += int(at_once != sorted(selected))
    assert differ >= 5


def test_flowers_trimmed_mean_loses_a_client_to_rounding() -> None:
    """0.29 · 100 is 28.999999999999996: Flower (as SciPy) cuts 28 on each side, ours the 29 that were asked for."""
    points = sample(100, 0, d=5)
    for found, cut in (
        (flower_answer(FedTrimmedAvg(beta=0.29), points), 28),
        (answer(TrimmedMean(assumed_fraction=0.29), points), 29),
    ):
        np.testing.assert_allclose(found, np.sort(points, axis=0)[cut:-cut].mean(axis=0), rtol=1e-9, atol=1e-12)


def test_flowers_median_empties_the_replies() -> None:
    """Who looks at the replies after the rule, for metrics or a log, finds no arrays; ours leaves its input alone."""
    strategy, points = FedMedian(), sample(5, 1)
    replies = flower_replies(strategy, points)
    strategy.aggregate_train(1, replies)
    assert [len(reply.content["arrays"]) for reply in replies] == [0] * 5
    given = torch.from_numpy(points.copy())
    CoordinateMedian()(given)
    np.testing.assert_array_equal(given.numpy(), points)


def sum_of_distances(points: Matrix, place: NDArray) -> float:
    return float(np.linalg.norm(points - place, axis=1).sum())


def test_byzfls_geometric_median_stops_early() -> None:
    """Three steps from the origin, whatever the data; with a thousand and little smoothing it is where ours is."""
    points = sample(11, 3) + 50.0
    ours = answer(GeometricMedian(), points)
    converged = byzfl.GeometricMedian(nu=1e-6, T=1000)(points)
    np.testing.assert_allclose(ours, converged, rtol=1e-6)
    assert sum_of_distances(points, ours) <= sum_of_distances(points, converged) * (1 + 1e-12)
    early = byzfl.GeometricMedian()(points)
    spread = np.linalg.norm(points - ours, axis=1).mean()
    assert np.linalg.norm(early - ours) > 0.01 * spread
    assert np.linalg.norm(converged - ours) < 1e-4 * np.linalg.norm(early - ours)


def covariance_agnostic_filter(points: Matrix, f: int) -> Matrix:
    """Algorithm of Allouah et al., ICML 2025, with `eigh` of the covariance; the mean if no step is to be made.

    The weighting after the last step is looked at, too.
    """
    left, smallest, best = np.ones(len(points)), np.inf, points.mean(axis=0)
    is_last = False
    while True:
        mean = left @ points / left.sum()
        centred = points - mean
        values, vectors = np.linalg.eigh((centred.T * left) @ centred / left.sum())
        if values[-1] < smallest:
            smallest, best = values[-1], mean
        if is_last:
            return best
        scores = (centred @ vectors[:, -1]) ** 2
        left = left * (1 - scores / scores[left > 0].max())
        left = np.maximum(left, 0)
        is_last = left.sum() < len(points) - 2 * f - 1e-6


def test_byzfls_covariance_agnostic_filter_depends_on_the_global_generator() -> None:
    """One power step from a direction out of NumPy's global generator: the answer changes from call to call.

    The variance it finds along that direction is not the largest. Ours is the same each time and equals the filter with
    the whole eigendecomposition.
    """
    n, f = 20, 4
    points = sample(n, f)
    state = np.random.get_state()  # noqa: NPY002
    try:
        found = [byzfl.CAF(f)(points) for _ in range(10)]
    finally:
        np.random.set_state(state)  # noqa: NPY002
    gaps = [np.linalg.norm(one - other) for one, other in combinations(found, 2)]
    ours = [answer(SpectralFilter(assumed_fraction=f / n), points) for _ in range(2)]
    np.testing.assert_array_equal(ours[0], ours[1])
    np.testing.assert_allclose(ours[0], covariance_agnostic_filter(points, f), rtol=1e-7, atol=1e-9)
    assert max(gaps) > 1e-3


def test_byzfls_covariance_agnostic_filter_has_no_answer_without_attackers() -> None:
    """At f = 0 its loop never runs and it returns None; ours is the mean."""
    points = sample(9, 0)
    assert byzfl.CAF(0)(points) is None
    np.testing.assert_allclose(answer(SpectralFilter(assumed_fraction=0.0), points), points.mean(axis=0), rtol=1e-9)


def test_byzfl_turns_float64_tensors_into_float32() -> None:
    """`check_vectors_type` calls `.float()` on every tensor; on NumPy arrays, and in ours, float64 stays."""
    points = 1e4 + 1e-4 * sample(9, 2)
    rounded = byzfl.Median()(torch.from_numpy(points))
    assert rounded.dtype == torch.float32
    assert (rounded == 1e4).all()
    exact = np.median(points, axis=0)
    assert (exact != 1e4).all()
    np.testing.assert_allclose(answer(CoordinateMedian(), points), exact, rtol=1e-15)
