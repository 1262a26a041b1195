import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from fedrobust._linalg.columns import Shards
from fedrobust.aggregators import Mean
from fedrobust.aggregators.base import RoundContext
from fedrobust.aggregators.randomised_sever import RandomisedSever
from fedrobust.seeds import torch_generator


def direct_filter(
    points: NDArray[np.float64], f: int, limit: float, context: RoundContext
) -> tuple[NDArray[np.int64], int]:
    """The paper's filter in d dimensions; the same uniform numbers, one a round."""
    generator = context.generator("sever")
    kept, rounds = np.arange(len(points)), 0
    while len(kept) > len(points) - 2 * f:
        centred = points[kept] - points[kept].mean(axis=0)
        direction = np.linalg.svd(centred, full_matrices=False)[2][0]
        projections = (centred @ direction) ** 2
        if projections.mean() <= limit:
            break
        threshold = (1 - torch.rand((), generator=generator, dtype=torch.float64).item()) * projections.max()
        farthest = np.argsort(-projections, kind="stable")
        left = 2 * f - (len(points) - len(kept))
        alike = max(left, min((projections >= 0.9 * projections[farthest[left - 1]]).sum(), len(kept) // 2))
        dropped = [index for index in farthest[:alike] if projections[index] >= threshold * (1 - 1e-12)]
        kept = np.delete(kept, dropped)
        rounds += 1
    return kept, rounds


@pytest.mark.parametrize(("n", "d"), [(10, 40), (20, 6), (20, 1), (160, 30)])
@pytest.mark.parametrize("sigma", [None, 1.0])
@pytest.mark.parametrize("seed", [0, 1])
def test_equals_the_filter_in_d_dimensions(n: int, d: int, sigma: float | None, seed: int) -> None:
    points = torch.randn(n, d, generator=torch_generator(0, n, d), dtype=torch.float64)
    points[: n // 5] += 3.0
    weights = torch.rand(n, generator=torch_generator(1, n), dtype=torch.float64)
    context = RoundContext(seed=seed, round_number=3)
    kept, rounds = direct_filter(points.numpy(), n // 5, 0.0 if sigma is None else 3.0, context)
    rule = RandomisedSever(assumed_fraction=0.2, sigma=sigma, stopping_factor=3.0)
    answer = rule(points, weights, context)
    assert answer.shares is not None
    assert answer.shares.nonzero().squeeze(1).tolist() == kept.tolist()
    assert answer.diagnostics["num_steps"] == rounds
    expected = np.average(points.numpy()[kept], axis=0, weights=weights.numpy()[kept])
    np.testing.assert_allclose(answer.update.numpy(), expected, atol=1e-10)


def test_a_point_is_dropped_with_probability_proportional_to_its_score() -> None:
    """Values 0 (six times), 1, -2, 3 and -9: the first round always drops the last client, which ends the filter.

    Its variance, 9.21 with that client and at most 1.73 without, is above the limit once only. The mean is -0.7, so
    relative to 8.3² the others' scores are 0.7², 1.7², 1.3² and 3.7²; frequencies in 1000 runs within 4 deviations.
    """
    points = torch.tensor([[0.0]] * 6 + [[1.0], [-2.0], [3.0], [-9.0]], dtype=torch.float64)
    probabilities = (points + 0.7).square().flatten() / 8.3**2
    rule = RandomisedSever(assumed_fraction=0.2, sigma=2.0, stopping_factor=1.0)
    dropped = torch.zeros(10)
    for seed in range(1000):
        answer = rule(points, None, RoundContext(seed=seed))
        assert answer.shares is not None
        assert answer.diagnostics["num_steps"] == 1
        dropped += (answer.shares == 0).float()
    assert dropped[9] == 1000
    for index in (6, 7, 8):
        expected = float(probabilities[index])
        assert abs(float(dropped[index]) / 1000 - expected) <= 4 * (expected * (1 - expected) / 1000) ** 0.5


def test_data_within_sigma_are_left_alone() -> None:
    points = torch.randn(400, 10, generator=torch_generator(2, "clean"), dtype=torch.float64)
    answer = RandomisedSever(assumed_fraction=0.2, sigma=1.0)(points)
    assert answer.diagnostics["num_filtered"] == 0
    assert torch.equal(answer.update, Mean()(points).update)


def test_without_sigma_2f_clients_are_dropped_and_those_alike() -> None:
    """23 clients, f = 4: eight, and those at nine tenths of the squared projection of the last of them or beyond."""
    points = torch.randn(23, 10, generator=torch_generator(3, "clean"), dtype=torch.float64)
    for seed in range(5):
        answer = RandomisedSever(assumed_fraction=0.2)(points, None, RoundContext(seed=seed))
        assert 8 <= answer.diagnostics["num_filtered"] <= 12


def test_randomness_is_that_of_seed_and_round_alone() -> None:
    points = torch.randn(40, 10, generator=torch_generator(4, "points"), dtype=torch.float64)
    rule = RandomisedSever(assumed_fraction=0.2)
    same = [rule(points, None, RoundContext(seed=1, round_number=2)).update for _ in range(2)]
    others = [rule(points, None, RoundContext(seed=1, round_number=r)).update for r in range(3, 9)]
    assert torch.equal(*same)
    assert any(not torch.equal(same[0], other) for other in others)


def test_shards_give_the_same_answer() -> None:
    points = torch.randn(20, 101, generator=torch_generator(5, "shards"), dtype=torch.float64)
    rule = RandomisedSever(assumed_fraction=0.2)
    torch.testing.assert_close(rule(Shards.split(points, ["cpu", "cpu"])).update, rule(points).update)
