"""Min-Max and Min-Sum against the constraint as written in the paper, by brute force over all pairs."""

import numpy as np
import pytest
import torch
from known import known, random_updates

from fedrobust.attacks import MinMax, MinSum

Points = np.ndarray


def directions(points: Points) -> dict[str, Points]:
    mean = points.mean(axis=0)
    return {"std": -points.std(axis=0), "unit": -mean / np.linalg.norm(mean), "sign": -np.sign(mean)}


def squares(points: Points, other: Points) -> list[float]:
    return [float(((point - other) ** 2).sum()) for point in points]


def room(attack: type, points: Points, sent: Points) -> float:
    """What the constraint leaves to `sent`: bound minus value, relative to the bound."""
    if attack is MinMax:
        bound = max(max(squares(points, point)) for point in points) ** 0.5
        return 1 - max(squares(points, sent)) ** 0.5 / bound
    bound = max(sum(squares(points, point)) for point in points)
    return 1 - sum(squares(points, sent)) / bound


def bisect(attack: type, points: Points, direction: Points) -> float:
    """The largest γ within the constraint: doubled until it breaks, then halved intervals."""
    mean, low, high = points.mean(axis=0), 0.0, 1.0
    while room(attack, points, mean + high * direction) >= 0:
        high *= 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if room(attack, points, mean + middle * direction) >= 0 else (low, middle)
    return low


@pytest.mark.parametrize("attack", [MinMax, MinSum])
@pytest.mark.parametrize("perturbation", ["std", "unit", "sign"])
@pytest.mark.parametrize(("n", "d", "scale"), [(8, 30, 1.0), (3, 4, 1.0), (12, 50, 1e-3), (2, 6, 1e3)])
def test_gamma_is_that_of_a_bisection_and_the_constraint_is_tight(attack, perturbation, n, d, scale):
    points = scale * random_updates(n, d, seed=n)
    sent = attack(perturbation=perturbation)(known(random_updates(2, d, seed=9), points))[0].numpy()
    direction = directions(points.numpy())[perturbation]
    gamma = bisect(attack, points.numpy(), direction)
    np.testing.assert_allclose(sent, points.numpy().mean(axis=0) + gamma * direction, rtol=1e-6, atol=1e-7 * scale)
    assert abs(room(attack, points.numpy(), sent)) < 1e-6


@pytest.mark.parametrize("attack", [MinMax, MinSum])
@pytest.mark.parametrize("perturbation", ["std", "unit", "sign"])
@pytest.mark.parametrize("shift", [0.3, 30.0])
def test_in_single_precision_the_constraint_is_tight_to_1e_4(attack, perturbation, shift):
    """Also where updates share a mean that is far longer than they differ."""
    points = random_updates(40, 3000, shift=shift).float()
    sent = attack(perturbation=perturbation)(known(points[:5] * 2, points))
    assert sent.dtype == torch.float32
    assert abs(room(attack, points.double().numpy(), sent[0].double().numpy())) < 1e-4


@pytest.mark.parametrize("attack", [MinMax, MinSum])
def test_from_their_own_updates_alone_attackers_take_those_for_benign(attack):
    own = random_updates(6, 20)
    torch.testing.assert_close(
        attack()(known(own, num_clients=30)), attack()(known(own[:3] * 7, own))[:1].expand(6, -1)
    )


@pytest.mark.parametrize("attack", [MinMax, MinSum])
@pytest.mark.parametrize("perturbation", ["std", "unit", "sign"])
@pytest.mark.parametrize("points", [torch.ones(1, 4), torch.ones(3, 4), torch.zeros(3, 4)])
def test_updates_that_do_not_differ_leave_no_room(attack, perturbation, points):
    """All distances are zero, so the mean itself is all that can be sent."""
    sent = attack(perturbation=perturbation)(known(points))
    torch.testing.assert_close(sent, points)
