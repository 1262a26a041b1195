import numpy as np
import pytest
import scipy.stats

from fedrobust.seeds import numpy_generator
from fedrobust.statistics.moments.quadratic_form import QuadraticFormTail


@pytest.mark.parametrize("d", [1, 2, 3, 10, 100])
def test_equal_eigenvalues_give_chi_squared(d: int) -> None:
    """Σ(zⱼ² - 1)/√d is (χ²_d - d)/√d: SciPy's quantiles, to 15 % of the probability, far out too."""
    law = QuadraticFormTail.of(np.full(d, d**-0.5))
    chi_squared = scipy.stats.chi2(d)
    for probability in (0.3, 1e-2, 1e-4, 1e-6):
        above = (chi_squared.isf(probability) - d) / d**0.5
        below = (chi_squared.ppf(probability) - d) / d**0.5
        assert float(law.above(above)) == pytest.approx(probability, rel=0.15)
        assert float(law.below(below)) == pytest.approx(probability, rel=0.15)
    assert law.median == pytest.approx((chi_squared.median() - d) / d**0.5, abs=0.005)
    assert float(law.below(-(d**0.5) - 1e-9)) == 0
    assert float(law.above(-(d**0.5) - 1e-9)) == pytest.approx(1)


def test_mixed_signs_against_simulation() -> None:
    """A million draws of Σ μⱼ(zⱼ² - 1), to 15 % of each tail's probability."""
    generator = numpy_generator(0, "mixed signs")
    mu = generator.standard_normal(6)
    draws = (generator.standard_normal((10**6, 6)) ** 2 - 1) @ mu
    law = QuadraticFormTail.of(mu)
    for probability in (0.2, 0.05, 1e-2, 1e-3):
        assert float(law.above(np.quantile(draws, 1 - probability))) == pytest.approx(probability, rel=0.15)
        assert float(law.below(np.quantile(draws, probability))) == pytest.approx(probability, rel=0.15)


def test_tails_mirror_with_the_sign() -> None:
    """-Q has Q's tails exchanged; and both tails are monotone."""
    mu = np.array([0.8, 0.5, -0.3])
    law, mirrored = QuadraticFormTail.of(mu), QuadraticFormTail.of(-mu)
    t = np.linspace(-8, 8, 81)
    np.testing.assert_allclose(law.above(t), mirrored.below(-t), rtol=1e-9)
    assert (np.diff(law.above(t)) <= 0).all()
    assert (np.diff(law.below(t)) >= 0).all()
