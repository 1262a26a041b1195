"""The table of all estimators of a location or a scatter, and which parts of the contract each does not promise."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedrobust import statistics
from fedrobust.seeds import numpy_generator
from fedrobust.statistics import (
    bounded_covariance_mean,
    coordinate_median,
    covariance_agnostic_mean,
    covariance_samples,
    filter_covariance,
    filter_mean,
    gaussian_samples,
    geometric_median,
    lrv_mean,
    pruned_mean,
    robust_gaussian,
    trimmed_mean,
    tukey_median,
)

Array = NDArray[np.float64]

COORDINATE_WISE = "coordinates are looked at one by one: no rotation"
PAIRS = "points are paired in their order"
ABOUT_ZERO = "the mean is known to be zero: no translation"
NEEDS_SPREAD = "points that coincide, or too few of them, have no covariance to be inverted"
SMOOTHED = "within the smoothing length points pull less"
NO_WEIGHTS = "points are not weighed"
NO_BELIEF = "there is no contamination to be told"
NO_SCALE = "knows no scale: it takes up to 2f away wherever that lowers the top eigenvalue, clean or not"
KNOWS_D = "d enters its thresholds: columns of zeros are not nothing"
CUTS_ALWAYS = "the part ε is cut off whatever it is"


@dataclass(frozen=True)
class Case:
    """An estimator: what it answers is a location `(d,)`, a scatter `(d, d)`, or both.

    Attributes:
        call: from a sample, and keyword arguments in place of the usual ones, to the result.
        fields: the result's fields that are the answer, with the power of the points' unit that each is in.
        exempt: reasons from above.
        scaled: the arguments that are in the points' unit.
        least: how many points it needs, by dimension and contamination.
    """

    call: Callable[..., Any]
    fields: Mapping[str, int]
    exempt: frozenset[str] = frozenset()
    scaled: Mapping[str, float] = field(default_factory=dict)
    least: Callable[[int, float], int] = lambda d, contamination: 1

    def __call__(self, x: Any, **changes: Any) -> Any:
        return self.call(x, **changes)

    def answers(self, x: Any, **changes: Any) -> list[Any]:
        """The answers, in the order of `fields`."""
        result = self(x, **changes)
        return [getattr(result, name) for name in self.fields]


def case(call: Callable[..., Any], *exempt: str, fields: tuple[str, ...] = ("mean",), **scaled: float) -> Case:
    """A table entry; `scaled` are keyword arguments in the points' unit."""
    powers = {name: 2 if name == "covariance" else 1 for name in fields}
    least = LEAST.get(getattr(call, "func", call), Case.least)
    return Case(partial(call, **scaled), powers, frozenset(exempt), scaled, least)


E = {"contamination": 0.1}
LEAST: Mapping[Any, Callable[[int, float], int]] = {
    filter_covariance: covariance_samples,
    robust_gaussian: gaussian_samples,
}
CASES: dict[str, Case] = {
    "filter_mean": case(partial(filter_mean, **E), KNOWS_D, sigma=1.0),
    "bounded_covariance_mean": case(partial(bounded_covariance_mean, **E), sigma=1.0),
    "covariance_agnostic_mean": case(partial(covariance_agnostic_mean, **E), NO_SCALE),
    "covariance_agnostic_mean_entropy": case(
        partial(covariance_agnostic_mean, direction="quantum_entropy", **E), NO_SCALE
    ),
    "lrv_mean": case(partial(lrv_mean, **E), COORDINATE_WISE, NO_WEIGHTS, CUTS_ALWAYS),
    "coordinate_median": case(coordinate_median, COORDINATE_WISE, NO_WEIGHTS, NO_BELIEF),
    "trimmed_mean": case(partial(trimmed_mean, **E), COORDINATE_WISE, NO_WEIGHTS, CUTS_ALWAYS),
    "geometric_median": case(geometric_median, SMOOTHED, NO_WEIGHTS, NO_BELIEF),
    "pruned_mean": case(pruned_mean, COORDINATE_WISE, NO_BELIEF, KNOWS_D, sigma=1.0),
    "tukey_median": case(tukey_median, NO_WEIGHTS, NO_BELIEF, fields=("median",)),
    "filter_covariance": case(partial(filter_covariance, **E), ABOUT_ZERO, NEEDS_SPREAD, fields=("covariance",)),
    "robust_gaussian": case(partial(robust_gaussian, **E), PAIRS, NEEDS_SPREAD, fields=("mean", "covariance")),
}
assert {one for one in CASES if one in dir(statistics)} == set(CASES) - {"covariance_agnostic_mean_entropy"}


def without(*reasons: str) -> list[str]:
    """The estimators that are exempt for none of `reasons`."""
    return [name for name, one in CASES.items() if not one.exempt & set(reasons)]


def sample_for(name: str, n: int = 400, d: int = 2, *, seed: int = 0) -> Array:
    """`sample`, with as many points as the estimator needs for a contamination of 0.1."""
    return sample(max(n, CASES[name].least(d, 0.1)), d, seed=seed)


def clean(n: int, d: int, *, seed: int = 0) -> Array:
    """N(0, I)."""
    return numpy_generator(seed, "estimators", n, d).standard_normal((n, d))


def sample(n: int = 400, d: int = 2, *, num_shifted: int | None = None, seed: int = 0) -> Array:
    """N(0, I), of which the first tenth is shifted by 8 along the diagonal: far enough for every filter to act."""
    x = clean(n, d, seed=seed)
    x[: n // 10 if num_shifted is None else num_shifted] += 8.0
    return x
