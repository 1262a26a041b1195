import pytest
import torch
from torch import nn

from fedrobust.seeds import seeded_initialisation, torch_generator
from fedrobust.statistics import module_gradients


@pytest.mark.parametrize("chunk_size", [None, 4])
def test_equals_one_backward_pass_a_sample(chunk_size: int | None) -> None:
    """torch.autograd, sample by sample, on a network with a frozen layer and a buffer."""
    with seeded_initialisation(0, "module"):
        module = nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Linear(5, 4), nn.Linear(4, 2)).double()
    module.eval()
    module[3].weight.requires_grad_(False)
    inputs = torch.randn(11, 3, generator=torch_generator(0, "inputs"), dtype=torch.float64)
    targets = torch.arange(11) % 2
    found = module_gradients(module, nn.functional.cross_entropy, inputs, targets, chunk_size=chunk_size)
    learned = [value for value in module.parameters() if value.requires_grad]
    for one, target, gradient in zip(inputs, targets, found):
        loss = nn.functional.cross_entropy(module(one[None]), target[None])
        expected = torch.cat([part.flatten() for part in torch.autograd.grad(loss, learned)])
        torch.testing.assert_close(gradient, expected, rtol=1e-10, atol=1e-12)
