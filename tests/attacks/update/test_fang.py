"""Fang's attacks against the paper's intervals, number by number, and against Krum written out."""

import math

import numpy as np
import pytest
import torch
from known import known, random_updates

from fedrobust.attacks import FangKrum, FangTrimmedMean
from fedrobust.seeds import torch_generator


def interval(values: list[float], b: float) -> tuple[float, float]:
    """The paper's interval for one coordinate, from the benign values (Section 4.3, full knowledge)."""
    if sum(values) > 0:  # the model would increase: go below the least
        low = min(values)
        return (low / b, low) if low > 0 else (b * low, low)
    high = max(values)
    return (high, b * high) if high > 0 else (high, high / b)


@pytest.mark.parametrize("b", [2.0, 10.0])
def test_with_full_knowledge_every_number_lies_in_the_papers_interval(b):
    """Columns of all signs: some all positive, some all negative, most mixed."""
    shifts = torch.tensor([-9.0, -2, -0.1, 0.1, 2, 9], dtype=torch.float64)
    benign = random_updates(9, 6, shift=0.0) + shifts
    sent = FangTrimmedMean(spread=b)(known(random_updates(400, 6), benign))
    for column in range(6):
        low, high = interval(benign[:, column].tolist(), b)
        drawn = sent[:, column]
        assert low <= float(drawn.min()) < float(drawn.max()) <= high
        assert float(drawn.max() - drawn.min()) > 0.95 * (high - low), "uniform draws of 400 attackers fill it"
        assert float(drawn.mean()) == pytest.approx((low + high) / 2, abs=0.1 * (high - low))


def test_from_their_own_updates_alone_three_to_four_standard_deviations():
    own = random_updates(50, 8, shift=0.0) + torch.linspace(-2, 2, 8, dtype=torch.float64)
    sent = FangTrimmedMean()(known(own, num_clients=200))
    mean, std = own.numpy().mean(axis=0), own.numpy().std(axis=0)
    distance = (sent.numpy() - mean) / std * -np.sign(mean)
    assert distance.min() > 3 - 1e-6
    assert distance.max() < 4 + 1e-6


def krum_choice(points: np.ndarray, f: int) -> int:
    """Blanchard's rule as written: the least sum of squared distances to the n - f - 2 nearest others."""
    n = len(points)
    scores = []
    for i in range(n):
        others = sorted(float(((points[i] - points[j]) ** 2).sum()) for j in range(n) if j != i)
        scores.append(sum(others[: n - f - 2]))
    return int(np.argmin(scores))


def upper_bound(benign: np.ndarray, m: int, num_signs: int) -> float:
    """The paper's Theorem 1 with the origin (no update) in place of the global model."""
    n, d = len(benign) + m, num_signs
    sums = []
    for i in range(len(benign)):
        others = sorted(float(((benign[i] - benign[j]) ** 2).sum()) for j in range(len(benign)) if j != i)
        sums.append(sum(others[: n - m - 2]))
    farthest = max(float(np.linalg.norm(point)) for point in benign)
    return math.sqrt(min(sums) / ((n - 2 * m - 1) * d)) + farthest / math.sqrt(d)


@pytest.mark.parametrize(("num_benign", "m", "shift"), [(16, 4, 0.0), (16, 4, 0.5), (9, 3, 0.2), (40, 10, 0.05)])
def test_krum_chooses_the_crafted_update_and_not_one_twice_as_large(num_benign, m, shift):
    benign = random_updates(num_benign, 30, shift=shift, seed=num_benign)
    sent = FangKrum()(known(random_updates(m, 30), benign)).numpy()
    assert (sent == sent[0]).all()
    # The direction is against the one that Krum would choose without attackers.
    chosen = benign.numpy()[krum_choice(benign.numpy(), 0)]
    factors = -sent[0] / np.sign(chosen)
    assert np.ptp(factors) < 1e-12
    factor = float(factors[0])
    assert krum_choice(np.concatenate([sent, benign.numpy()]), m) < m
    bound = upper_bound(benign.numpy(), m, 30)
    halvings = math.log2(bound / factor)
    assert halvings == pytest.approx(round(halvings), abs=1e-9)
    assert halvings > 0.5, "the bound itself is never chosen"
    larger = np.tile(2 * sent[0], (m, 1))
    assert krum_choice(np.concatenate([larger, benign.numpy()]), m) >= m


def test_from_their_own_updates_alone_krum_among_these_chooses_the_crafted_update():
    """m own updates and k crafted ones, for the smallest k that Krum (told of k) chooses."""
    own = random_updates(8, 30, shift=0.4)
    sent = FangKrum()(known(own, num_clients=40))[0].numpy()
    assert (np.sign(sent) == -np.sign(own.numpy().mean(axis=0))).all()
    chosen = [k for k in range(1, 8) if krum_choice(np.concatenate([np.tile(sent, (k, 1)), own.numpy()]), k) < k]
    assert chosen
    assert float(np.ptp(np.abs(sent))) < 1e-12


@pytest.mark.parametrize("points", [torch.zeros(4, 3), torch.ones(1, 3), torch.eye(3)[:2]])
def test_too_few_or_equal_updates_are_no_error(points):
    for knowledge in (known(points), known(torch.ones(2, 3), points)):
        sent = FangKrum()(knowledge)
        assert sent.shape == knowledge.own_updates.shape
        assert bool(sent.isfinite().all())


def test_coordinates_that_nobody_trains_are_left_alone():
    """Dead pixels have no sign; √d in the bound counts the others."""
    benign = random_updates(12, 20)
    benign[:, 5:] = 0.0
    sent = FangKrum()(known(random_updates(3, 20), benign))
    assert not sent[:, 5:].any()
    narrow = FangKrum()(known(random_updates(3, 20)[:, :5], benign[:, :5]))
    torch.testing.assert_close(sent[:, :5], narrow)


def test_draws_follow_the_generator():
    own, benign = random_updates(3, 6), random_updates(9, 6)
    first, second = (
        FangTrimmedMean()(known(own, benign, generator=torch_generator(seed, "update attack", 1))) for seed in (0, 1)
    )
    assert not torch.equal(first, second)
