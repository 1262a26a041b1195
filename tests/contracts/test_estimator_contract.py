"""What all estimators of a location or a scatter promise, over one table; and what some must not be able to do."""

import random

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from estimator_cases import (
    ABOUT_ZERO,
    CASES,
    COORDINATE_WISE,
    CUTS_ALWAYS,
    KNOWS_D,
    NEEDS_SPREAD,
    NO_BELIEF,
    NO_SCALE,
    NO_WEIGHTS,
    PAIRS,
    SMOOTHED,
    clean,
    sample,
    sample_for,
    without,
)
from hypothesis import example, given, settings
from scipy.stats import ortho_group

from fedrobust.statistics import (
    covariance_samples,
    filter_covariance,
    filter_mean,
    gaussian_samples,
    robust_gaussian,
    tukey_depth,
)

NAMES = list(CASES)
quick = settings(max_examples=8, deadline=None)


def assert_close(found, expected, tolerance):
    """Relative to the largest magnitude of what is expected."""
    for one, other in zip(found, expected, strict=True):
        scale = max(1.0, float(np.abs(np.asarray(other)).max()))
        np.testing.assert_allclose(np.asarray(one) / scale, np.asarray(other) / scale, rtol=0, atol=tolerance)


@pytest.mark.parametrize("name", without(PAIRS))
@quick
@given(seed=st.integers(0, 10**6), n=st.integers(200, 300), d=st.integers(1, 2))
@example(seed=0, n=294, d=1)
def test_permutation(name, seed, n, d):
    """To rounding; an iteration that ends at a tolerance ends within what that allows.

    Of an even number of points on a line every point between the middle two has the smallest sum of distances, so there
    the geometric median is known by that sum alone.
    """
    x = sample_for(name, n, d, seed=seed)
    order = np.random.default_rng(seed).permutation(len(x))
    found, expected = CASES[name].answers(x[order]), CASES[name].answers(x)
    if SMOOTHED in CASES[name].exempt and d == 1 and n % 2 == 0:
        found, expected = ([np.abs(np.asarray(x) - one).sum() for one in answers] for answers in (found, expected))
    assert_close(found, expected, 1e-6 if SMOOTHED in CASES[name].exempt else 1e-10)


@pytest.mark.parametrize("name", without(ABOUT_ZERO))
@quick
@given(seed=st.integers(0, 10**6), shift=st.floats(-1e3, 1e3))
def test_translation(name, seed, shift):
    """Locations move along, scatters stay. Filters compare projections, so no decision lies within 1e-13 of another."""
    x = sample_for(name, 300, seed=seed)
    moved, there = CASES[name].answers(x + shift), CASES[name].answers(x)
    powers = CASES[name].fields.values()
    expected = [one + shift if power == 1 else one for one, power in zip(there, powers, strict=True)]
    assert_close(moved, expected, 1e-9)


def rotated(name, x, rotation):
    expected = []
    for answer, power in zip(CASES[name].answers(x), CASES[name].fields.values(), strict=True):
        expected.append(rotation.T @ answer @ rotation if power == 2 else answer @ rotation)
    return CASES[name].answers(x @ rotation), expected


@pytest.mark.parametrize("name", without(COORDINATE_WISE))
@quick
@given(seed=st.integers(0, 10**6))
def test_rotation(name, seed):
    found, expected = rotated(name, sample_for(name, 300, seed=seed), ortho_group.rvs(2, random_state=seed))
    assert_close(found, expected, 1e-6 if SMOOTHED in CASES[name].exempt else 1e-9)


@pytest.mark.parametrize("name", ["coordinate_median", "trimmed_mean"])
def test_rotation_must_fail_coordinate_by_coordinate(name):
    """Points on the axes, more on one side of each: turned by 45 degrees, the coordinates mix."""
    x = np.abs(clean(400, 2)) * np.array([1.0, 5.0])
    c = 0.5**0.5
    found, expected = rotated(name, x, np.array([[c, -c], [c, c]]))
    assert np.abs(found[0] - expected[0]).max() > 1e-2


