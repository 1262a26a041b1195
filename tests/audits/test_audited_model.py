"""What an audit sees of a model, against the module itself, and in what state it leaves it."""

import pytest
import torch
from torch import nn

from fedrobust.audits import AuditedModel
from fedrobust.data.datasets import Digits
from fedrobust.models import MLP, ResNet18
from fedrobust.parameters import ParameterLayout, clone_buffers


def normalise(inputs: torch.Tensor) -> torch.Tensor:
    return (inputs - 0.5) / 0.25


def pictures(num: int = 7) -> torch.Tensor:
    return torch.rand(num, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def test_logits_and_features_are_those_of_the_module_in_evaluation_mode():
    """In batches of three, against one pass by hand; the head applied to the features gives the logits."""
    module = ResNet18(norm="batch").build((3, 16, 16), 5)
    module(normalise(pictures()))  # running statistics that differ from a batch's
    module.train()
    model = AuditedModel(module, normalise, batch_size=3)
    logits, features = model.logits(pictures()), model.features(pictures())
    module.eval()
    with torch.no_grad():
        torch.testing.assert_close(logits, module(normalise(pictures())), rtol=1e-4, atol=1e-5)
        *_, head = [part for part in module.modules() if isinstance(part, nn.Linear)]
        torch.testing.assert_close(head(features), logits, rtol=1e-4, atol=1e-5)
    assert not logits.requires_grad
    assert not features.requires_grad


def test_each_part_keeps_its_mode_and_has_no_hooks():
    module = ResNet18(norm="batch").build((3, 16, 16), 5).train()
    frozen = [part for part in module.modules() if isinstance(part, nn.BatchNorm2d)][:2]
    for part in frozen:
        part.eval()
    before = {name: part.training for name, part in module.named_modules()}
    buffers = clone_buffers(module)
    model = AuditedModel(module, normalise)
    model.logits(pictures())
    model.features(pictures())
    with pytest.raises(ValueError, match=r"feature layer must be one of .*, got 'fc'"):
        model.features(pictures(), "fc")
    assert {name: part.training for name, part in module.named_modules()} == before
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in module.modules())
    assert all(torch.equal(buffer, buffers[name]) for name, buffer in module.named_buffers())


def test_from_a_vector_it_is_a_copy():
    """With parameters from a vector; the template is not written to."""
    dataset = Digits().load(None, torch.device("cpu"))
    template, other = MLP().build((1, 8, 8), 10), MLP().build((1, 8, 8), 10)
    layout = ParameterLayout.of(other)
    vector = layout.flatten(other)
    before = ParameterLayout.of(template).flatten(template)
    model = AuditedModel.from_parameters(template, vector, {}, dataset)
    with torch.no_grad():
        expected = other(dataset.normalise(dataset.test.inputs))
    torch.testing.assert_close(model.logits(dataset.test.inputs), expected)
    vector.zero_()
    torch.testing.assert_close(model.logits(dataset.test.inputs), expected)
    assert torch.equal(layout.flatten(template), before)
