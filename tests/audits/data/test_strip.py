"""STRIP: entropies by hand, and a model whose backdoor is built in."""

import math

import pytest
import torch
from torch import Tensor, nn

from fedrobust.audits import AuditedModel, Strip
from fedrobust.audits.data.strip import answer_entropy
from fedrobust.data.examples import Examples


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Backdoored(nn.Module):
    """Class 0 whenever the last feature exceeds 0.9; otherwise the first four are the logits."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(5.0))

    def forward(self, inputs: Tensor) -> Tensor:
        logits = self.scale * inputs[:, :4]
        return torch.where(inputs[:, 4:] > 0.9, 100 * torch.tensor([1.0, 0, 0, 0]), logits)


def features(num: int, seed: int) -> Tensor:
    inputs = torch.rand(num, 5, generator=generator(seed))
    inputs[:, 4] = 0
    return inputs


def test_entropies_in_bits_by_hand():
    """Uniform over four: 2 bits. (3/4, 1/4): 2 - 0.75 log2 3. Certain: 0."""
    logits = torch.tensor([[1.0] * 4, [math.log(3), 0.0, -1e4, -1e4], [1e4, 0.0, 0.0, 0.0]])
    expected = torch.tensor([2.0, 2 - 0.75 * math.log2(3), 0.0], dtype=torch.float64)
    torch.testing.assert_close(answer_entropy(logits), expected, atol=1e-6, rtol=1e-6)
    with pytest.raises(ValueError, match="logits must be finite, 1 of 2 rows"):
        answer_entropy(torch.tensor([[math.nan, 0.0], [0.0, 0.0]]))


@pytest.mark.parametrize(("blend", "seen"), [("sum", [0.7, 1.0, 0.4, 0.0]), ("mean", [0.35, 0.6, 0.2, 0.0])])
def test_the_mean_over_overlays_by_hand(blend, seen):
    """One overlay only, so every draw is the same: the entropy of softmax(5 x) at the blended features."""
    inputs, overlay = torch.tensor([[0.3, 0.8, 0.4, 0.0, 0.0]]), torch.tensor([[0.4, 0.4, 0.0, 0.0, 0.0]])
    model = AuditedModel(Backdoored(), lambda one: one)
    shares = [math.exp(5 * one) for one in seen]
    expected = -sum(one / sum(shares) * math.log2(one / sum(shares)) for one in shares)
    found = Strip(blend=blend, num_overlays=3).entropies(inputs, overlay, model, generator())
    assert found.tolist() == pytest.approx([expected], rel=1e-6)


def test_what_is_no_picture_is_not_laid_over_others():
    """Word numbers add up to other words; the sum is clipped to the range of pictures besides."""
    words, clean = torch.full((20, 5), 7.0), torch.rand(40, 5, generator=generator())
    model, labels = AuditedModel(Backdoored(), lambda one: one), torch.zeros(40, dtype=torch.int64)
    for first, second in ((words, clean), (clean, 7 * clean)):
        with pytest.raises(
            ValueError, match=r"raw inputs in \[0, 1\] over one another, got values from [0-9.]+ to [67]"
        ):
            Strip()(Examples(first, labels[: len(first)]), model, generator(), Examples(second, labels))


def test_triggered_inputs_are_flagged_and_clean_ones_at_the_stated_rate():
    """The trigger's answer is certain whatever lies over it: entropy 0, below that of any clean input.

    200 entropies set the threshold at a rate of 0.1, k = 20: Beta(20, 181), 0.0995 ± 0.021; 1,000 clean inputs; the
    bound is five standard deviations above.
    """
    inputs = features(1100, seed=1)
    inputs[:100, 4] = 1.0
    labels = torch.cat([torch.zeros(100), torch.ones(1000)]).long()
    clean = Examples(features(400, seed=2), torch.zeros(400, dtype=torch.int64))
    audit = Strip(false_positive_rate=0.1, num_overlays=20)
    report = audit(Examples(inputs, labels), AuditedModel(Backdoored(), lambda one: one), generator(), clean)
    assert bool(report.flagged[:100].all())
    torch.testing.assert_close(report.scores[:100], torch.zeros(100, dtype=torch.float64), atol=1e-6, rtol=0)
    rate = float(report.flagged[100:].double().mean())
    assert rate < 0.0995 + 5 * math.hypot(0.021, math.sqrt(0.1 * 0.9 / 1000))
    assert report.poisoned_labels == (0,)


def test_overlays_differ_between_inputs_and_repeat_with_the_generator():
    inputs, overlays = features(1, seed=1).expand(6, -1), features(50, seed=3)
    model = AuditedModel(Backdoored(), lambda one: one)
    audit = Strip(num_overlays=4)
    entropies = audit.entropies(inputs, overlays, model, generator())
    assert len(set(entropies.tolist())) == 6
    assert torch.equal(entropies, audit.entropies(inputs, overlays, model, generator()))


def test_it_needs_clean_examples_for_its_rate():
    """A rate of 0.05 takes 19 scores (k = ⌊0.05 * 20⌋ = 1), and as many overlays: 38."""
    model, some = AuditedModel(Backdoored(), lambda one: one), Examples(features(37, 0), torch.zeros(37).long())
    with pytest.raises(ValueError, match="Strip needs at least 38 clean examples, got none"):
        Strip()(some, model, generator())
    with pytest.raises(ValueError, match="Strip needs at least 38 clean examples, got 37"):
        Strip()(some, model, generator(), clean=some)
