"""Trigger inversion against the plain loop of `digit_models`, and its promises."""

import dataclasses

import pytest
import torch
from digit_models import digits, plain_inversion, train_digits
from torch import nn

from fedrobust.audits import AuditedModel
from fedrobust.audits.model import TriggerInversion
from fedrobust.models import SmallCNN
from fedrobust.seeds import seeded_initialisation, torch_generator

SHORT = TriggerInversion(num_checks=60, num_steps=3, batch_size=16, patience=2, max_stale=8, together=10)


@pytest.fixture(scope="module")
def dataset():
    return digits()


@pytest.fixture(scope="module")
def model(dataset):
    return train_digits(0, target=3, dataset=dataset, num_epochs=10)


def test_labels_together_are_labels_one_by_one(model, dataset):
    """Masks and patterns agree to 1e-4 between all labels at once, three at a time, and one at a time."""
    inputs = dataset.test.inputs[:64]
    together = SHORT(model, inputs, 10, torch_generator(0, "nc"))
    for at_once in (3, 1):
        alone = dataclasses.replace(SHORT, together=at_once)(model, inputs, 10, torch_generator(0, "nc"))
        assert torch.allclose(together.masks, alone.masks, atol=1e-4)
        assert torch.allclose(together.patterns, alone.patterns, atol=1e-4)
        assert torch.allclose(together.l1_norms, alone.l1_norms, atol=1e-3, equal_nan=True)
        assert torch.equal(together.success_rates, alone.success_rates)


def test_all_labels_are_the_plain_loop(model, dataset):
    """torch.optim.Adam and Python numbers, label by label, from the same start and over the same batches."""
    inputs = dataset.test.inputs[:64]
    generator = torch_generator(1, "nc")
    found = SHORT(model, inputs, 10, generator)
    generator = torch_generator(1, "nc")
    start = torch.rand(10, 2, 8, 8, generator=generator)
    plan = SHORT._plan(64, generator)
    stopped = 0
    for label in range(10):
        mask, pattern, size = plain_inversion(SHORT, model.module, dataset.normalise, inputs, label, start[label], plan)
        assert torch.allclose(found.masks[label], mask, atol=1e-4), label
        assert torch.allclose(found.patterns[label], pattern, atol=1e-4), label
        assert float(found.l1_norms[label]) == pytest.approx(size, abs=1e-3, nan_ok=True), label
        stopped += size == size
    assert stopped >= 5  # labels for which a mask was found: else little was compared


def test_a_mask_that_is_kept_reaches_the_success_rate(model, dataset):
    """Stamped by hand on all examples and shown to the model."""
    inputs = dataset.test.inputs[:100]
    found = TriggerInversion(num_checks=40)(model, inputs, 10, torch_generator(0, "nc"))
    for label in range(10):
        mask, pattern = found.masks[label], found.patterns[label]
        rate = (model.logits((1 - mask) * inputs + mask * pattern).argmax(dim=1) == label).double().mean()
        assert float(rate) == pytest.approx(float(found.success_rates[label]))
        assert (float(rate) >= 0.99) == (not bool(found.l1_norms[label].isnan()))
        if rate >= 0.99:
            assert float(found.l1_norms[label]) == pytest.approx(float(mask.abs().sum()), rel=1e-5)
    assert float(found.masks.min()) >= 0
    assert float(found.masks.max()) <= 1


def test_a_label_that_is_never_reached_is_nan_and_not_the_last_mask(dataset):
    """A model that never says 2, whatever it is shown: no mask can exist for it."""

    class NeverTwo(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(64, 3)

        def forward(self, inputs):
            logits = self.linear(inputs.flatten(1))
            return torch.stack([logits[:, 0], logits[:, 1], logits.min(dim=1).values - 1], dim=1)

    with seeded_initialisation(0, "model"):
        model = AuditedModel(NeverTwo(), dataset.normalise)
    found = TriggerInversion(num_checks=40)(model, dataset.test.inputs[:50], 3, torch_generator(0, "nc"))
    assert found.l1_norms.isnan().tolist() == [False, False, True]
    assert float(found.success_rates[2]) == 0.0
    assert bool(found.masks[2].isfinite().all())


def test_every_step_sees_each_example_once_before_any_twice():
    """Batches of 4 of 10 examples, 5 steps: two shuffles, each with every example once."""
    plan = TriggerInversion(num_checks=1, num_steps=5, batch_size=4)._plan(10, torch_generator(0, "nc"))
    assert plan.shape == (1, 5, 4)
    assert sorted(plan.flatten()[:10].tolist()) == list(range(10))
    assert sorted(plan.flatten()[10:].tolist()) == list(range(10))


def test_convolutions_with_batch_normalisation_and_progress():
    """Whole batches of several labels go through BatchNorm in evaluation mode, whose statistics stay as they were."""
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3),
        nn.BatchNorm2d(4),
        nn.ReLU(inplace=True),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(16, 3),
    )
    model = AuditedModel(network, lambda inputs: (inputs - 0.5) / 0.25)
    network.train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    inputs = torch.rand(20, 3, 8, 8, generator=torch_generator(0, "test"))
    told = []
    TriggerInversion(num_checks=4, together=2)(
        model, inputs, 3, torch_generator(0, "nc"), lambda done, of: told.append((done, of))
    )
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert network.training
    assert told[-1] == (12, 12)
    assert told == sorted(told)


def test_convolutions_are_inverted_one_by_one_on_a_cpu(dataset):
    inputs = torch.zeros(40, 3, 32, 32)
    convolves = SmallCNN().build((3, 32, 32), 43)
    assert TriggerInversion()._at_once(convolves, inputs) == 1
    assert TriggerInversion(together=7)._at_once(convolves, inputs) == 7
    assert TriggerInversion()._at_once(nn.Linear(4, 4), inputs) == 2**23 // (3072 * 32)


@pytest.mark.parametrize(
    ("change", "field"), [({"num_checks": 0}, "num_checks"), ({"success_rate": 1.5}, "success_rate"),
                          ({"together": "all"}, "together"), ({"learning_rate": 0.0}, "learning_rate")],
)  # fmt: skip
def test_wrong_settings_are_refused(change, field):
    with pytest.raises(ValueError, match=field):
        TriggerInversion(**change)
