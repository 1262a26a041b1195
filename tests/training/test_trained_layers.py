"""Clients that train their head alone: exactly nothing else changes, one by one and in cohorts."""

import pytest
import torch
from small_population import make_population, with_training
from torch import nn

from fedrobust.attacks import Attack, BadNets, ConstrainAndScale, Patch
from fedrobust.models import DBACNN, MLP, Architecture, ResNet18
from fedrobust.models.features import head_name
from fedrobust.parameters import ParameterLayout
from fedrobust.seeds import torch_generator
from fedrobust.training.local_training import LocalTraining
from fedrobust.training.loop import plan_batches
from fedrobust.training.trained_layers import trained_names

HEAD = LocalTraining(
    learning_rate=0.05, num_epochs=2, batch_size=4, momentum=0.9, weight_decay=0.01, trained_layers="head"
)
MODELS = pytest.mark.parametrize(
    ("architecture", "shape"),
    [(MLP(hidden_sizes=[16, 8]), (1, 8, 8)), (DBACNN(), (1, 28, 28)), (ResNet18(width=8, num_groups=4), (3, 16, 16))],
    ids=["mlp", "dba_cnn", "resnet18"],
)


@MODELS
@pytest.mark.parametrize("vectorize", [False, True], ids=["alone", "cohort"])
def test_the_update_is_exactly_zero_outside_the_head(architecture: Architecture, shape, vectorize):
    """Weight decay and momentum included: what is not trained is not even rounded."""
    population, vector, buffers = make_population(architecture, shape, (5, 1, 4), HEAD)
    population = with_training(population, vectorize=vectorize)
    updates = population.train(1, range(3), vector, buffers).updates
    head = head_name(population.model)
    for name, part in ParameterLayout.of(population.model).stacked_views(updates).items():
        changed = (part != 0).flatten(1).any(dim=1)
        assert changed.tolist() == [name.startswith(f"{head}.")] * 3


@MODELS
def test_a_cohort_trains_as_one_by_one(architecture: Architecture, shape):
    population, vector, buffers = make_population(architecture, shape, (7, 1, 6, 4), HEAD)
    together = with_training(population, vectorize=True).train(1, range(4), vector, buffers)
    alone = with_training(population, vectorize=False).train(1, range(4), vector, buffers)
    distances = (together.updates - alone.updates).norm(dim=1) / alone.updates.norm(dim=1)
    assert float(distances.max()) <= 1e-5
    torch.testing.assert_close(together.losses, alone.losses, rtol=1e-5, atol=0)


@pytest.mark.parametrize("loss", [ConstrainAndScale(alpha=0.9), ConstrainAndScale(alpha=0.3, anomaly="cosine")])
def test_a_loss_attack_speaks_of_all_parameters_and_moves_the_head(loss):
    attack = Attack(malicious_clients=[0, 2], data=BadNets(trigger=Patch(), target_label=1, poison_rate=0.5), loss=loss)
    population, vector, buffers = make_population(training=HEAD, attack=attack)
    together = with_training(population, vectorize=True).train(1, range(5), vector, buffers).updates
    alone = with_training(population, vectorize=False).train(1, range(5), vector, buffers).updates
    assert float(((together - alone).norm(dim=1) / alone.norm(dim=1)).max()) <= 1e-5


def test_training_the_head_is_logistic_regression_on_the_features():
    """Against a linear layer that `torch.optim.SGD` trains on the network's last hidden activations."""
    population, vector, buffers = make_population(training=HEAD, sizes=(16,))
    layout, data = ParameterLayout.of(population.model), population.dataset
    update = population.train(1, [0], vector, buffers).updates[0]
    population.model.load_state_dict(layout.views(vector))
    layers = list(population.model.children())
    with torch.no_grad():
        features = nn.Sequential(*layers[:-1])(data.normalise(data.train.inputs))
    head = nn.Linear(8, 10)
    head.load_state_dict({name: layers[-1].get_parameter(name).detach().clone() for name in ("weight", "bias")})
    before = head.weight.detach().clone()
    optimizer = torch.optim.SGD(head.parameters(), lr=0.05, momentum=0.9, weight_decay=0.01)
    for batch in plan_batches(population.assignment[0], 4, 2, torch_generator(0, "batches", 1, 0)):
        optimizer.zero_grad()
        nn.functional.cross_entropy(head(features[batch]), data.train.labels[batch]).backward()
        optimizer.step()
    name = f"{head_name(population.model)}.weight"
    torch.testing.assert_close(layout.views(update)[name], head.weight.detach() - before, rtol=1e-4, atol=1e-6)


class Normalised:
    """A network with batch normalisation before its head."""

    has_convolutions = False

    def build(self, input_shape: tuple[int, ...], num_classes: int) -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, num_classes))


def test_statistics_of_features_that_stay_are_left_alone():
    population, vector, buffers = make_population(Normalised(), sizes=(16, 8), training=HEAD)
    head = with_training(population, vectorize=False)
    kept = head.train(1, range(2), vector, buffers).buffers
    moved = with_training(head, trained_layers="all").train(1, range(2), vector, buffers).buffers
    for name, values in buffers.items():
        assert torch.equal(kept[name], values.expand_as(kept[name]))
        assert not torch.equal(moved[name], values.expand_as(moved[name]))


def test_a_model_without_a_head_cannot_train_it():
    with pytest.raises(ValueError, match="last linear layer, and Sequential has none"):
        trained_names(nn.Sequential(nn.Conv2d(1, 1, 3), nn.Flatten()), HEAD)
