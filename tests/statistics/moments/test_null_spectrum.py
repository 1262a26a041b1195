import numpy as np
import pytest

from fedrobust.seeds import numpy_generator
from fedrobust.statistics.moments.null_spectrum import simulated_null, top_limit_bound


def clean_statistics(n: int, d: int, seed: int) -> tuple[float, float]:
    """½λ by NumPy's `eigvalsh` of the explicit matrix, and Mardia's kurtosis statistic, of a clean sample."""
    generator = numpy_generator(seed, "clean", n, d)
    points = generator.standard_normal((n, d)) @ (generator.standard_normal((d, d)) + 2 * np.eye(d))
    whitened = points @ np.linalg.inv(np.linalg.cholesky(points.T @ points / n)).T
    products = np.einsum("ni,nj->nij", whitened, whitened).reshape(n, -1) - np.eye(d).ravel()
    radial = np.mean(((whitened**2).sum(axis=1) - d) ** 2) / (2 * d)
    return float(np.linalg.eigvalsh(products.T @ products / n)[-1] / 2), float(radial)


@pytest.mark.parametrize(("n", "d"), [(600, 2), (1500, 10)])
def test_limits_hold_for_clean_samples_of_any_covariance(n: int, d: int) -> None:
    """Twenty clean samples by another route: none exceeds a limit made for 0.001, and their mean is the null's."""
    null = simulated_null(n, d)
    tops, radials = zip(*(clean_statistics(n, d, seed) for seed in range(20)), strict=True)
    assert max(tops) < null.top_limit
    assert max(radials) < null.radial_limit
    spread = np.std(tops, ddof=1)
    assert abs(np.mean(tops) - null.top_mean) < 4 * spread / 20**0.5 * 1.5
    assert null.top_limit - null.top_mean < 8 * spread


def test_approaches_marchenko_and_pastur() -> None:
    """(1 + √(D/n))², D = d(d+1)/2, for independent coordinates; products of Gaussians lie a little above it."""
    edge = (1 + (210 / 4000) ** 0.5) ** 2
    assert edge < simulated_null(4000, 20).top_mean < 1.08 * edge


def test_carried_over_to_other_n() -> None:
    """From n = 1500 to 1200 and 2400, beside simulations there: within 5 % of the excess over 1."""
    null = simulated_null(1500, 10)
    for n in (1200, 2400):
        there = simulated_null(n, 10)
        assert null.top_mean_at(n) - 1 == pytest.approx(there.top_mean - 1, rel=0.05)
        assert null.radial_limit_at(n) - 1 == pytest.approx(there.radial_limit - 1, rel=0.4)


@pytest.mark.parametrize(("n", "d"), [(20, 1), (1000, 1), (60, 5), (120, 2), (220, 10), (210, 20), (500, 20)])
def test_bound_without_simulation(n: int, d: int) -> None:
    """Never below the simulated limit, nor more than 3.5 times as far above 1."""
    limit = simulated_null(n, d).top_limit
    assert limit < top_limit_bound(n, d) < 1 + 3.5 * (limit - 1) + 2 * (n < 50)


def test_is_remembered_and_seeded() -> None:
    assert simulated_null(500, 3) is simulated_null(500, 3)
    assert simulated_null(500, 3, seed=1).top_mean != simulated_null(500, 3).top_mean
