"""SEVER against the plain fit, on data and under attacks of several kinds: repeated points, and a fifth corrupted.

The figures to beat come from scikit-learn's own estimators, on clean test samples.
"""

import logging
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.datasets import load_diabetes
from sklearn.linear_model import LinearRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from fedrobust.seeds import numpy_generator
from fedrobust.statistics import Sever

Array = NDArray[np.float64]


@pytest.fixture(autouse=True)
def quiet() -> None:
    logging.getLogger("fedrobust").setLevel(logging.ERROR)


def linear(n: int, d: int, seed: int) -> tuple[Array, Array, Array, Array]:
    """Training and test samples of one line, noise 0.5."""
    generator = numpy_generator(seed, "line", n, d)
    slope = generator.standard_normal(d)
    inputs = generator.standard_normal((2, n, d))
    targets = inputs @ slope + 0.5 * generator.standard_normal((2, n))
    return inputs[0], targets[0], inputs[1], targets[1]


@pytest.mark.parametrize(("n", "contamination"), [(100, 0.1), (500, 0.1), (500, 0.04), (1000, 0.08)])
@pytest.mark.parametrize("jitter", [0.0, 1e-3])
def test_copies_of_a_bad_point_leave_whatever_the_seed(n: int, contamination: float, jitter: float) -> None:
    """As many copies as are believed, behind a scaler: the fit is within 0.02 of that of the good samples alone."""
    for seed in range(15):
        x, y, x_test, y_test = linear(n, 8, seed)
        m = int(contamination * n)
        clean = LinearRegression().fit(x[m:], y[m:]).score(x_test, y_test)
        noise = jitter * numpy_generator(seed, "jitter", n).standard_normal((m, 8))
        x[:m], y[:m] = 3 * x[0] + noise, y[0] - 30
        sever = Sever(LinearRegression(), contamination=contamination)
        model = make_pipeline(StandardScaler(), sever).fit(x, y)
        assert model.score(x_test, y_test) > clean - 0.02


def corrupted(x: Array, y: Array, m: int, attack: str, seed: int) -> tuple[Array, Array]:
    """The first m samples replaced."""
    generator = numpy_generator(seed, "corrupted", attack)
    x, y = x.copy(), y.copy()
    direction = generator.standard_normal(x.shape[1])
    direction /= np.linalg.norm(direction)
    noise = generator.standard_normal((m, x.shape[1]))
    if attack == "cluster":
        x[:m], y[:m] = 3 * direction + 0.3 * noise, -4 + 0.2 * noise[:, 0]
    elif attack == "far targets":
        y[:m] = y[:m] + 8
    elif attack == "leverage":
        x[:m], y[:m] = 10 * direction + noise, -10 + noise[:, 0]
    else:  # two directions
        half = m // 2
        x[:half], y[:half] = 4 * direction + 0.2 * noise[:half], 6.0
        x[half:m], y[half:m] = -4 * np.roll(direction, 1) + 0.2 * noise[half:], 6.0
    return x, y


def mean_squared_error(model: Any, x: Array, y: Array) -> float:
    return float(np.mean((model.predict(x) - y) ** 2))


@pytest.mark.parametrize("attack", ["cluster", "far targets", "leverage", "two directions"])
@pytest.mark.parametrize("data", ["diabetes", "line"])
@pytest.mark.parametrize("contamination", [0.1, 0.2])
def test_never_much_worse_than_the_plain_fit(attack: str, data: str, contamination: float) -> None:
    """By no more than the clean price: what SEVER costs on the same samples before they are corrupted, and a tenth."""
    for seed in range(4):
        if data == "line":
            x, y, x_test, y_test = linear(300, 10, seed)
        else:
            inputs, targets = load_diabetes(return_X_y=True)
            inputs, targets = StandardScaler().fit_transform(inputs), (targets - targets.mean()) / targets.std()
            order = numpy_generator(seed, "diabetes").permutation(len(inputs))
            x, y, x_test, y_test = (part[rows] for rows in (order[:300], order[300:]) for part in (inputs, targets))
        sever = Sever(Ridge(), contamination=contamination)
        price = mean_squared_error(sever.fit(x, y), x_test, y_test) - mean_squared_error(
            Ridge().fit(x, y), x_test, y_test
        )
        bad = corrupted(x, y, int(contamination * len(x)), attack, seed)
        plain = mean_squared_error(Ridge().fit(*bad), x_test, y_test)
        assert mean_squared_error(sever.fit(*bad), x_test, y_test) <= 1.1 * (plain + max(price, 0.0))
