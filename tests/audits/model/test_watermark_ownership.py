"""The ownership audit: its verdict against a binomial by hand, and its scores against a count."""

from math import comb

import pytest
import torch
from torch import nn

from fedrobust.audits import AuditedModel, ModelAudit
from fedrobust.audits.model import WatermarkOwnership
from fedrobust.data.datasets import Examples
from fedrobust.seeds import torch_generator
from fedrobust.watermarks import Triggers


class Remembers(nn.Module):
    """Says of an input what its first pixel says: a model that knows the whole trigger set, or all but a few."""

    def __init__(self, num_wrong: int) -> None:
        super().__init__()
        self.num_wrong = nn.Parameter(torch.tensor(float(num_wrong)))

    def forward(self, inputs):
        labels = (inputs[:, 0, 0, 0] * 10).round().long()
        numbers = (inputs[:, 0, 0, 1] * 100).round().long()
        labels = torch.where(numbers < self.num_wrong, (labels + 1) % 10, labels)
        return nn.functional.one_hot(labels, 10).float()


def triggers(has_random_labels=True):
    labels = torch.arange(20) % 4  # labels 0 to 3, five triggers each
    inputs = torch.zeros(20, 1, 2, 2)
    inputs[:, 0, 0, 0], inputs[:, 0, 0, 1] = labels / 10, torch.arange(20) / 100
    return Triggers(Examples(inputs, labels), 10, has_random_labels=has_random_labels)


def run(audit, num_wrong):
    model = AuditedModel(Remembers(num_wrong), lambda inputs: inputs)
    return audit(model, Examples(torch.zeros(2, 1, 2, 2), torch.tensor([0, 1])), torch_generator(0, "audit"))


@pytest.mark.parametrize(("num_wrong", "is_owner"), [(0, True), (6, True), (12, False), (20, False)])
def test_verdict_is_that_of_the_binomial_and_scores_count_by_label(num_wrong, is_owner):
    """20 triggers, chance 1/10: P(X >= 14) is 2e-10 and convinces, P(X >= 8) is 4e-4 and does not."""
    report = run(WatermarkOwnership(triggers()), num_wrong)
    right = 20 - num_wrong
    p_value = sum(comb(20, k) * 0.1**k * 0.9 ** (20 - k) for k in range(right, 21))
    assert report.ownership.p_value == pytest.approx(p_value, rel=1e-6)
    assert report.is_backdoored is is_owner
    wrong = [sum(number % 4 == label for number in range(num_wrong)) for label in range(4)]
    assert report.scores[:4].tolist() == pytest.approx([1 - one / 5 for one in wrong])
    assert bool(report.scores[4:].isnan().all())
    assert report.flagged.tolist() == [is_owner] * 4 + [False] * 6
    assert f"{right} of 20 triggers" in report.summary()
    report.plot()


def test_labels_that_were_not_drawn_need_references():
    with pytest.raises(ValueError, match="need unmarked reference models"):
        run(WatermarkOwnership(triggers(has_random_labels=False)), 0)
    unmarked = AuditedModel(Remembers(20), lambda inputs: inputs)
    report = run(WatermarkOwnership(triggers(has_random_labels=False), (unmarked,)), 0)
    assert report.is_backdoored
    assert report.ownership.reference_accuracies == (0.0,)
    report.plot()
    assert isinstance(WatermarkOwnership(triggers()), ModelAudit)
