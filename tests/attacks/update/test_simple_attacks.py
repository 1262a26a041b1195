"""Attacks without statistics: sign flip, zero, Gaussian noise, projection onto a ball, Neurotoxin's mask."""

import math

import pytest
import torch
from known import known, random_updates
from scipy.stats import kstest

from fedrobust.attacks import Gaussian, Neurotoxin, ProjectedGradient, SignFlip, Zero
from fedrobust.seeds import torch_generator


def test_sign_flip_and_zero():
    own = torch.tensor([[1.0, -2.0], [0.5, 4.0]])
    assert SignFlip()(known(own)).tolist() == [[-1, 2], [-0.5, -4]]
    assert SignFlip(scale_factor=2.0)(known(own)).tolist() == [[-2, 4], [-1, -8]]
    assert Zero()(known(own)).tolist() == [[0, 0], [0, 0]]


def test_gaussian_noise_has_the_standard_deviation_and_attackers_draw_apart():
    """Kolmogorov-Smirnov against N(0, 3²), and correlation within 5/√d."""
    sent = Gaussian(std=3.0)(known(torch.ones(3, 20_000), generator=torch_generator(1, "update attack", 4)))
    for row in sent:
        assert kstest(row.numpy() / 3.0, "norm").pvalue > 1e-3
    assert float(torch.corrcoef(sent).fill_diagonal_(0).abs().max()) < 5 / math.sqrt(20_000)


def test_projection_keeps_short_updates_and_shortens_long_ones():
    """Norms 3 and 10, bound 5: the first stays, the second is halved."""
    own = torch.tensor([[3.0, 0.0], [6.0, 8.0]])
    assert ProjectedGradient(max_norm=5.0)(known(own)).tolist() == [[3, 0], [3, 4]]


def test_scaling_comes_before_projection():
    """With s = 4 both are longer than 5; `auto` is 1/(η m w) = 1/(2 · 0.05) = 10 for 2 of 20 clients."""
    own = torch.tensor([[3.0, 0.0], [6.0, 8.0]])
    assert ProjectedGradient(scale_factor=4.0, max_norm=5.0)(known(own)).tolist() == [[5, 0], [3, 4]]
    sent = ProjectedGradient(scale_factor="auto", max_norm=1000.0)(known(own, num_clients=20))
    torch.testing.assert_close(sent, 10 * own)


def test_without_a_bound_it_is_the_mean_benign_norm():
    """Benign norms 1 and 3: the bound is 2."""
    own, benign = torch.tensor([[0.0, 8.0]]), torch.tensor([[1.0, 0.0], [0.0, 3.0]])
    assert ProjectedGradient()(known(own, benign)).tolist() == [[0, 2]]
    assert (ProjectedGradient().needs, ProjectedGradient(max_norm=1.0).needs) == ("benign", "own")


def test_neurotoxin_leaves_the_largest_coordinates_of_the_models_change_alone():
    """Of ten, two: |−9| and 7 are the largest."""
    step = torch.tensor([0.1, -9.0, 2, 3, 7, -1, 0, 0.5, 4, -2])
    own = torch.arange(1.0, 21).reshape(2, 10)
    sent = Neurotoxin(top_fraction=0.2)(known(own, model_change=step))
    expected = own.clone()
    expected[:, [1, 4]] = 0
    assert torch.equal(sent, expected)


def test_neurotoxin_counts_by_a_sort_on_random_changes():
    step, own = random_updates(1, 997)[0], random_updates(3, 997, seed=1)
    sent = Neurotoxin(top_fraction=0.1)(known(own, model_change=step))
    largest = sorted(range(997), key=lambda index: -abs(float(step[index])))[:99]
    assert sorted((sent[0] == 0).nonzero().flatten().tolist()) == sorted(largest)


@pytest.mark.parametrize("step", [None, torch.zeros(10)])
def test_neurotoxin_without_a_change_sends_all(step):
    own = torch.ones(2, 10)
    assert torch.equal(Neurotoxin(top_fraction=0.5)(known(own, model_change=step)), own)
