"""Features against the layers called by hand."""

import pytest
import torch
from torch import nn

from fedrobust.models.dba_cnn import DBACNN
from fedrobust.models.features import FeatureExtractor, feature_layer, head_name
from fedrobust.models.mlp import MLP
from fedrobust.models.resnet18 import ResNet18
from fedrobust.seeds import torch_generator


def test_penultimate_features_are_what_the_head_reads():
    model = MLP().build((1, 8, 8), 10)
    inputs = torch.rand(5, 1, 8, 8, generator=torch_generator(0, "test"))
    assert head_name(model) == "5"
    assert torch.equal(FeatureExtractor(model)(inputs), model[:5](inputs))


@pytest.mark.parametrize("architecture", [DBACNN(), ResNet18(), MLP()], ids=lambda one: type(one).__name__)
def test_head_on_features_is_the_model(architecture):
    """The head's own layer, applied to the features, must give the model's logits."""
    shape = (1, 28, 28) if isinstance(architecture, DBACNN) else (3, 32, 32)
    model = architecture.build(shape, 10).eval()
    inputs = torch.rand(2, *shape, generator=torch_generator(0, "test"))
    head = dict(model.named_modules())[head_name(model)]
    logits = head(FeatureExtractor(model)(inputs))
    expected = model(inputs)
    assert torch.allclose(logits if expected.shape == logits.shape else logits.log_softmax(1), expected, atol=1e-6)


def test_model_is_left_as_it_was_and_gradients_flow():
    model = MLP().build((1, 8, 8), 10)
    model.train()
    inputs = torch.rand(5, 1, 8, 8, generator=torch_generator(0, "test"), requires_grad=True)
    FeatureExtractor(model)(inputs).sum().backward()
    assert model.training
    assert inputs.grad is not None
    assert bool(inputs.grad.abs().sum() > 0)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_another_layer_is_flattened_and_a_wrong_one_is_refused():
    model = MLP(hidden_sizes=(7,)).build((1, 2, 2), 3)
    assert FeatureExtractor(model, "1")(torch.zeros(2, 1, 2, 2)).shape == (2, 7)
    assert feature_layer(model) == "2"
    with pytest.raises(ValueError, match=r"must be one of 0, 1, 2, 3, got 'fc'"):
        FeatureExtractor(model, "fc")
    with pytest.raises(ValueError, match="has none"):
        head_name(nn.Sequential(nn.Flatten()))
