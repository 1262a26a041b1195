"""Victims outside a federation, against scikit-learn's and torch's own training."""

import pytest
import torch
import torch.nn.functional as F
from sklearn.svm import SVC

from fedrobust.data.datasets import Dataset, Examples
from fedrobust.models import MLP
from fedrobust.seeds import seeded_initialisation, torch_generator
from fedrobust.training.local_training import LocalTraining
from fedrobust.training.victims import train_full_batch, train_head, train_model


def clouds(num_classes: int) -> Examples:
    """Well separated Gaussian clouds in five dimensions."""
    generator = torch_generator(0, "test")
    labels = torch.arange(60) % num_classes
    centres = 6 * torch.eye(5)[:num_classes]
    return Examples(centres[labels] + torch.randn(60, 5, generator=generator), labels)


@pytest.mark.parametrize("until", ["interpolation", "convergence"])
@pytest.mark.parametrize("there", [[1, 3], [0, 2, 3]])
def test_a_head_may_miss_classes(until, there):
    """Examples of some classes of four alone: each is taken for its own, none for a class that has no examples."""
    examples = clouds(len(there))
    labels = torch.tensor(there)[examples.labels]
    head = train_head(examples.inputs, labels, 4, until)
    assert head.out_features == 4
    assert torch.equal(head(examples.inputs).argmax(dim=1), labels)


@pytest.mark.parametrize("until", ["interpolation", "convergence"])
@pytest.mark.parametrize("num_classes", [2, 3])
def test_a_head_fits_what_it_is_given(until, num_classes):
    examples = clouds(num_classes)
    head = train_head(examples.inputs, examples.labels, num_classes, until)
    assert torch.equal(head(examples.inputs).argmax(dim=1), examples.labels)
    assert (head.in_features, head.out_features) == (5, num_classes)


def test_a_converged_head_has_nearly_the_widest_margin():
    """Unpenalised logistic regression converges in direction to the hard-margin SVM (Soudry et al., JMLR 2018)."""
    examples = clouds(2)
    head = train_head(examples.inputs, examples.labels, 2)
    widest = SVC(kernel="linear", C=1e6).fit(examples.inputs.numpy(), examples.labels.numpy())
    direction = head.weight[1] - head.weight[0]
    assert float(F.cosine_similarity(direction, torch.from_numpy(widest.coef_[0].copy()).float(), dim=0)) > 0.97


def test_a_converged_head_has_nearly_the_widest_margin_of_wide_features():
    """As above with more features than examples, where the loss is so flat that a solver may stop far too early.

    0.99 is where scikit-learn's L-BFGS does, at the same tolerance.
    """
    generator = torch_generator(0, "test")
    features = torch.randn(60, 400, generator=generator).relu()
    labels = torch.randint(2, (60,), generator=generator)
    head = train_head(features, labels, 2)
    widest = SVC(kernel="linear", C=1e8).fit(features.double().numpy(), labels.numpy())
    direction = head.weight[1] - head.weight[0]
    assert float(F.cosine_similarity(direction, torch.from_numpy(widest.coef_[0].copy()).float(), dim=0)) > 0.995


def test_contradicting_labels_cannot_be_fitted():
    features, labels = torch.ones(2, 3), torch.tensor([0, 1])
    with pytest.raises(ValueError, match="no head on 3 features was found to fit all 2 labels"):
        train_head(features, labels, 2)


def test_a_model_is_trained_on_as_torch_does_it():
    """One full batch for three epochs is three steps of torch's SGD on the normalised inputs."""
    examples = clouds(3)
    mean, std = torch.full((5,), 0.5), torch.full((5,), 2.0)
    dataset = Dataset("fake", examples, examples, 3, "tabular", mean, std)
    with seeded_initialisation(0, "test"):
        model = MLP(hidden_sizes=(7,)).build((5,), 3)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    training = LocalTraining(learning_rate=0.1, momentum=0.9, num_epochs=3, batch_size=60)
    trained = train_model(model, dataset, examples, training, seed=0)
    assert all(torch.equal(one, other) for one, other in zip(model.parameters(), before, strict=True))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for _ in range(3):
        optimizer.zero_grad()
        F.cross_entropy(model((examples.inputs - 0.5) / 2), examples.labels).backward()
        optimizer.step()
    for one, other in zip(trained.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(one, other.detach(), atol=1e-5, rtol=0)
    assert not trained.training


def test_a_full_batch_is_trained_on_by_adam_as_published():
    """Kingma & Ba, ICLR 2015, algorithm 1, for three steps on the normalised inputs."""
    examples = clouds(3)
    dataset = Dataset("fake", examples, examples, 3, "tabular", torch.full((5,), 0.5), torch.full((5,), 2.0))
    with seeded_initialisation(0, "test"):
        model = MLP(hidden_sizes=()).build((5,), 3)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    trained = train_full_batch(model, dataset, examples, num_steps=3, learning_rate=0.01)
    expected = {name: value.clone() for name, value in before.items()}
    first, second = ({name: torch.zeros_like(value) for name, value in before.items()} for _ in range(2))
    weight, bias = list(before)
    for step in range(1, 4):
        inputs = (examples.inputs - 0.5) / 2
        errors = (inputs @ expected[weight].T + expected[bias]).softmax(dim=1) - F.one_hot(examples.labels, 3)
        gradients = {weight: errors.T @ inputs / len(inputs), bias: errors.mean(dim=0)}
        for name, gradient in gradients.items():
            first[name] = 0.9 * first[name] + 0.1 * gradient
            second[name] = 0.999 * second[name] + 0.001 * gradient**2
            mean, size = first[name] / (1 - 0.9**step), second[name] / (1 - 0.999**step)
            expected[name] -= 0.01 * mean / (size.sqrt() + 1e-8)
    for name, parameter in trained.named_parameters():
        torch.testing.assert_close(parameter, expected[name], atol=1e-5, rtol=0)
    assert all(torch.equal(parameter, before[name]) for name, parameter in model.named_parameters())
    assert not trained.training
