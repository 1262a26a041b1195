"""Architectures: parameter counts in closed form, functions against independent ones, and running under torch.func."""

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.func import functional_call, grad, stack_module_state, vmap
from torch.nn import functional

from fedrobust.models import DBACNN, MLP, Architecture, Logistic, ResNet18, SmallCNN
from fedrobust.seeds import seeded_initialisation

Shape = tuple[int, ...]
SMALL: list[tuple[Architecture, Shape]] = [
    (Logistic(), (1, 8, 8)),
    (Logistic(), (30,)),
    (MLP(hidden_sizes=[16, 8]), (1, 8, 8)),
    (DBACNN(), (1, 28, 28)),
    (ResNet18(width=8, num_groups=4), (3, 16, 16)),
    (SmallCNN(channels=[4, 8], hidden_size=16), (3, 9, 8)),
]


def build(architecture: Architecture, shape: Shape, num_classes: int = 10, seed: int = 0) -> nn.Module:
    with seeded_initialisation(seed, "model"):
        return architecture.build(shape, num_classes)


def count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def random_inputs(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def resnet18_count(width: int, num_channels: int, num_classes: int) -> int:
    """3x3 convolutions have 9 * in * out weights, projections in * out, and each is followed by 2 * out of its norm."""
    total = 9 * num_channels * width + 2 * width
    num_in = width
    for num_out in (width, 2 * width, 4 * width, 8 * width):
        total += 9 * num_in * num_out + 3 * 9 * num_out * num_out + 4 * 2 * num_out
        total += 0 if num_in == num_out else num_in * num_out + 2 * num_out
        num_in = num_out
    return total + num_in * num_classes + num_classes


@pytest.mark.parametrize(
    ("architecture", "shape", "num_classes", "expected"),
    [
        (Logistic(), (1, 8, 8), 10, 64 * 10 + 10),
        (Logistic(), (30,), 2, 30 * 2 + 2),
        (MLP(), (1, 8, 8), 10, (64 * 128 + 128) + (128 * 64 + 64) + (64 * 10 + 10)),
        (MLP(hidden_sizes=[5]), (30,), 2, (30 * 5 + 5) + (5 * 2 + 2)),
        (MLP(hidden_sizes=()), (30,), 2, 30 * 2 + 2),
        (DBACNN(), (1, 28, 28), 10, (25 * 20 + 20) + (20 * 25 * 50 + 50) + (800 * 500 + 500) + (500 * 10 + 10)),
        (DBACNN(), (1, 28, 28), 10, 431_080),
        (ResNet18(norm="batch"), (3, 32, 32), 10, 11_173_962),
        (ResNet18(), (3, 32, 32), 10, 11_173_962),
        (ResNet18(width=8, num_groups=4), (1, 16, 16), 7, resnet18_count(8, 1, 7)),
        (SmallCNN(), (3, 32, 32), 43, (27 * 16 + 16) + (9 * 16 * 32 + 32) + (2048 * 128 + 128) + (128 * 43 + 43)),
        (SmallCNN(), (3, 32, 32), 43, 272_907),
        (SmallCNN(channels=[5]), (1, 9, 8), 10, (9 * 5 + 5) + (5 * 4 * 4 * 128 + 128) + (128 * 10 + 10)),
    ],
)
def test_parameter_counts(architecture: Architecture, shape: Shape, num_classes: int, expected: int) -> None:
    assert count(build(architecture, shape, num_classes)) == expected


def test_the_closed_form_gives_the_published_count() -> None:
    assert resnet18_count(64, 3, 10) == 11_173_962


@pytest.mark.parametrize(("architecture", "shape"), SMALL)
def test_logits_and_convolutions(architecture: Architecture, shape: Shape) -> None:
    model = build(architecture, shape, num_classes=4)
    assert model(random_inputs(3, *shape)).shape == (3, 4)
    assert architecture.has_convolutions == any(isinstance(module, nn.Conv2d) for module in model.modules())


@pytest.mark.parametrize(("architecture", "shape"), SMALL)
def test_the_callers_seed_decides(architecture: Architecture, shape: Shape) -> None:
    first, again, other = (build(architecture, shape, seed=seed) for seed in (0, 0, 1))
    states = [torch.cat([parameter.flatten() for parameter in model.parameters()]) for model in (first, again, other)]
    assert torch.equal(states[0], states[1])
    assert not torch.equal(states[0], states[2])


@pytest.mark.parametrize(("architecture", "shape"), SMALL)
def test_gradients_of_stacked_models_equal_those_of_each(architecture: Architecture, shape: Shape) -> None:
    """vmap over functional_call against plain autograd, one model at a time."""
    models = [build(architecture, shape, seed=seed) for seed in range(3)]
    inputs, labels = random_inputs(3, 4, *shape), torch.arange(12).reshape(3, 4) % 10
    parameters, buffers = stack_module_state(models)

    def loss(parameters: dict[str, Tensor], inputs: Tensor, labels: Tensor) -> Tensor:
        return functional.cross_entropy(functional_call(models[0], (parameters, buffers), (inputs,)), labels)

    stacked = vmap(grad(loss))(parameters, inputs, labels)
    for index, model in enumerate(models):
        functional.cross_entropy(model(inputs[index]), labels[index]).backward()
        for name, parameter in model.named_parameters():
            torch.testing.assert_close(stacked[name][index], parameter.grad, rtol=1e-3, atol=1e-5)


def test_batch_norm_runs_under_functional_call() -> None:
    model = build(ResNet18(norm="batch", width=8), (3, 16, 16)).eval()
    inputs = random_inputs(2, 3, 16, 16)
    torch.testing.assert_close(functional_call(model, dict(model.named_parameters()), (inputs,)), model(inputs))


def test_dba_cnn_is_the_papers_function() -> None:
    """The paper's order, ReLU before pooling, with the same weights."""
    model = build(DBACNN(), (1, 28, 28))
    inputs = random_inputs(5, 1, 28, 28)
    weights = [parameter.detach() for parameter in model.parameters()]
    hidden = functional.max_pool2d(functional.conv2d(inputs, *weights[0:2]).relu(), 2)
    hidden = functional.max_pool2d(functional.conv2d(hidden, *weights[2:4]).relu(), 2)
    hidden = functional.linear(hidden.flatten(1), *weights[4:6]).relu()
    torch.testing.assert_close(model(inputs), functional.linear(hidden, *weights[6:8]))


def test_resnet18_is_torchvisions_with_a_small_stem() -> None:
    """torchvision's ResNet-18, its 7x7 stem and max-pool replaced, lists the same parameters in the same order."""
    model = build(ResNet18(norm="batch"), (3, 32, 32)).eval()
    reference = torchvision.models.resnet18(num_classes=10).eval()
    reference.conv1 = nn.Conv2d(3, 64, kernel_size=3, padding=1, bias=False)
    reference.maxpool = nn.Identity()
    with torch.no_grad():
        for theirs, ours in zip(reference.parameters(), model.parameters(), strict=True):
            theirs.copy_(ours)
        inputs = random_inputs(2, 3, 32, 32)
        torch.testing.assert_close(model(inputs), reference(inputs), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", [(1, 32, 32), (3, 28, 28), (784,)])
def test_dba_cnn_refuses_other_inputs(shape: Shape) -> None:
    with pytest.raises(ValueError, match=r"\(1, 28, 28\), got") as caught:
        DBACNN().build(shape, 10)
    assert str(shape) in str(caught.value)


@pytest.mark.parametrize("shape", [(30,), (3, 4, 32)])
def test_resnet18_refuses_what_is_not_an_image(shape: Shape) -> None:
    with pytest.raises(ValueError, match="takes images"):
        ResNet18().build(shape, 10)


def test_impossible_fields() -> None:
    with pytest.raises(ValueError, match="num_groups: must divide width=48, got 32"):
        ResNet18(width=48)
    with pytest.raises(ValueError, match="norm"):
        ResNet18(norm="layer")
    with pytest.raises(ValueError, match="hidden_sizes"):
        MLP(hidden_sizes=[128, 0])
    with pytest.raises(ValueError, match="hidden_sizes"):
        MLP(hidden_sizes=128)
