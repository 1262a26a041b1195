"""Feature collision against the closed form of its objective for linear features, and against what it promises."""

import pytest
import torch
from torch import nn

from fedrobust.attacks.data.feature_collision import blend, feature_collision
from fedrobust.models import MLP
from fedrobust.models.features import FeatureExtractor
from fedrobust.seeds import seeded_initialisation, torch_generator

SOLVERS = ("forward_backward", "adam")


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=torch_generator(seed, "test"))


def network() -> nn.Module:
    with seeded_initialisation(0, "test"):
        return MLP(hidden_sizes=(40, 30)).build((1, 4, 4), 3).eval().requires_grad_(False)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("beta", [0.01, 0.3])
def test_linear_features_have_the_minimiser_of_ridge_regression(solver, beta):
    """f(x) = Ax: setting the gradient to zero gives (AᵀA / s + βI) x = AᵀA t / s + βb with s = ‖At‖².

    Bases and targets lie in the middle of [0, 1], so that the minimiser does, too, and nothing is clipped.
    """
    bases, targets = 0.45 + 0.1 * draw(5, 6), 0.45 + 0.1 * draw(5, 6, seed=1)
    matrix = torch.randn(4, 6, generator=torch_generator(2, "test"))
    result = feature_collision(
        lambda inputs: inputs @ matrix.T, targets, bases, beta=beta, num_steps=1500, solver=solver, learning_rate=1e-3
    )
    for poison, base, target in zip(result.poisons, bases.double(), targets.double(), strict=True):
        gram = matrix.double().T @ matrix.double()
        gram = gram / (target @ gram @ target)
        exact = torch.linalg.solve(gram + beta * torch.eye(6), gram @ target + beta * base)
        assert float(exact.min()) > 0
        assert float(exact.max()) < 1
        torch.testing.assert_close(poison.double(), exact, atol=2e-3, rtol=0)


@pytest.mark.parametrize("solver", SOLVERS)
def test_identical_features_have_a_clipped_minimiser(solver):
    """f(x) = 2x - 1 separates by pixel: the minimiser is the clip of (4t / s + βb) / (4 / s + β), s = ‖2t - 1‖².

    Targets outside of [0, 1], of which the features alone are used, pull the minimiser out of it, too.
    """
    targets, bases, beta = torch.tensor([[-0.9, 0.2, -0.5, 1.8]]), torch.tensor([[0.1, 0.9, 0.0, 1.0]]), 0.1
    result = feature_collision(
        lambda inputs: 2 * inputs - 1, targets, bases, beta=beta, num_steps=500, solver=solver, learning_rate=5e-3
    )
    slope = 4 / (2 * targets - 1).square().sum()
    exact = ((slope * targets + beta * bases) / (slope + beta)).clamp(0, 1)
    assert float(exact.min()) == 0
    torch.testing.assert_close(result.poisons, exact, atol=2e-3, rtol=0)


@pytest.mark.parametrize("beta", [0.0, 1e-4, 1e-2, 1.0])
def test_backtracking_never_makes_the_objective_worse(beta):
    """On a network with kinks; the objectives that are told are those of the poisons, computed here by hand."""
    features = FeatureExtractor(network())
    bases, targets = draw(7, 1, 4, 4), draw(7, 1, 4, 4, seed=1)
    result = feature_collision(features, targets, bases, beta=beta, num_steps=60)
    assert bool((result.objectives.diff(dim=0) <= 0).all())
    assert bool((result.objectives[-1] < result.objectives[0]).all())
    wanted = features(targets)
    distances = (features(result.poisons) - wanted).norm(dim=1) / wanted.norm(dim=1)
    moved = (result.poisons - bases).flatten(1).norm(dim=1)
    torch.testing.assert_close(result.distances, distances)
    torch.testing.assert_close(result.objectives[-1], distances**2 + beta * moved**2, atol=1e-5, rtol=1e-4)
    assert 0 <= float(result.poisons.min()) <= float(result.poisons.max()) <= 1


@pytest.mark.parametrize("solver", SOLVERS)
def test_poisons_made_together_are_those_made_alone(solver):
    features = FeatureExtractor(network())
    bases, targets = draw(4, 1, 4, 4), draw(4, 1, 4, 4, seed=1)
    before = bases.clone()
    together = feature_collision(features, targets, bases, beta=1e-2, num_steps=20, solver=solver).poisons
    for index in range(4):
        row = slice(index, index + 1)
        alone = feature_collision(features, targets[row], bases[row], beta=1e-2, num_steps=20, solver=solver).poisons
        torch.testing.assert_close(together[row], alone, atol=1e-3, rtol=0)
    assert torch.equal(bases, before)


def test_a_base_that_is_the_target_stays_as_it_is():
    bases = draw(3, 1, 4, 4)
    result = feature_collision(FeatureExtractor(network()), bases, bases, beta=1e-2, num_steps=20)
    assert torch.equal(result.poisons, bases)
    assert len(result.objectives) == 1


def test_nothing_collides_with_features_that_are_zero():
    with pytest.raises(ValueError, match="features of a target instance are all zero"):
        feature_collision(lambda inputs: 0 * inputs, draw(1, 3), draw(2, 3), beta=1.0, num_steps=1)


def test_blending_is_opacity_of_the_target():
    """By hand: 0.3 * 1 + 0.7 * 0.5 = 0.65."""
    torch.testing.assert_close(blend(torch.full((2, 3), 0.5), torch.ones(1, 3), 0.3), torch.full((2, 3), 0.65))