@pytest.mark.parametrize("name", NAMES)
@quick
@given(seed=st.integers(0, 10**6), scale=st.floats(1e-3, 1e3))
def test_scale(name, seed, scale):
    """Together with what is in the points' unit: the σ of the filters that have one."""
    one, x = CASES[name], sample_for(name, 300, seed=seed)
    scaled = {key: value * scale for key, value in one.scaled.items()}
    expected = [answer * scale**power for answer, power in zip(one.answers(x), one.fields.values(), strict=True)]
    for found, other in zip(one.answers(x * scale, **scaled), expected, strict=True):
        np.testing.assert_allclose(found, other, rtol=1e-7, atol=1e-9 * scale)


def test_scale_must_fail_without_its_sigma():
    """The paper's thresholds are absolute: in one unit no outlier is seen, in another clean points are removed."""
    outliers, good = sample(4000, 2), clean(4000, 2)
    assert int((filter_mean(outliers, 0.1).weights == 0).sum()) >= 400
    assert int((filter_mean(outliers / 100, 0.1).weights == 0).sum()) == 0
    assert int((filter_mean(good, 0.1).weights == 0).sum()) == 0
    assert int((filter_mean(good * 100, 0.1).weights == 0).sum()) == 2000  # half of them


@pytest.mark.parametrize("name", without(NO_BELIEF))
@quick
@given(seed=st.integers(0, 10**6), n=st.integers(5, 50))
def test_nothing_believed_corrupted_gives_the_moments(name, seed, n):
    x = sample(n, 2, seed=seed)
    known = {"mean": x.mean(axis=0), "covariance": np.cov(x.T, bias=True)}
    if name == "filter_covariance":
        known["covariance"] = x.T @ x / n
    assert_close(CASES[name].answers(x, contamination=0.0), [known[one] for one in CASES[name].fields], 1e-12)


