"""Neural Cleanse from end to end on digits, and what it refuses."""

import math

import pytest
import torch
from chosen_seeds import first_of
from digit_models import corner_trigger, digits, success_rate, train_digits
from torch import nn

from fedrobust.audits import AuditedModel, ModelAudit
from fedrobust.audits.model import NeuralCleanse, TriggerInversion, Unlearning
from fedrobust.data.datasets import Examples
from fedrobust.seeds import torch_generator

QUICK = NeuralCleanse(inversion=TriggerInversion(num_checks=60))


@pytest.fixture(scope="module")
def dataset():
    return digits()


@pytest.mark.parametrize("seed", first_of((0, 1, 2)))
def test_backdoored_model_is_flagged_with_the_right_label_and_a_clean_one_is_not(seed, dataset):
    """Wang et al. 2019, table III and figure 3: index above 2 for infected models, for the infected label, not else."""
    target = (3 * seed + 1) % 10
    backdoored = train_digits(seed, target, dataset)
    assert success_rate(backdoored, corner_trigger(), target, dataset.test) > 0.9
    report = QUICK(backdoored, dataset.test, torch_generator(seed, "audit"))
    assert report.is_backdoored is True
    assert report.flagged_labels[0] == target
    assert int(report.scores.argmax()) == target
    # The recovered trigger is one: it works on test pictures, as the attacker's does.
    assert success_rate(backdoored, report.trigger(target), target, dataset.test) > 0.95
    clean = QUICK(train_digits(seed, None, dataset), dataset.test, torch_generator(seed, "audit"))
    assert clean.is_backdoored is False
    assert clean.flagged_labels == ()


def test_report_by_hand():
    """L1 norms as in the test of the index: label 1 has 6.07, and label 3 is twice as far on the other side."""
    from fedrobust.audits.model.anomaly_index import anomaly_index
    from fedrobust.audits.model.neural_cleanse import NeuralCleanseReport
    from fedrobust.audits.model.trigger_inversion import InvertedTriggers

    norms = torch.tensor([10.0, 2, 9, 24, 11, 12, 11, 13, 10, math.nan], dtype=torch.float64)
    found = InvertedTriggers(torch.rand(10, 4, 4), torch.rand(10, 3, 4, 4), torch.ones(10), norms)
    scores, warning = anomaly_index(norms)
    report = NeuralCleanseReport(found, scores, scores > 2, 2.0, warning)
    assert report.flagged_labels == (1,)
    assert report.is_backdoored is True
    stamped = report.trigger(1).stamp(torch.full((1, 3, 4, 4), 0.25))
    assert torch.allclose(stamped[0], 0.25 * (1 - found.masks[1]) + found.masks[1] * found.patterns[1], atol=1e-6)
    with pytest.raises(ValueError, match="no trigger was found for label 9"):
        report.trigger(9)
    titles = [axes.get_title() for part in report.plot().subfigs for axes in part.axes]
    assert titles[:2] == ["", "1: 2.0 px"]
    assert "9: none" in titles


def test_few_labels_get_no_verdict():
    """Three labels: the report says why, and neither convicts nor acquits."""
    model = AuditedModel(nn.Sequential(nn.Flatten(), nn.Linear(16, 3)), lambda inputs: inputs)
    examples = Examples(torch.rand(30, 1, 4, 4, generator=torch_generator(0, "test")), torch.arange(30) % 3)
    report = QUICK(model, examples, torch_generator(0, "audit"))
    assert report.is_backdoored is None
    assert not bool(report.flagged.any())
    assert bool(report.scores.isnan().all())
    assert "3 of 3 labels have a mask" in report.warning
    report.plot()


def test_unlearning_takes_the_backdoor_out_of_a_copy(dataset):
    """Section 6.2: attack success falls below 10 % with the recovered trigger, and accuracy by less than 3 points."""
    model = train_digits(0, 1, dataset)
    report = QUICK(model, dataset.test, torch_generator(0, "audit"))
    before = {name: tensor.clone() for name, tensor in model.module.state_dict().items()}
    cleansed = Unlearning(num_epochs=3)(model, [report.trigger(1)], dataset.train, torch_generator(0, "unlearning"))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.module.state_dict().items())
    assert success_rate(model, corner_trigger(), 1, dataset.test) > 0.9
    assert success_rate(cleansed, corner_trigger(), 1, dataset.test) < 0.1
    right = [
        (one.logits(dataset.test.inputs).argmax(dim=1) == dataset.test.labels).double().mean()
        for one in (model, cleansed)
    ]
    assert float(right[0] - right[1]) < 0.03
    assert cleansed.module.training == model.module.training
    assert all(parameter.grad is None for parameter in cleansed.module.parameters())


def test_unlearning_without_a_trigger_is_refused(dataset):
    with pytest.raises(ValueError, match="needs triggers and examples, got 0 and 1297"):
        Unlearning()(AuditedModel(nn.Linear(1, 1), dataset.normalise), [], dataset.train, torch_generator(0, "x"))


def test_neural_cleanse_is_a_model_audit():
    assert isinstance(NeuralCleanse(), ModelAudit)
