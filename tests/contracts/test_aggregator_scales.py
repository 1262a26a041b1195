"""Every rule at every scale that a dtype holds: the choice is that of the same numbers at scale 1, or it is refused.

The expected answer is the rule's own on the numbers as stored, multiplied by a power of two, which is exact, in
float64 at scale 1: that these answers are right is what the other tests say.
"""

import math
from dataclasses import replace

import pytest
import torch
from rule_cases import CASES, sample
from torch import Tensor

from fedrobust.aggregators import CentredClipping, RoundContext, SpectralFilter
from fedrobust.aggregators.base import Aggregate, call_rule
from fedrobust.types import UnusableUpdatesError

EXPONENTS = {
    torch.float32: [-133, -126, -110, -90, -75, -70, -62, -55, -50, -45, -30, 30, 55, 62, 64, 80, 100, 124],
    torch.float64: [-996, -900, -600, -538, -520, -500, -480, -300, -100, 100, 300, 480, 500, 508, 512, 600, 900, 996],
}
"""2^-133 is 1e-40, 2^124 is 2e37, 2^±996 is 1e±300. Squares leave float32 at 2^64 and 2^-74, float64 at 2^512 and
2^-537."""

SIZES = [(20, 40), (20, 5000)]
"""Where torch multiplies, and where compiled code does."""


def answer(name: str, points: Tensor, unit: float) -> Aggregate:
    """In units of `unit`: whatever has a length of its own is given in them too."""
    rule = CASES[name].rule
    if isinstance(rule, CentredClipping) and rule.max_norm is not None:
        rule = replace(rule, max_norm=rule.max_norm * unit)
    if isinstance(rule, SpectralFilter) and rule.sigma is not None:
        rule = replace(rule, sigma=rule.sigma * unit)
    root = torch.full((points.shape[1],), unit, dtype=points.dtype)
    return call_rule(rule, points, None, RoundContext(root_update=root))


def assert_same_choice(name: str, points: Tensor, exponent: int, *, may_refuse: bool) -> None:
    unit = 2.0**exponent
    expected = answer(name, points.double() * 2.0**-exponent, 1.0)
    try:
        found = answer(name, points, unit)
    except UnusableUpdatesError:
        assert may_refuse
        return
    digits = 1e-9 if points.dtype == torch.float64 else 1e-4
    update = found.update.double() if name == "sign_majority" else found.update.double() * 2.0**-exponent
    # Each of n products may be off by half of the smallest number.
    limits = torch.finfo(points.dtype)
    rounding = len(points) / 2 * limits.smallest_normal * limits.eps * len(update) ** 0.5
    allowed = digits * float(expected.update.norm()) + rounding * 2.0**-exponent
    assert float((update - expected.update).norm()) <= allowed
    if expected.shares is not None:
        assert found.shares is not None
        assert torch.equal(found.shares > 0, expected.shares > 0)
        torch.testing.assert_close(found.shares, expected.shares, rtol=0, atol=digits)
    if expected.scores is not None:
        assert found.scores is not None
        assert not bool(found.scores.isnan().any())
    assert not any(math.isnan(value) for value in found.diagnostics.values())


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize(("n", "d"), SIZES)
@pytest.mark.parametrize("dtype", EXPONENTS)
def test_the_choice_does_not_depend_on_the_scale(name: str, n: int, d: int, dtype: torch.dtype) -> None:
    """Float32 has room in float64 on both sides, so nothing of it is refused.

    The answer itself may be rounded to a multiple of the smallest number.
    """
    points = sample(n, d, num_shifted=min(4, CASES[name].max_n // 4)) / 4
    for exponent in EXPONENTS[dtype]:
        some = (points * 2.0**exponent).to(dtype)
        assert_same_choice(name, some, exponent, may_refuse=dtype == torch.float64)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("outlier", [2.0**-60, 2.0**60])
def test_outliers_of_another_scale_change_nothing_about_that(name: str, outlier: float) -> None:
    """Tiny and huge rows beside one another, in float32, whose squares are both out of its range or one of them is."""
    points = sample(20, 5000, num_shifted=0)
    points[16:] *= outlier
    for exponent in (-70, -60, -30, 0, 30, 60):
        assert_same_choice(name, (points * 2.0**exponent).float(), exponent, may_refuse=False)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("scale", [1e-200, 1e200])
def test_what_is_refused_is_refused_as_unusable(name: str, scale: float) -> None:
    """A round is lost, not the run: whatever else is raised would end it."""
    points = sample()
    points[3] = scale
    try:
        found = CASES[name](points)
    except UnusableUpdatesError:
        return
    assert bool(found.update.isfinite().all())
