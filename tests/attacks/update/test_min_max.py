"""Min-Max and Min-Sum against the constraint as written in the paper, by brute force over all pairs."""

import functools

import numpy as np
import pytest
import torch
from known import known, random_updates

from fedrobust.attacks import MinMax, MinSum
from fedrobust.config.component import FieldError

Points = np.ndarray


def directions(points: Points) -> dict[str, Points]:
    mean = points.mean(axis=0)
    return {"std": -points.std(axis=0), "unit": -mean / np.linalg.norm(mean), "sign": -np.sign(mean)}


def squares(points: Points, other: Points) -> list[float]:
    return [float(((point - other) ** 2).sum()) for point in points]


def room(attack: MinMax | MinSum, points: Points, sent: Points) -> float:
    """What the constraint leaves to `sent`: bound minus value, relative to the bound."""
    if isinstance(attack, MinMax):
        bound = max(max(squares(points, point)) for point in points) ** 0.5
        return 1 - max(squares(points, sent)) ** 0.5 / bound
    bound = {"max": max, "min": min}[attack.bound](sum(squares(points, point)) for point in points)
    return 1 - sum(squares(points, sent)) / bound


def bisect(attack: MinMax | MinSum, points: Points, direction: Points) -> float:
    """The largest γ within the constraint: doubled until it breaks, then halved intervals."""
    mean, low, high = points.mean(axis=0), 0.0, 1.0
    while room(attack, points, mean + high * direction) >= 0:
        high *= 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if room(attack, points, mean + middle * direction) >= 0 else (low, middle)
    return low


KINDS = pytest.mark.parametrize(
    "kind", [MinMax, MinSum, functools.partial(MinSum, bound="min")], ids=["min_max", "min_sum", "min_sum_min"]
)
PERTURBATIONS = pytest.mark.parametrize("perturbation", ["std", "unit", "sign"])


@KINDS
@PERTURBATIONS
@pytest.mark.parametrize(
    ("n", "m", "d", "scale"),
    [(8, 2, 30, 1.0), (3, 1, 4, 1.0), (12, 5, 50, 1e-3), (2, 1, 6, 1e3), (40, 13, 9, 1.0), (17, 20, 300, 1e-2)],
)
def test_gamma_is_that_of_a_bisection_and_the_constraint_is_tight(kind, perturbation, n, m, d, scale):
    """n benign updates and m attackers; each attacker sends the same."""
    attack = kind(perturbation=perturbation)
    points = scale * random_updates(n, d, seed=n)
    sent = attack(known(random_updates(m, d, seed=9), points)).numpy()
    direction = directions(points.numpy())[perturbation]
    gamma = bisect(attack, points.numpy(), direction)
    assert sent.shape == (m, d)
    for row in sent:
        np.testing.assert_allclose(row, points.numpy().mean(axis=0) + gamma * direction, rtol=1e-6, atol=1e-7 * scale)
    assert abs(room(attack, points.numpy(), sent[0])) < 1e-6


@PERTURBATIONS
def test_min_sum_on_four_points_of_a_line_by_hand(perturbation):
    """Points 1, 2, 3 and 6: μ = 3, sums of squared distances 30, 18, 14 and 50, and Σ(μ + γp - xᵢ)² = 14 + 4γ²p².

    So |γp| = 3 for the largest, 50, and 0 for the least, 14, which the point at the mean has: the authors' code leaves
    no room there. Every p points down.
    """
    points = torch.tensor([[1.0], [2.0], [3.0], [6.0]], dtype=torch.float64)
    sent = {bound: MinSum(perturbation=perturbation, bound=bound)(known(points, points)) for bound in ("max", "min")}
    torch.testing.assert_close(sent["max"], torch.zeros(4, 1, dtype=torch.float64))
    torch.testing.assert_close(sent["min"], torch.full((4, 1), 3.0, dtype=torch.float64))


@PERTURBATIONS
@pytest.mark.parametrize(("n", "d"), [(8, 20), (16, 500), (40, 20)])
def test_the_two_bounds_of_min_sum_shift_as_the_farthest_and_the_nearest_lie_from_the_mean(perturbation, n, d):
    """Σⱼ‖xᵢ - xⱼ‖² = Σⱼ‖xⱼ - μ‖² + n‖xᵢ - μ‖², so that ‖γp‖ is ‖xᵢ - μ‖ of the i which the bound goes by."""
    points = random_updates(n, d, seed=n)
    mean = points.mean(dim=0)
    from_mean = (points - mean).norm(dim=1)
    for bound, expected in (("max", from_mean.max()), ("min", from_mean.min())):
        sent = MinSum(perturbation=perturbation, bound=bound)(known(points[:2], points))
        assert float((sent[0] - mean).norm()) == pytest.approx(float(expected), rel=1e-9)


def test_min_sum_goes_by_the_papers_bound_unless_told():
    points = random_updates(9, 12)
    assert torch.equal(MinSum()(known(points, points)), MinSum(bound="max")(known(points, points)))
    with pytest.raises(FieldError, match="bound: must be 'max' or 'min', got 'mean'"):
        MinSum(bound="mean")


@KINDS
@PERTURBATIONS
@pytest.mark.parametrize("shift", [0.3, 30.0])
def test_in_single_precision_the_constraint_is_tight_to_1e_4(kind, perturbation, shift):
    """Also where updates share a mean that is far longer than they differ."""
    attack = kind(perturbation=perturbation)
    points = random_updates(40, 3000, shift=shift).float()
    sent = attack(known(points[:5] * 2, points))
    assert sent.dtype == torch.float32
    assert abs(room(attack, points.double().numpy(), sent[0].double().numpy())) < 1e-4


@KINDS
def test_from_their_own_updates_alone_attackers_take_those_for_benign(kind):
    own = random_updates(6, 20)
    torch.testing.assert_close(kind()(known(own, num_clients=30)), kind()(known(own[:3] * 7, own))[:1].expand(6, -1))


@KINDS
@PERTURBATIONS
@pytest.mark.parametrize("points", [torch.ones(1, 4), torch.ones(3, 4), torch.zeros(3, 4)])
def test_updates_that_do_not_differ_leave_no_room(kind, perturbation, points):
    """All distances are zero, so the mean itself is all that can be sent."""
    sent = kind(perturbation=perturbation)(known(points))
    torch.testing.assert_close(sent, points)
