"""Accuracy and attack success of a model whose every answer can be worked out by hand.

The model is one linear layer on 1x2x2 pictures: class c has logit x[c], so it says which pixel is brightest.
"""

import pytest
import torch
from sklearn.metrics import accuracy_score, log_loss
from torch import nn

from fedrobust.attacks import DBA, BadNets, LabelFlip, Patch, PatchGrid
from fedrobust.data.datasets import Dataset, Examples
from fedrobust.evaluation.accuracy import measure_accuracy
from fedrobust.evaluation.attack_success import measure_attack_success
from fedrobust.evaluation.detection import measure_detection
from fedrobust.parameters import ParameterLayout
from fedrobust.training.predictor import Predictor


def predictor(examples: Examples, mean: float = 0.0) -> Predictor:
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 4, bias=False))
    with torch.no_grad():
        model[1].weight.copy_(torch.eye(4))
    layout = ParameterLayout.of(model)
    constant = torch.full((1, 1, 1), mean)
    dataset = Dataset("pixels", examples, examples, 4, "image", constant, torch.ones(1, 1, 1))
    return Predictor(model, layout, layout.flatten(model), {}, dataset)


def pixels(rows: list[list[float]], labels: list[int]) -> Examples:
    return Examples(torch.tensor(rows).view(-1, 1, 2, 2), torch.tensor(labels))


def test_accuracy_and_loss_agree_with_scikit_learn():
    generator = torch.Generator().manual_seed(0)
    examples = Examples(torch.rand(700, 1, 2, 2, generator=generator), torch.randint(0, 3, (700,), generator=generator))
    result = measure_accuracy(predictor(examples), examples, num_classes=4)
    flat = examples.inputs.flatten(1)
    assert result.accuracy == pytest.approx(accuracy_score(examples.labels, flat.argmax(dim=1)))
    probabilities = flat.double().softmax(dim=1).numpy()
    assert result.loss == pytest.approx(log_loss(examples.labels, probabilities, labels=[0, 1, 2, 3]), rel=1e-5)
    for label in range(3):
        own = examples.labels == label
        assert result.per_class[label] == pytest.approx(accuracy_score(examples.labels[own], flat[own].argmax(dim=1)))
    assert result.per_class[3] != result.per_class[3], "a class without examples has no accuracy"


def test_success_counts_no_example_of_the_target():
    """Pixel (0,1) lit makes class 1 win over anything below 0.9: one of three victims resists.

    The target's own example does not count, though a clean model says 1 to it; with it the rate would be 3/4.
    """
    examples = pixels([[0.5, 0, 0, 0], [0, 0, 0.95, 0], [0, 0, 0, 0.1], [0, 0.8, 0, 0]], [0, 2, 3, 1])
    attack = BadNets(trigger=Patch(height=1, width=1, left=1, value=0.9), target_label=1, poison_rate=0.5)
    success = measure_attack_success(predictor(examples), attack, examples)
    assert success.global_trigger == pytest.approx(2 / 3)
    assert success.local_triggers == [success.global_trigger]


def test_local_triggers_are_measured_each_on_its_own():
    """Two one-pixel parts, pixel 0 and pixel 1, target 0: the part on pixel 0 always wins, the other never."""
    examples = pixels([[0, 0.2, 0, 0], [0, 0, 0.3, 0]], [1, 2])
    attack = DBA(trigger=PatchGrid(height=1, width=1, gap=0, num_patches=2), target_label=0, poison_rate=0.5)
    success = measure_attack_success(predictor(examples), attack, examples)
    assert success.local_triggers == [1.0, 0.0]
    assert success.global_trigger == 1.0, "ties go to the lower class, which is the target"


def test_one_source_class():
    examples = pixels([[0.5, 0, 0, 0], [0, 0, 0.95, 0]], [0, 2])
    attack = BadNets(
        trigger=Patch(height=1, width=1, left=1, value=0.9), target_label=1, source_label=2, poison_rate=0.5
    )
    assert measure_attack_success(predictor(examples), attack, examples).global_trigger == 0.0


def test_without_a_trigger_inputs_are_shown_as_they_are():
    """Class 2 -> 1: of the two 2s the model takes one for a 1; the 1 that it takes for a 1 does not count."""
    examples = pixels([[0, 0.9, 0.5, 0], [0, 0, 0.5, 0], [0, 0.9, 0, 0], [0, 0.9, 0, 0]], [2, 2, 1, 0])
    success = measure_attack_success(predictor(examples), LabelFlip(target_label=1, source_label=2), examples)
    assert success.global_trigger == 0.5
    assert success.local_triggers is None


def test_what_is_wanted_may_differ_by_class():
    """Four classes mirrored: 0 -> 3, 1 -> 2, 2 -> 1, 3 -> 0; the model answers 3, 1, 1, 0, so three of four."""
    examples = pixels([[0.0, 0, 0, 1], [0, 1, 0, 0], [0, 1, 0, 0], [1, 0, 0, 0]], [0, 1, 2, 3])
    attack = LabelFlip(flip="inverse", num_classes=4)
    assert measure_attack_success(predictor(examples), attack, examples).global_trigger == 0.75


def test_an_attack_that_wants_no_class_has_no_success_rate():
    examples = pixels([[0.0, 0, 0, 1]], [0])
    success = measure_attack_success(predictor(examples), LabelFlip(flip="random", num_classes=4), examples)
    assert (success.global_trigger, success.local_triggers) == (None, None)


def test_triggers_come_before_normalisation():
    """With mean 0.5 subtracted from every pixel the order of the logits stays.

    A trigger stamped after it would give 0.9 against at most 0.45 and win everywhere.
    """
    examples = pixels([[0, 0, 0.95, 0]], [2])
    attack = BadNets(trigger=Patch(height=1, width=1, left=1, value=0.9), target_label=1, poison_rate=0.5)
    assert measure_attack_success(predictor(examples, mean=0.5), attack, examples).global_trigger == 0.0


def test_evaluation_leaves_examples_and_model_as_they_were():
    examples = pixels([[0.5, 0, 0, 0]], [0])
    before = examples.inputs.clone()
    one = predictor(examples)
    one.model.train()
    measure_attack_success(one, BadNets(trigger=Patch(height=1, width=1), target_label=1, poison_rate=0.5), examples)
    assert torch.equal(examples.inputs, before)
    assert one.model.training


@pytest.mark.parametrize(
    ("attackers", "tpr", "fpr"),
    [([1, 2], 0.5, 1 / 3), ([], None, 0.4), ([0, 1, 2, 3, 4], 0.4, None), ([1], 1.0, 0.25)],
)
def test_detection_counts_shares_of_zero(attackers, tpr, fpr):
    """Clients 1 and 4 were left out."""
    detection = measure_detection((0, 1, 2, 3, 4), attackers, torch.tensor([0.5, 0.0, 0.25, 0.25, 0.0]))
    assert detection.tpr == (None if tpr is None else pytest.approx(tpr))
    assert detection.fpr == (None if fpr is None else pytest.approx(fpr))
