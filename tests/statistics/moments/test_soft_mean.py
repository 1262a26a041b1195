from itertools import pairwise

import numpy as np
import pytest
import scipy.linalg
import torch
from numpy.typing import NDArray
from scipy.stats import ortho_group

from fedrobust._linalg import rows
from fedrobust.seeds import numpy_generator
from fedrobust.statistics import MeanEstimate, bounded_covariance_mean, covariance_agnostic_mean
from fedrobust.statistics.moments.soft_mean import Scoring

Array = NDArray[np.float64]


def contaminated(n: int, d: int, f: int) -> Array:
    x = numpy_generator(0, n, d).standard_normal((n, d)) * np.linspace(1, 2, d)
    x[:f] += 4.0
    x[: f // 2] *= 20.0
    return x


def direct_filter(x: Array, f: int, limit: float | None, alpha: float | None) -> Array:
    """The soft filter from its formula: `np.cov`, all eigenpairs or SciPy's matrix exponential, the best weights."""
    weights, answer, smallest = np.ones(len(x)), np.ones(len(x)), np.inf
    is_last = False
    while True:
        covariance = np.atleast_2d(np.cov(x.T, aweights=weights, bias=True))
        values, vectors = np.linalg.eigh(covariance)
        if values[-1] < smallest:
            answer, smallest = weights, values[-1]
        if is_last or (limit is not None and values[-1] <= limit):
            return answer
        centred = x - np.average(x, axis=0, weights=weights)
        if alpha is None:
            scores = (centred @ vectors[:, -1]) ** 2
        else:
            scores = ((centred @ scipy.linalg.expm(alpha * covariance / values[-1])) * centred).sum(axis=1)
        weights = weights * np.clip(1 - scores / scores[weights > 0].max(), 0, None)
        is_last = weights.sum() < len(x) - 2 * f - 1e-6


SHAPES = [(40, 1, 4), (100, 12, 20), (30, 12, 6), (20, 60, 4), (12, 13, 2)]
SCORES = [("top", None), ("quantum_entropy", 4.0), ("quantum_entropy", 0.5)]


@pytest.mark.parametrize(
    ("n", "d", "f", "direction", "alpha"),
    [*((*shape, *score) for shape in SHAPES for score in SCORES), (300, 160, 12, "top", None)],
)
@pytest.mark.parametrize("sigma", [None, 1.2])
def test_equals_the_formula(
    n: int, d: int, f: int, direction: Scoring, alpha: float | None, sigma: float | None
) -> None:
    """Covariance path for n >= d, Gram path for n < d, against the same d x d oracle."""
    x = contaminated(n, d, f)
    limit = None if sigma is None else 1.5 * sigma**2
    weights = direct_filter(x, f, limit, alpha)
    assert (weights < 1).any()
    if sigma is None:
        found = covariance_agnostic_mean(x, f / n, direction=direction, entropy_alpha=alpha or 4.0)
    else:
        found = bounded_covariance_mean(x, f / n, sigma, direction=direction, entropy_alpha=alpha or 4.0)
    np.testing.assert_allclose(found.weights, weights, atol=1e-9)
    np.testing.assert_allclose(found.mean, weights @ x / weights.sum(), atol=1e-9)


def test_one_step_by_hand() -> None:
    """0, 0, 0, 4: mean 1, variance 3, τ = 1, 1, 1, 9, so w = 8/9, 8/9, 8/9, 0 and the variance is 0."""
    found = covariance_agnostic_mean([[0.0], [0.0], [0.0], [4.0]], 0.25)
    assert found.mean.tolist() == [0.0]
    assert found.weights.tolist() == pytest.approx([8 / 9, 8 / 9, 8 / 9, 0])
    (step,) = found.iterations
    assert (step.statistic, step.threshold, step.removed) == (pytest.approx(3), None, pytest.approx(4 / 3))
    assert "step 1: statistic 3, removed 1.33333" in found.summary()


def test_stops_at_the_bound() -> None:
    """Variance 3 as above: σ = 1 with C = 3.1 stops at once, with C = 2.9 after one step."""
    x = np.array([[0.0], [0.0], [0.0], [4.0]])
    assert bounded_covariance_mean(x, 0.25, 1.0, stopping_factor=3.1).mean.tolist() == [1.0]
    after = bounded_covariance_mean(x, 0.25, 1.0, stopping_factor=2.9)
    assert after.mean.tolist() == [0.0]
    assert after.iterations[0].threshold == 2.9


@pytest.mark.parametrize("direction", ["top", "quantum_entropy"])
@pytest.mark.parametrize(("n", "d", "f"), [(300, 12, 30), (25, 60, 5)])
def test_equivariance(n: int, d: int, f: int, direction: Scoring) -> None:
    """Translation, rotation, permutation and, where σ is not given, scale."""
    x = contaminated(n, d, f)
    generator = numpy_generator(1, n, d)
    shift, order, rotation = (
        generator.standard_normal(d) * 100,
        generator.permutation(n),
        ortho_group.rvs(d, random_state=generator),
    )

    def caf(values: Array) -> Array:
        return covariance_agnostic_mean(values, f / n, direction=direction).mean

    def bounded(values: Array) -> Array:
        return bounded_covariance_mean(values, f / n, 1.5, direction=direction).mean

    for estimate in (caf, bounded):
        mean = estimate(x)
        np.testing.assert_allclose(estimate(x + shift), mean + shift, atol=1e-9)
        np.testing.assert_allclose(estimate(x @ rotation), mean @ rotation, atol=1e-11)
        np.testing.assert_allclose(estimate(x[order]), mean, atol=1e-11)
    np.testing.assert_allclose(caf(x * 1e-4), caf(x) * 1e-4, rtol=1e-9)
    scaled = bounded_covariance_mean(x * 1e4, f / n, 1.5e4, direction=direction).mean
    np.testing.assert_allclose(scaled, bounded(x) * 1e4, rtol=1e-9)


@pytest.mark.parametrize("size", [1e3, 1e6, 1e12])
@pytest.mark.parametrize(("n", "d"), [(500, 1), (500, 10), (100, 400)])
@pytest.mark.parametrize("direction", ["top", "quantum_entropy"])
def test_outliers_have_bounded_influence_however_far_out(n: int, d: int, size: float, direction: Scoring) -> None:
    """What is left of a tenth at 1e12 is nothing; good points' own mean has a distance near √(d/n)."""
    x = numpy_generator(2, n, d).standard_normal((n, d))
    x[: n // 10] = size
    for found in (
        covariance_agnostic_mean(x, 0.1, direction=direction),
        bounded_covariance_mean(x, 0.1, 1.0, direction=direction),
    ):
        assert found.weights[: n // 10].sum() == 0
        assert np.linalg.norm(found.mean) < 2 * (d / n) ** 0.5 + 0.3


def test_gross_outliers_do_not_mask_subtle_ones() -> None:
    """Five at 1e9 and fifteen a distance of 12 out, of 200: a shift of 0.9 if the fifteen stayed."""
    x = numpy_generator(3, "mask").standard_normal((200, 20))
    x[:5], x[5:20, 0] = 1e9, 12.0
    found = covariance_agnostic_mean(x, 0.1)
    assert found.weights[:20].max() < 0.15
    assert abs(found.mean[0]) < 0.3


@pytest.mark.parametrize(("n", "d"), [(40, 1), (400, 10), (2000, 50)])
def test_clean_data_within_sigma_are_left_alone(n: int, d: int) -> None:
    x = numpy_generator(4, n, d).standard_normal((n, d))
    found = bounded_covariance_mean(x, 0.2, 1.0)
    assert found.weights.tolist() == [1.0] * n
    np.testing.assert_allclose(found.mean, x.mean(axis=0), atol=1e-14)


@pytest.mark.parametrize(("n", "d"), [(50, 3), (5, 30)])
def test_no_step_follows_one_beyond_2f_unless_outliers_left(n: int, d: int) -> None:
    x = np.exp(2 * numpy_generator(5, n, d).standard_normal((n, d)))
    for contamination in (0.1, 0.2, 0.45):
        f = int(contamination * n + 1e-9)
        for found in (covariance_agnostic_mean(x, contamination), bounded_covariance_mean(x, contamination, 1e-9)):
            gone = np.cumsum([step.removed for step in found.iterations])
            eigenvalues = [step.statistic for step in found.iterations]
            for before, after in pairwise(range(len(gone))):
                assert gone[before] <= 2 * f + 1e-6 or eigenvalues[after] < 0.5 * eigenvalues[before]
            assert found.weights.min() >= 0
            assert found.weights.sum() > 0


def estimates(x: Array, contamination: float) -> list[MeanEstimate]:
    return [
        covariance_agnostic_mean(x, contamination),
        covariance_agnostic_mean(x, contamination, direction="quantum_entropy"),
        bounded_covariance_mean(x, contamination, 1.0),
    ]


def test_no_contamination_gives_the_mean() -> None:
    x = numpy_generator(6, "mean").standard_normal((50, 3)) * 100
    for found in estimates(x, 0.0):
        np.testing.assert_allclose(found.mean, x.mean(axis=0), rtol=1e-13)
        assert found.weights.tolist() == [1.0] * 50


@pytest.mark.parametrize("x", [np.array([[3.0, 4.0]]), np.full((9, 2), 0.1), np.full((4, 7), 1e6), np.array([[5.0]])])
def test_one_point_and_equal_points(x: Array) -> None:
    for found in estimates(x, 0.3):
        np.testing.assert_allclose(found.mean, x[0], rtol=1e-14)


def test_constant_columns() -> None:
    x = contaminated(100, 12, 20)
    plain = covariance_agnostic_mean(x, 0.2)
    more = covariance_agnostic_mean(np.column_stack([x, np.full(100, 7.0)]), 0.2)
    np.testing.assert_allclose(more.mean, [*plain.mean, 7.0], atol=1e-12)


@pytest.mark.parametrize(("n", "d", "f"), [(200, 12, 20), (20, 300, 4)])
def test_float32_and_torch(n: int, d: int, f: int) -> None:
    x = contaminated(n, d, f)
    exact = covariance_agnostic_mean(x, f / n)
    single = covariance_agnostic_mean(x.astype(np.float32), f / n)
    assert single.mean.dtype == np.float32
    np.testing.assert_allclose(single.mean, exact.mean, atol=1e-5)
    tensor = covariance_agnostic_mean(torch.from_numpy(x), f / n)
    assert isinstance(tensor.mean, torch.Tensor)
    np.testing.assert_array_equal(tensor.mean.numpy(), exact.mean)


def test_the_path_of_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tensors in place of arrays, in chunks of ten rows and more: what a GPU would compute, on this CPU."""
    x = contaminated(200, 12, 20)
    expected = [found.mean for found in estimates(x, 0.1)]
    monkeypatch.setattr(rows, "_ARRAYS_ON", "nowhere")
    monkeypatch.setattr(rows, "_FEWEST_ROWS", 10)
    monkeypatch.setattr(rows, "_DEVICE_CHUNK_NUMBERS", 1)
    for found, mean in zip(estimates(x, 0.1), expected, strict=True):
        np.testing.assert_allclose(found.mean, mean, atol=1e-12)


def test_refusals() -> None:
    x = np.ones((10, 2))
    with pytest.raises(ValueError, match="contamination must lie in"):
        covariance_agnostic_mean(x, 0.5)
    with pytest.raises(ValueError, match="sigma must be positive"):
        bounded_covariance_mean(x, 0.1, 0.0)
    with pytest.raises(ValueError, match="stopping_factor must be positive"):
        bounded_covariance_mean(x, 0.1, 1.0, stopping_factor=-1.0)
    with pytest.raises(ValueError, match="direction must be 'top' or 'quantum_entropy', got 'bottom'"):
        covariance_agnostic_mean(x, 0.1, direction="bottom")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="entropy_alpha must be finite"):
        covariance_agnostic_mean(x, 0.1, entropy_alpha=-1.0)
    x[4, 0] = np.inf
    with pytest.raises(ValueError, match=r"rows \[4\]"):
        covariance_agnostic_mean(x, 0.1)
