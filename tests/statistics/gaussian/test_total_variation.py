"""Total variation against numerical integration, closed forms and each other."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.stats import multivariate_normal, norm

from fedrobust.seeds import numpy_generator
from fedrobust.statistics import (
    Gaussian,
    gaussian_kl_divergence,
    gaussian_total_variation,
    gaussian_total_variation_1d,
    pinsker_bound,
    robust_gaussian_1d,
)


def integrated(p: Gaussian, q: Gaussian) -> float:
    """½ ∫ |p - q|, by SciPy, split where either has its mass."""
    edges = sorted(g.mean + k * g.sigma for g in (p, q) for k in (-40, -10, -4, -2, -1, -0.5, 0, 0.5, 1, 2, 4, 10, 40))
    pieces = [
        quad(lambda x: abs(norm.pdf(x, p.mean, p.sigma) - norm.pdf(x, q.mean, q.sigma)), a, b, limit=200)[0]
        for a, b in pairwise(edges)
        if a < b
    ]
    return sum(pieces) / 2


PAIRS = [
    (Gaussian(0, 1), Gaussian(0, 1)),
    (Gaussian(0, 1), Gaussian(0.1, 1)),
    (Gaussian(0, 1), Gaussian(0, 2)),
    (Gaussian(0, 1), Gaussian(0, 1 + 1e-9)),
    (Gaussian(0, 1), Gaussian(1, 1 + 1e-9)),
    (Gaussian(-3, 0.2), Gaussian(1, 5)),
    (Gaussian(0, 1), Gaussian(30, 1)),
    (Gaussian(100, 1e-3), Gaussian(100.001, 2e-3)),
    (Gaussian(0.141, 1.22), Gaussian(0, 1)),
]


@pytest.mark.parametrize(("p", "q"), PAIRS)
def test_one_dimension_equals_the_integral(p, q):
    found = gaussian_total_variation_1d(p, q)
    assert found == pytest.approx(integrated(p, q), abs=1e-7)
    assert gaussian_total_variation_1d(q, p) == pytest.approx(found, abs=1e-14)


@settings(max_examples=200)
@given(
    *[st.floats(-5, 5) for _ in range(2)],
    *[st.floats(0.01, 10) for _ in range(2)],
    st.floats(-3, 3),
    st.floats(0.1, 10),
)
def test_one_dimension_is_an_invariant_distance(mean_p, mean_q, sigma_p, sigma_q, shift, scale):
    p, q = Gaussian(mean_p, sigma_p), Gaussian(mean_q, sigma_q)
    found = gaussian_total_variation_1d(p, q)
    assert 0 <= found <= 1
    moved = [Gaussian(shift + scale * g.mean, scale * g.sigma) for g in (p, q)]
    assert gaussian_total_variation_1d(*moved) == pytest.approx(found, abs=1e-9)
    third = Gaussian(0.0, 1.0)
    detour = gaussian_total_variation_1d(p, third) + gaussian_total_variation_1d(third, q)
    assert found <= detour + 1e-12
    bound = pinsker_bound(*[np.array(x) for g in (p, q) for x in ([g.mean], [[g.sigma**2]])])
    assert found <= bound + 1e-7


def test_small_distances_keep_their_digits():
    """Near 0 the distance is |Δμ| φ(0) / σ, and |Δσ|/σ · 2φ(1) for the sigma: first-order expansions."""
    assert gaussian_total_variation_1d(Gaussian(0, 1), Gaussian(1e-8, 1)) == pytest.approx(1e-8 * norm.pdf(0), rel=1e-6)
    assert gaussian_total_variation_1d(Gaussian(0, 1), Gaussian(0, 1 + 1e-6)) == pytest.approx(
        2e-6 * norm.pdf(1), rel=1e-5
    )


def test_point_masses():
    assert gaussian_total_variation_1d(Gaussian(1, 0), Gaussian(1, 0)) == 0
    assert gaussian_total_variation_1d(Gaussian(1, 0), Gaussian(2, 0)) == 1
    assert gaussian_total_variation_1d(Gaussian(1, 0), Gaussian(1, 1)) == 1
    assert gaussian_total_variation_1d(Gaussian(1, 1e-300), Gaussian(1, 1e300)) == 1


@pytest.mark.parametrize(("eps", "expected"), [(0.05, 0.039), (0.1, 0.081), (0.2, 0.182), (0.3, 0.315)])
def test_far_contamination_of_one_side(eps, expected):
    """Figures measured independently of this code with the same adversary; n = 400,000 here."""
    n = 400_000
    x = numpy_generator(0, "contaminated", n).standard_normal(n)
    x[: round(eps * n)] = 1e6
    found = gaussian_total_variation_1d(robust_gaussian_1d(x), Gaussian(0.0, 1.0))
    assert found == pytest.approx(expected, abs=0.004)


@pytest.mark.parametrize("kind", [np.asarray, torch.as_tensor])
@pytest.mark.parametrize("d", [1, 2, 5, 60])
def test_monte_carlo_equals_the_closed_form_of_a_shift(d, kind):
    """With equal covariances the distance is 2Φ(δ/2) - 1, δ the Mahalanobis distance of the means."""
    generator = numpy_generator(d, "shift")
    root = generator.standard_normal((d, d)) + 2 * np.eye(d)
    covariance, mean, shift = root @ root.T, generator.standard_normal(d), generator.standard_normal(d)
    shift /= np.sqrt(shift @ np.linalg.solve(covariance, shift))
    found = gaussian_total_variation(kind(mean), kind(covariance), kind(mean + shift), kind(covariance), seed=d)
    assert found.distance == pytest.approx(2 * norm.cdf(0.5) - 1, abs=5 * found.standard_error)
    assert 0 < found.standard_error <= 0.5 / np.sqrt(found.num_samples) * 1.001
    assert f"{found.num_samples}" in found.summary()


def test_monte_carlo_equals_one_dimension_and_integration():
    """A 1-D pair with its exact distance, and a 2-D pair with ½ ∫∫ |p - q| on a fine grid from SciPy's densities."""
    p, q = Gaussian(0.5, 1), Gaussian(0, 2)
    found = gaussian_total_variation([p.mean], [[p.sigma**2]], [q.mean], [[q.sigma**2]], num_samples=400_000)
    assert found.distance == pytest.approx(gaussian_total_variation_1d(p, q), abs=5 * found.standard_error)

    means = np.array([0.0, 0.0]), np.array([1.0, -0.5])
    covariances = np.array([[1.0, 0.6], [0.6, 2.0]]), np.array([[2.0, -0.3], [-0.3, 0.5]])
    axis = np.linspace(-12, 12, 1201)
    grid = np.stack(np.meshgrid(axis, axis), axis=-1)
    densities = [multivariate_normal(m, c).pdf(grid) for m, c in zip(means, covariances, strict=True)]
    expected = np.abs(densities[0] - densities[1]).sum() * (axis[1] - axis[0]) ** 2 / 2
    for order in (slice(None), slice(None, None, -1)):
        (mean_p, mean_q), (cov_p, cov_q) = means[order], covariances[order]
        found = gaussian_total_variation(mean_p, cov_p, mean_q, cov_q, num_samples=400_000)
        assert found.distance == pytest.approx(expected, abs=5 * found.standard_error)


