"""Model replacement against the server's own formula, G' = G + η Σ wᵢ(Lᵢ - G)."""

import pytest
import torch

from fedrobust.attacks import Knowledge, ModelReplacement

D = 50


def shoot(weights: list[float], attackers: list[int], eta: float, attack: ModelReplacement) -> tuple[torch.Tensor, ...]:
    """G', G and the attackers' models X (m, d), where benign clients have converged (send nothing)."""
    generator = torch.Generator().manual_seed(0)
    g = torch.randn(D, generator=generator, dtype=torch.float64)
    x = g + torch.randn(len(attackers), D, generator=generator, dtype=torch.float64)
    w = torch.tensor(weights, dtype=torch.float64)
    w = w / w.sum()
    updates = torch.zeros(len(weights), D, dtype=torch.float64)
    updates[attackers] = attack(Knowledge(x - g, w[attackers], eta, len(weights)))
    return g + eta * (w.unsqueeze(1) * updates).sum(dim=0), g, x


@pytest.mark.parametrize("eta", [1.0, 0.1])
@pytest.mark.parametrize("weights", [[1.0] * 10, [5.0, 1, 2, 30, 4, 1, 1, 9, 2, 7]])
@pytest.mark.parametrize("attackers", [[3], [0, 3], [1, 4, 8]])
def test_the_new_global_model_is_the_attackers(weights, attackers, eta):
    """With s_k = 1/(η m w_k) the sum is (1/m) Σ (X_k - G): G' is the mean of the attackers' models, exactly."""
    new, _, x = shoot(weights, attackers, eta, ModelReplacement())
    torch.testing.assert_close(new, x.mean(dim=0), rtol=1e-12, atol=1e-12)


def test_a_factor_that_ignores_the_real_weight_misses():
    """s = 10 for n = 10 is right under equal weights, and off by n w_k under unequal ones: here by a factor of 2."""
    new, _, x = shoot([1.0] * 10, [0], 1.0, ModelReplacement(scale_factor=10.0))
    torch.testing.assert_close(new, x[0])
    new, g, x = shoot([2.0] + [8 / 9] * 9, [0], 1.0, ModelReplacement(scale_factor=10.0))
    torch.testing.assert_close((new - x[0]).norm() / (x[0] - g).norm(), torch.tensor(1.0, dtype=torch.float64))


def test_the_dba_papers_factor_is_the_automatic_one():
    """100 = 1/(0.1 x 1/10): ten equal clients, server learning rate 0.1."""
    own = torch.ones(1, D, dtype=torch.float64)
    knowledge = Knowledge(own, torch.tensor([0.1], dtype=torch.float64), 0.1, 10)
    torch.testing.assert_close(ModelReplacement()(knowledge), ModelReplacement(scale_factor=100.0)(knowledge))


def test_train_and_scale_stops_at_the_bound():
    """Norms 1 and 10 with s = 10 each and a bound of 5: both end at 5, in their own directions."""
    own = torch.zeros(2, D)
    own[0, 0], own[1, 1] = 1.0, 10.0
    sent = ModelReplacement(scale_factor=10.0, max_norm=5.0)(Knowledge(own, torch.tensor([0.5, 0.5]), 1.0, 2))
    torch.testing.assert_close(sent.norm(dim=1), torch.tensor([5.0, 5.0]))
    assert float(sent[0, 0]) == 5.0
    assert float(sent[1, 1]) == 5.0


def test_a_zero_update_stays_zero():
    sent = ModelReplacement(max_norm=1.0)(Knowledge(torch.zeros(1, D), torch.tensor([0.1]), 1.0, 10))
    assert torch.equal(sent, torch.zeros(1, D))
