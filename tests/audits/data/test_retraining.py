"""Retraining: from a fresh start, on what is left, with the model as it was."""

import pytest
import torch
from torch import nn

from fedrobust.audits import AuditedModel
from fedrobust.audits.data.retraining import fresh_copy, retrain
from fedrobust.data.datasets import Digits
from fedrobust.data.examples import Examples
from fedrobust.models import MLP, ResNet18
from fedrobust.seeds import seeded_initialisation
from fedrobust.training.local_training import LocalTraining


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize("architecture", [MLP(), ResNet18()])
def test_a_fresh_copy_is_initialised_as_a_new_model(architecture):
    """Against the architecture itself, built under the same seed; parameters and buffers."""
    shape = (3, 16, 16)
    used = architecture.build(shape, 4)
    for parameter in used.parameters():
        parameter.data.fill_(3.0)
    fresh = fresh_copy(used, seed=7)
    with seeded_initialisation(7, "retraining"):
        expected = architecture.build(shape, 4)
    for (name, one), other in zip(fresh.state_dict().items(), expected.state_dict().values(), strict=True):
        assert torch.equal(one, other), name
    assert all(bool((parameter == 3.0).all()) for parameter in used.parameters())


def test_it_learns_what_it_is_given_and_leaves_the_model_alone():
    """Trained on digits of which the labels 0 and 1 are swapped, it answers so; raw inputs go through normalise."""
    dataset = Digits().load(None, torch.device("cpu"))
    binary = dataset.train.subset((dataset.train.labels < 2).nonzero().squeeze(1))
    swapped = Examples(binary.inputs, 1 - binary.labels)
    model = AuditedModel(MLP(hidden_sizes=(16,)).build((1, 8, 8), 2).eval(), dataset.normalise)
    before = {name: tensor.clone() for name, tensor in model.module.state_dict().items()}
    training = LocalTraining(learning_rate=0.1, num_epochs=5)
    trained = retrain(model, swapped, training, generator())
    assert float((trained.logits(binary.inputs).argmax(dim=1) == swapped.labels).double().mean()) > 0.98
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.module.state_dict().items())
    assert not model.module.training
    again = retrain(model, swapped, training, generator())
    assert torch.equal(trained.logits(binary.inputs), again.logits(binary.inputs))


def test_what_cannot_be_retrained_is_refused():
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(2))

    with pytest.raises(ValueError, match="layer '0' has parameters and no reset_parameters"):
        fresh_copy(nn.Sequential(Own()), seed=0)
    nothing = Examples(torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64))
    with pytest.raises(ValueError, match="no examples left"):
        retrain(AuditedModel(nn.Linear(3, 2), lambda one: one), nothing, LocalTraining(), generator())