def test_the_standard_error_is_the_spread_over_seeds():
    arguments = (np.zeros(3), np.eye(3), np.full(3, 0.4), 2 * np.eye(3))
    found = [gaussian_total_variation(*arguments, num_samples=2000, seed=seed) for seed in range(200)]
    spread = np.std([one.distance for one in found], ddof=1)
    assert np.mean([one.standard_error for one in found]) == pytest.approx(spread, rel=0.2)  # 4 / √(2·199)
    again = gaussian_total_variation(*arguments, num_samples=2000, seed=7)
    assert again == found[7] != found[8]


def test_the_same_gaussian_is_at_zero():
    covariance = np.array([[2.0, 0.3], [0.3, 1.0]])
    same = gaussian_total_variation([1, 2], covariance, [1, 2], covariance)
    assert same.distance == pytest.approx(0, abs=1e-12)
    assert gaussian_kl_divergence([1, 2], covariance, [1, 2], covariance) == pytest.approx(0, abs=1e-15)
    assert pinsker_bound([1, 2], covariance, [1, 2], covariance) == pytest.approx(0, abs=1e-14)


def test_kl_divergence_equals_torch():
    generator = numpy_generator(3, "kl")
    parts = []
    for _ in range(2):
        root = generator.standard_normal((4, 4)) + 2 * np.eye(4)
        parts += [torch.from_numpy(generator.standard_normal(4)), torch.from_numpy(root @ root.T)]
    first, second = (torch.distributions.MultivariateNormal(*parts[k : k + 2]) for k in (0, 2))
    forward = float(torch.distributions.kl_divergence(first, second))
    backward = float(torch.distributions.kl_divergence(second, first))
    assert gaussian_kl_divergence(*parts) == pytest.approx(forward, rel=1e-10)
    assert pinsker_bound(*parts) == pytest.approx(min(1, np.sqrt(min(forward, backward) / 2)), rel=1e-10)
    near = [parts[0], parts[1], parts[0] + 0.01, 1.01 * parts[1]]
    assert gaussian_total_variation(*near).distance <= pinsker_bound(*near) < 0.1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mean_q": np.zeros(2)}, "mean_q must have shape"),
        ({"mean_p": np.full(3, np.nan)}, "mean_p must be finite"),
        ({"covariance_p": np.eye(2)}, "covariance_p must have shape"),
        ({"covariance_q": np.diag([1.0, 1, 0])}, "covariance_q must be positive definite"),
        ({"covariance_q": np.diag([1.0, 1, -2])}, "smallest eigenvalue is -2"),
        ({"covariance_p": np.eye(3) + np.triu(np.ones((3, 3)), 1)}, "covariance_p must be symmetric"),
        ({"num_samples": 1}, "num_samples"),
    ],
)
def test_bad_arguments_are_refused(change, message):
    good = {"mean_p": np.zeros(3), "covariance_p": np.eye(3), "mean_q": np.zeros(3), "covariance_q": np.eye(3)}
    with pytest.raises(ValueError, match=message):
        gaussian_total_variation(**{**good, **change})
