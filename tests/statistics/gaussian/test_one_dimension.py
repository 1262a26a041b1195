"""The median, the scaled median absolute deviation and their bounds, against SciPy, NumPy and simulation."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import median_abs_deviation, norm

from fedrobust.seeds import numpy_generator
from fedrobust.statistics import (
    Gaussian,
    mad_sigma,
    median,
    median_bias,
    median_bias_bound,
    median_tail_bound,
    robust_gaussian_1d,
)

FIGURES = {0.05: 0.068, 0.1: 0.141, 0.2: 0.319, 0.3: 0.566}


def contaminated(n: int, eps: float, seed: int) -> np.ndarray:
    """N(0, 1), a part eps of it moved far to the right."""
    x = numpy_generator(seed, "contaminated", n).standard_normal(n)
    x[: round(eps * n)] = 1e6
    return x


@pytest.mark.parametrize("n", [1, 2, 3, 10, 101, 1000])
@pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy])
def test_equals_numpy_and_scipy(n, kind):
    x = numpy_generator(n, "sample").standard_cauchy(n)
    assert median(kind(x)) == pytest.approx(np.median(x), rel=1e-15)
    assert mad_sigma(kind(x)) == pytest.approx(median_abs_deviation(x, scale="normal"), rel=1e-12, abs=1e-15)
    found = robust_gaussian_1d(kind(x))
    assert (found.mean, found.sigma) == (median(x), mad_sigma(x))
    assert f"{found.mean:.6g}" in found.summary()


@given(st.lists(st.integers(-5, 5), min_size=1, max_size=12))
def test_ties_and_integers_equal_scipy(values):
    """Small integers tie often; `torch.median` would fail here on every even number of values without a tie."""
    assert median(np.array(values)) == np.median(values)
    assert mad_sigma(np.array(values)) == pytest.approx(median_abs_deviation(values, scale="normal"), rel=1e-12)


def test_more_than_half_equal_values_have_no_spread():
    assert mad_sigma(np.array([3.0, 3, 3, -1e9, 7])) == 0.0
    assert robust_gaussian_1d([3.0, 3, 3, 8]) == Gaussian(3.0, 0.0)


def test_the_midpoint_does_not_overflow():
    assert median(np.array([1.6e308, 1.7e308])) == pytest.approx(1.65e308)


@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=20), st.floats(-10, 10), st.floats(-1e3, 1e3))
def test_affine_equivariance(values, a, b):
    x = np.array(values)
    assert median(a * x + b) == pytest.approx(a * median(x) + b, abs=1e-9)
    assert mad_sigma(a * x + b) == pytest.approx(abs(a) * mad_sigma(x), abs=1e-8)


@pytest.mark.parametrize("eps", FIGURES)
def test_the_exact_law_is_what_far_contamination_does(eps):
    """Simulated at n = 400,000: within five standard deviations √(p(1-p)/n)/((1-ε)φ(bias)) of the law, p = ½.

    The law also lies within .003 of figures measured independently, at finite n, and below the simpler bound.
    """
    n = 400_000
    x = contaminated(n, eps, 0)
    law = median_bias(eps)
    deviation = 0.5 / np.sqrt(n) / ((1 - eps) * norm.pdf(law))
    assert median(x) == pytest.approx(law, abs=5 * deviation)
    assert law == pytest.approx(FIGURES[eps], abs=0.003)
    assert median_bias_bound(eps) == pytest.approx(norm.ppf(0.5 + eps))
    assert median_bias_bound(eps) > law


def test_without_contamination_there_is_no_bias():
    assert median_bias(0) == pytest.approx(0, abs=1e-15)
    assert median_bias_bound(0) == pytest.approx(0, abs=1e-15)


@pytest.mark.parametrize(("eps", "t"), [(0.0, 0.2), (0.1, 0.6), (0.2, 0.9)])
def test_the_tail_bound_holds(eps, t):
    """2,000 simulated samples of 100, the largest eps n values of a clean sample replaced by far ones."""
    n, repeats = 100, 2000
    x = np.sort(numpy_generator(0, "tail", n).standard_normal((repeats, n)), axis=1)
    x[:, : round(eps * n)] = 1e6  # the smallest go: the worst that replacing can do
    seen = np.mean(np.abs(np.median(x, axis=1)) > t)
    bound = median_tail_bound(n, eps, t)
    assert bound == pytest.approx(2 * np.exp(-2 * n * (norm.cdf(t) - 0.5 - eps) ** 2), rel=1e-12)
    assert seen <= bound


def test_the_tail_bound_is_never_more_than_one_and_falls():
    assert median_tail_bound(100, 0.3, 0.1) == 1.0  # Φ(.1) - ½ < .3: the square must not bring it back
    assert median_tail_bound(1, 0.0, 0.0) == 1.0
    bounds = [median_tail_bound(1000, 0.1, t) for t in np.linspace(0, 3, 50)]
    assert bounds == sorted(bounds, reverse=True)
    assert median_tail_bound(10**6, 0.1, 3.0) == 0.0


@pytest.mark.parametrize("function", [median, mad_sigma, robust_gaussian_1d])
@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (np.array([]), "at least 1 rows"),
        (np.array([1.0, np.nan]), "finite"),
        (torch.tensor([1.0, torch.inf]), "finite"),
        (np.zeros((2, 2)), r"shape \(N,\)"),
        (np.array(["a"]), "real numbers"),
        (np.array([1j]), "real numbers"),
    ],
)
def test_bad_samples_are_refused(function, bad, message):
    with pytest.raises(ValueError, match=message):
        function(bad)


def test_kinds_of_numbers():
    for x in (np.array([1, 2, 4]), torch.tensor([1, 2, 4]), np.array([1, 2, 4], np.float16), [1, 2, 4]):
        assert median(x) == 2.0
    assert median(np.arange(20.0)[::-2]) == 10.0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: median_bias(0.5), "contamination"),
        (lambda: median_bias_bound(-0.1), "contamination"),
        (lambda: median_tail_bound(0, 0.1, 1.0), "num_samples"),
        (lambda: median_tail_bound(10, 0.7, 1.0), "contamination"),
        (lambda: median_tail_bound(10, 0.1, -1.0), "t must"),
        (lambda: median_tail_bound(10, 0.1, float("nan")), "t must"),
        (lambda: Gaussian(0.0, -1.0), "sigma"),
        (lambda: Gaussian(0.0, float("nan")), "sigma"),
        (lambda: Gaussian(float("inf"), 1.0), "mean"),
    ],
)
def test_bad_figures_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