@pytest.mark.parametrize("name", without(NEEDS_SPREAD))
@pytest.mark.parametrize("n", [1, 2, 7, 50])
def test_points_that_coincide(name, n):
    row = np.array([3.0, -1e6])
    assert_close(CASES[name].answers(np.tile(row, (n, 1))), [row], 1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_one_dimension(name):
    """A tenth of outliers moves a location by less than a tenth of their distance, and a scatter by less than half."""
    bounds = {1: 0.8, 2: 0.5}
    for found, power in zip(CASES[name].answers(sample_for(name, 400, 1)), CASES[name].fields.values(), strict=True):
        assert np.asarray(found).shape == (1,) * power
        assert abs(float(np.asarray(found).squeeze()) - (power - 1)) < bounds[power]


@pytest.mark.parametrize("name", without(NO_WEIGHTS, CUTS_ALWAYS, NO_SCALE))
@pytest.mark.parametrize(("d", "seed"), [(2, 0), (5, 1), (10, 2)])
def test_clean_points_are_left_alone(name, d, seed):
    """No more than one in a hundred is removed where there are forty for each dimension, and many more at least."""
    n = max(40 * d, 2000, CASES[name].least(d, 0.1))
    removed = float((1 - np.asarray(CASES[name](clean(n, d, seed=seed)).weights)).sum())
    assert removed <= 0.01 * n


@pytest.mark.parametrize("name", without(NO_WEIGHTS, NO_BELIEF))
@pytest.mark.parametrize("contamination", [0.05, 0.1, 0.15])
@pytest.mark.parametrize("contaminated", [True, False])
def test_a_majority_stays_and_nothing_is_removed_in_a_step_after_twice_the_believed_outliers(
    name, contamination, contaminated
):
    """The removal that exceeds 2εN is the last of a filter, so that without it more than (1 - 2ε)N are left."""
    n = max(1000, CASES[name].least(3, contamination))
    x = sample(n, 3) if contaminated else clean(n, 3)
    found = CASES[name](x, contamination=contamination)
    weights = np.asarray(found.weights)
    assert ((weights >= 0) & (weights <= 1)).all()
    assert weights.sum() > len(x) / 2
    removed = [step.removed for step in found.iterations if step.removed > 0]
    if "covariance_agnostic" not in name and "bounded" not in name:  # steps that halve the eigenvalue follow there
        assert weights.sum() + (removed[-1] if removed else 0) > (1 - 2 * contamination) * len(x) - 1


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("distance", [1e3, 1e6, 1e9, 1e12])
def test_breakdown(name, distance):
    """A tenth of the points anywhere: locations stay within one standard deviation, variances between 1/2 and 2."""
    x = clean(1000, 2)
    x[:50, 0] += distance
    x[50:100] *= distance
    for found, power in zip(CASES[name].answers(x), CASES[name].fields.values(), strict=True):
        if power == 1:
            assert np.abs(found).max() < 1
        else:
            assert np.linalg.eigvalsh(found).min() > 0.5
            assert np.linalg.eigvalsh(found).max() < 2


@pytest.mark.parametrize("name", NAMES)
def test_float32_agrees_with_float64(name):
    x = sample(1000, 2).astype(np.float32)
    single = CASES[name].answers(x)
    assert all(np.asarray(one).dtype == np.float32 for one in single)
    assert_close(single, CASES[name].answers(x.astype(np.float64)), 1e-5)


@pytest.mark.parametrize("name", [*without(NO_WEIGHTS, NEEDS_SPREAD, KNOWS_D), "geometric_median"])
@pytest.mark.parametrize("n", [50, 200])
def test_gram_path_equals_covariance_path(name, n):
    """Columns of zeros change nothing, but make d > n: the n x n matrix is used in place of the d x d one."""
    x = sample(n, 5)
    wide = np.hstack([x, np.zeros((n, n))])
    (narrow_answer,), (wide_answer,) = CASES[name].answers(x), CASES[name].answers(wide)
    np.testing.assert_allclose(wide_answer[:5], narrow_answer, rtol=0, atol=1e-10)
    np.testing.assert_array_equal(wide_answer[5:], 0)


@pytest.mark.parametrize("name", NAMES)
def test_the_answer_is_of_the_kind_that_came_in(name):
    x = sample_for(name)
    before = x.copy()
    tensor = torch.from_numpy(x.copy())
    arrays, tensors = CASES[name].answers(x), CASES[name].answers(tensor)
    assert all(isinstance(one, np.ndarray) and one.dtype == np.float64 for one in arrays)
    assert all(isinstance(one, torch.Tensor) and one.dtype == torch.float64 for one in tensors)
    for array, other in zip(arrays, tensors, strict=True):
        np.testing.assert_array_equal(array, other.numpy())
    np.testing.assert_array_equal(x, before)
    np.testing.assert_array_equal(tensor.numpy(), before)


@pytest.mark.parametrize("name", NAMES)
def test_the_same_bits_again_without_global_randomness(name):
    x = sample_for(name)
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()  # noqa: NPY002
    first = CASES[name].answers(x)
    assert random.getstate() == states[0]
    assert np.random.get_state()[1].tolist() == states[1]  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), states[2])
    random.seed(1)
    torch.manual_seed(1)
    for one, other in zip(first, CASES[name].answers(x), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("name", NAMES)
def test_results_are_frozen_and_say_what_they_are(name):
    result = CASES[name](sample_for(name))
    text = result.summary()
    assert result.method in text
    assert len(text.splitlines()) >= 1 + len(result.iterations)
    with pytest.raises(AttributeError):
        result.method = "other"


@quick
@given(seed=st.integers(0, 10**6), n=st.integers(3, 60))
def test_depth_lies_in_the_unit_interval_and_does_not_change_with_the_axes(seed, n):
    x = np.random.default_rng(seed).standard_normal((n, 2))
    axes = np.random.default_rng(seed + 1).standard_normal((2, 2))
    depth = np.asarray(tukey_depth(x, x).depth)
    assert ((depth > 0) & (depth <= 1)).all()
    np.testing.assert_allclose(np.asarray(tukey_depth(x @ axes + 3, x @ axes + 3).depth), depth, atol=1e-12)


WRONG_SAMPLES = {
    "NaN": (np.array([[1.0, np.nan], [0.0, 1.0]]), r"finite, rows \[0\]"),
    "infinite": (np.array([[1.0, 0.0], [-np.inf, 1.0]]), r"finite, rows \[1\]"),
    "no row": (np.zeros((0, 2)), "row"),
    "no column": (np.zeros((3, 0)), "column"),
    "a number": (np.float64(1), "shape"),
    "three axes": (np.zeros((3, 2, 2)), "shape"),
    "complex": (np.zeros((3, 2), dtype=np.complex128), "real numbers"),
    "text": (np.array([["a", "b"]]), "real numbers"),
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("wrong", WRONG_SAMPLES)
def test_a_wrong_sample_is_refused(name, wrong):
    x, message = WRONG_SAMPLES[wrong]
    with pytest.raises(ValueError, match=message):
        CASES[name](x)


@pytest.mark.parametrize("name", without(NO_BELIEF))
@pytest.mark.parametrize("contamination", [-0.1, 0.5, 1.0, float("nan")])
def test_a_contamination_out_of_range_is_refused(name, contamination):
    with pytest.raises(ValueError, match="contamination must lie in"):
        CASES[name](sample(400, 2), contamination=contamination)


@pytest.mark.parametrize("name", [name for name, one in CASES.items() if "sigma" in one.scaled])
@pytest.mark.parametrize("sigma", [0.0, -1.0, float("nan"), float("inf")])
def test_a_sigma_out_of_range_is_refused(name, sigma):
    with pytest.raises(ValueError, match="sigma"):
        CASES[name](sample(400, 2), sigma=sigma)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [np.int64, np.int8, np.bool_])
def test_integers_are_taken_for_the_numbers_they_are(name, dtype):
    x = (sample_for(name, 600) * 3).round().clip(-100, 100).astype(dtype)
    if dtype == np.bool_:
        x = np.random.default_rng(0).integers(0, 2, size=x.shape).astype(bool)
    for one, other in zip(CASES[name].answers(x), CASES[name].answers(x.astype(np.float64)), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("form", ["strided", "reversed", "fortran", "read-only", "list"])
def test_any_memory_will_do(name, form):
    x = sample_for(name)
    wide = np.repeat(np.repeat(x, 2, axis=0), 3, axis=1)
    forms = {
        "strided": wide[::2, ::3],
        "reversed": x[::-1].copy()[::-1],
        "fortran": np.asfortranarray(x),
        "read-only": np.broadcast_to(x, x.shape),
        "list": x.tolist(),
    }
    assert_close(CASES[name].answers(forms[form]), CASES[name].answers(x), 1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_a_constant_column(name):
    """Where a covariance must be inverted it is refused by name, elsewhere the column's value is the answer."""
    x = np.hstack([sample(4000, 1), np.full((4000, 1), 7.0)])
    if NEEDS_SPREAD in CASES[name].exempt:
        with pytest.raises(ValueError, match=r"no spread in columns \[1\]"):
            CASES[name](x if name != "filter_covariance" else x * np.array([1.0, 0.0]))
    else:
        (answer,) = CASES[name].answers(x)
        assert answer[1] == pytest.approx(7.0, abs=1e-12)


@pytest.mark.parametrize(
    ("estimate", "needed"), [(filter_covariance, covariance_samples), (robust_gaussian, gaussian_samples)]
)
def test_too_few_points_to_see_outliers_are_refused_with_the_number(estimate, needed):
    least = needed(3, 0.1)
    with pytest.raises(ValueError, match=f"at least {least} rows"):
        estimate(clean(least - 1, 3), 0.1)
    estimate(clean(least, 3), 0.1)
